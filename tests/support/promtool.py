"""The real promtool, for tests: that of Prometheus 2, and that of Prometheus 3.

Their ranges differ: those of Prometheus 3 are open on the left. What is generated must be right in
both, so tests that run rules use the fixture :func:`promtool` and run once with each.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tools.parts import debian, prometheus
from understudy.monitor.slo import promtool as tool
from understudy.monitor.slo.text import dumped

NEEDS = {"prometheus-2": debian.need, "prometheus-3": prometheus.need}
"""By version, the function that finds its programs or skips the test."""
_used: list[Path] = []


@pytest.fixture(params=NEEDS)
def promtool(request: pytest.FixtureRequest) -> Iterator[Path]:
    """The promtool of each version in turn, which the functions of this module use meanwhile."""
    _used.append(NEEDS[request.param]("promtool"))
    yield _used[-1]
    _used.pop()


def left_open() -> bool:
    """Whether a range of the version in use lacks its first moment. It matters in tests alone, in
    which scrapes and evaluations fall on the same moments."""
    return _used[-1] == prometheus.place("promtool")


def write(folder: Path, files: dict[str, Any]) -> None:
    """Each document in a file of its name."""
    for name, data in files.items():
        (folder / name).write_text(dumped(data), encoding="utf-8")


def check(folder: Path, *names: str) -> None:
    """The rule files are valid."""
    good, said = _run(folder, "check", "rules", *names)
    assert good, said


def passes(folder: Path, name: str) -> None:
    """The unit tests of a file pass."""
    good, said = run(folder, name)
    assert good, said[:4000]


def run(folder: Path, name: str) -> tuple[bool, str]:
    """Whether they pass, and the output."""
    return _run(folder, "test", "rules", name)


def _run(folder: Path, *arguments: str) -> tuple[bool, str]:
    assert _used, "the test does not use the fixture promtool"
    return tool.run(str(_used[-1]), arguments, folder, debian.environment())


def is_true(expression: str, at: str) -> dict[str, Any]:
    """A check that a comparison with ``bool`` yields 1 at a moment."""
    return {"expr": expression, "eval_time": at, "exp_samples": [{"labels": "{}", "value": 1}]}
