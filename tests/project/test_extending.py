"""What CONTRIBUTING.md adds works, with one file and one entry each: in a copy of the tree."""

from __future__ import annotations

import ast
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.support.patience import patient

ROOT = Path(__file__).resolve().parents[2]
PARTS = ("monitor", "shadow", "loadtest", "understudy", "tests")
SECTIONS = {
    "Add a wire format": 1,
    "Add a detector": 1,
    "Add a metric for experiments": 2,  # of which one is for a new column
    "Add an alert channel": 1,
    "Add a stage of the gate": 1,
}
"""Headings, and how many entries each example needs."""


def blocks(text: str) -> dict[str, list[str]]:
    """The Python of each section of the page."""
    parts = re.split(r"^## (.+)$", text, flags=re.MULTILINE)[1:]
    return {
        title: re.findall(r"^```python\n(.*?)^```$", body, re.DOTALL | re.MULTILINE)
        for title, body in zip(parts[::2], parts[1::2], strict=True)
    }


def with_entry(text: str, table: str, entry: str) -> str:
    """The text of a file with an entry at the end of a table at its top level."""
    for node in ast.parse(text).body:
        if isinstance(node, ast.Assign):
            target: ast.expr = node.targets[0]
        elif isinstance(node, ast.AnnAssign):
            target = node.target
        else:
            continue
        if isinstance(target, ast.Name) and target.id == table:
            assert node.end_lineno is not None
            lines = text.splitlines(keepends=True)
            return "".join([*lines[: node.end_lineno - 1], entry, *lines[node.end_lineno - 1 :]])
    raise AssertionError(f"there is no table {table}")


def add(folder: Path, block: str) -> bool:
    """Put a block where its first line says; whether it is an entry, and not a file."""
    head, _, rest = block.partition("\n")
    entry = re.fullmatch(r"# (\w+) in (\S+\.py)", head)
    if entry is not None:
        path = folder / entry[2]
        path.write_text(with_entry(path.read_text(), entry[1], rest))
        return True
    file = re.fullmatch(r"# (\S+\.py)", head)
    assert file is not None, f"{head}: names neither a file nor a table"
    path = folder / file[1]
    assert not path.exists(), f"{path} exists"
    path.write_text(rest)
    return False


@pytest.fixture(scope="module")
def extended(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the tree with all five examples."""
    folder = tmp_path_factory.mktemp("extended")
    skipped = shutil.ignore_patterns("*cache*", "results")
    for part in PARTS:
        shutil.copytree(ROOT / part, folder / part, symlinks=True, ignore=skipped)
    shutil.copytree(ROOT / "tools" / "parts", folder / "tools" / "parts", ignore=skipped)
    shutil.copy(ROOT / "tools" / "__init__.py", folder / "tools")
    shutil.copy(ROOT / "pyproject.toml", folder)
    found = blocks((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    for title, entries in SECTIONS.items():
        added = [add(folder, block) for block in found[title]]
        assert added.count(True) == entries
        assert added.count(False) == (1 if entries == 1 else 0)
    return folder


def run(folder: Path, *command: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *map(str, command)],
        capture_output=True,
        text=True,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(folder)},
        timeout=patient(200),
    )


def test_the_examples_are_typed_and_tidy(extended: Path) -> None:
    found = blocks((ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    files = [
        block.partition("\n")[0].removeprefix("# ")
        for title in SECTIONS
        for block in found[title]
        if " in " not in block.partition("\n")[0]
    ]
    assert len(files) == 4
    for command in (("ruff", "check"), ("ruff", "format", "--check")):
        done = run(extended, "-m", *command, *files)
        assert done.returncode == 0, done.stdout + done.stderr


def test_the_schema_names_what_was_added(extended: Path) -> None:
    code = "import json; from understudy.monitor.config.schema import json_schema\n"
    done = run(extended, "-c", code + "print(json.dumps(json_schema()))")
    assert done.returncode == 0, done.stderr
    parts = json.loads(done.stdout)["$defs"]

    def keys(section: str, key: str) -> dict[str, Any]:
        found: dict[str, Any] = parts[section]["properties"][key]
        return found

    assert "batch-json" in keys("Model", "protocol")["enum"]
    assert "page_cusum" in keys("Detector", "kind")["enum"]
    assert "page_cusum" in keys("ErrorDetector", "kind")["enum"]
    assert "first_byte_mean" in keys("Metric", "metric")["description"]
    assert "pagerduty" in keys("Notification", "kind")["enum"]
    assert "`pagerduty` sends events" in keys("Notification", "kind")["description"]
    assert keys("Notification", "secret_env")["description"].startswith("webhook and pagerduty: ")


@pytest.mark.integration
def test_the_examples_work_in_a_running_service_and_a_gate(extended: Path, tmp_path: Path) -> None:
    done = run(extended, "-m", "tests.support.extended", tmp_path)
    assert done.returncode == 0, done.stdout + done.stderr
    found = json.loads(done.stdout)

    problems = found["problems"]
    assert "models[0].protocol" in problems["protocol"]
    assert "did you mean 'batch-json'?" in problems["protocol"]
    assert "monitoring.detectors[0]" in problems["option"]
    assert "page_cusum has no option 'delta': limit, slack" in problems["option"]
    assert "notify[0]" in problems["setting"]
    expected = "token_env is for alertmanager and webhook, not for pagerduty"
    assert expected in problems["setting"]
    assert "experiments[0].metrics[0].metric" in problems["metric"]
    assert "first_byte_mean" in problems["metric"]

    # The payloads of the wire format became columns: they were learned, watched and counted.
    expected = "amount: page_cusum detected a change upwards"
    alert = next(
        one for one in found["alerts"] if expected in one["payload"]["custom_details"]["findings"]
    )
    # Alone, or behind the drift that it corroborates.
    assert expected in alert["payload"]["summary"]
    assert len({one["dedup_key"] for one in found["alerts"]}) == 1
    assert (alert["routing_key"], alert["event_action"]) == ("k-1", "trigger")
    assert 'metric="first_byte_mean"' in found["metrics"]
    assert found["evidence"]["metric"] == "first_byte_mean"
    assert found["evidence"]["champion"] > 0.0

    assert [one["exit"] for one in found["gates"]] == [0, 1]
    stage = found["gates"][1]["result"]["stages"][0]
    assert (stage["kind"], stage["verdict"]) == ("memory", "failed")
    assert stage["criteria"][0]["value"] > 1.0
