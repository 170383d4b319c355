"""Files with anything in them: an answer or a fault with its place, and nothing else."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.support.all_alerts import ALL
from tests.support.openslo import NONE, OPENSLO
from understudy.monitor.errors import ConfigError
from understudy.monitor.slo.explain import text
from understudy.monitor.slo.load import load

JUNK = st.sampled_from(
    [None, True, 0, -1, 1.5, 1e308, float("nan"), float("inf"), "", "x", "99.9 %", "5m", "1 s",
     "{{.window}}", "☂" * 300, [], [1], [[]], {}, {"a": 1}, {"metricSource": {}}, "\u0000", "-30d"]
)  # fmt: skip
DOCUMENTS: list[list[Any]] = [
    [ALL],
    list(yaml.safe_load_all(OPENSLO)),
    [{**yaml.safe_load(NONE), "objectives": {"latency_p99": "<= 60ms", "accuracy": ">= 0.9"}}],
]


def places(data: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    if path:
        yield path
    if isinstance(data, dict):
        for key, value in data.items():
            yield from places(value, (*path, key))
    elif isinstance(data, list):
        for number, value in enumerate(data):
            yield from places(value, (*path, number))


def changed(documents: list[Any], path: tuple[Any, ...], value: Any, remove: bool) -> list[Any]:
    found = copy.deepcopy(documents)
    at: Any = found
    for step in path[:-1]:
        at = at[step]
    if remove:
        del at[path[-1]]
    else:
        at[path[-1]] = value
    return found


@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_arbitrary_files_are_only_rejected(tmp_path: Path, data: st.DataObject) -> None:
    documents = data.draw(st.sampled_from(DOCUMENTS))
    for _ in range(data.draw(st.integers(1, 3))):
        found = list(places(documents))
        if not found:
            break
        path = data.draw(st.sampled_from(found))
        documents = changed(documents, path, data.draw(JUNK), data.draw(st.booleans()))
    file = tmp_path / "slo.yaml"
    file.write_text(yaml.safe_dump_all(documents, allow_unicode=True), encoding="utf-8")
    try:
        compiled = load(file)
    except ConfigError as error:
        assert error.problems
        assert all(message for _, message in error.problems)
        return
    for slo in compiled.slos:
        assert text(slo)
        assert 0.0 < slo.budget < 1.0
    files = {
        **compiled.rule_files(),
        **compiled.test_files((1.0,)),
        "m": compiled.prometheus_rules({}),
    }
    assert "NaN" not in json.dumps(files)


@pytest.mark.parametrize(
    "content", [b"\xff\xfe", b"a: [1", b"- 1\n--- \n", b"", b"apiVersion: openslo/v1"]
)
def test_files_that_are_not_objectives_are_rejected(tmp_path: Path, content: bytes) -> None:
    file = tmp_path / "slo.yaml"
    file.write_bytes(content)
    with pytest.raises(ConfigError):
        load(file)
