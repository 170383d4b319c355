"""The real promtool, for tests."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tools.parts.debian import environment, need
from understudy.monitor.slo import promtool
from understudy.monitor.slo.text import dumped


def write(folder: Path, files: dict[str, Any]) -> None:
    """Each document in a file of its name."""
    for name, data in files.items():
        (folder / name).write_text(dumped(data), encoding="utf-8")


def check(folder: Path, *names: str) -> None:
    """The rule files are valid."""
    good, said = promtool.run(
        str(need("promtool")), ["check", "rules", *names], folder, environment()
    )
    assert good, said


def passes(folder: Path, name: str) -> None:
    """The unit tests of a file pass."""
    good, said = run(folder, name)
    assert good, said[:4000]


def run(folder: Path, name: str) -> tuple[bool, str]:
    """Whether they pass, and the output."""
    return promtool.run(str(need("promtool")), ["test", "rules", name], folder, environment())


def is_true(expression: str, at: str) -> dict[str, Any]:
    """A check that a comparison with ``bool`` yields 1 at a moment."""
    return {"expr": expression, "eval_time": at, "exp_samples": [{"labels": "{}", "value": 1}]}
