"""Limits that differ between the arms are named by both keys, and are no error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from understudy.monitor.cli.main import main

BASE = """
version: 1
listen: 127.0.0.1:8080
models: [{name: m}, {name: slow, first_byte: 15m}]
champion: {url: "http://127.0.0.1:9001"}
challengers: [{name: other, url: "http://127.0.0.1:9002"%s}]
"""


@pytest.mark.parametrize(
    ("more", "key", "other"),
    [
        ("mirror: {timeout: 5s}", "mirror.timeout", "champion.timeouts.first_byte"),
        ("mirror: {timeout: 5s}", "mirror.timeout", "champion.timeouts.total"),
        ("mirror: {connections: 32}", "mirror.connections", "champion.max_connections"),
        ("timeouts: {total: 10s}", "timeouts.total", "champion.timeouts.total"),
        ("max_connections: 8", "max_connections", "champion.max_connections"),
        ("mirror: {max_response: 1KiB}", "mirror.max_response", "capture.max_body"),
    ],
)
def test_unequal_limits_are_warnings(tmp_path: Path, more: str, key: str, other: str) -> None:
    file = tmp_path / "understudy.yaml"
    file.write_text(BASE % f", {more}")
    result = CliRunner().invoke(main, ["config", "check", str(file), "--json"])
    assert result.exit_code == 0, result.output
    found = json.loads(result.stdout)
    assert found["valid"]
    assert any(
        w["path"] == f"challengers[0].{key}" and other in w["message"] for w in found["warnings"]
    )
    shown = CliRunner().invoke(main, ["config", "check", str(file)])
    assert f"challengers[0].{key}: warning:" in shown.stderr


@pytest.mark.parametrize(
    ("more", "experiment", "key"),
    [
        ("", "minimum_duration: 1m", "champion.timeouts.first_byte is 120 s"),
        (", mirror: {timeout: 2m}", "minimum_duration: 1m", "challengers[0].mirror.timeout is 120"),
        (
            ", timeouts: {total: 10m}",
            "mode: split, weights: {other: 0.1}",
            "challengers[0].timeouts.total is 600 s",
        ),
        (", mirror: {timeout: 30s}", "minimum_duration: 1m", ""),
        ("", "model: slow", "models[1].first_byte is 900 s"),
        ("", "mode: canary", ""),
    ],
)
def test_a_decision_before_the_time_limit_is_a_warning(
    tmp_path: Path, more: str, experiment: str, key: str
) -> None:
    file = tmp_path / "understudy.yaml"
    named = "" if "model:" in experiment else "model: m, "
    declared = f"experiments: [{{name: x, challengers: [other], {named}{experiment}}}]\n"
    file.write_text(BASE % more + declared)
    result = CliRunner().invoke(main, ["config", "check", str(file), "--json"])
    assert result.exit_code == 0, result.output
    warned = {w["path"]: w["message"] for w in json.loads(result.stdout)["warnings"]}
    assert key in warned.get("experiments[0].minimum_duration", "")
    assert ("experiments[0].minimum_duration" in warned) == bool(key)


def test_the_defaults_have_equal_limits(tmp_path: Path) -> None:
    file = tmp_path / "understudy.yaml"
    file.write_text(BASE % "")
    result = CliRunner().invoke(main, ["config", "check", str(file), "--json"])
    assert json.loads(result.stdout)["warnings"] == []
