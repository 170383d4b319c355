"""Signals for tests."""

from __future__ import annotations

from typing import Any

from understudy.monitor.findings.finding import Contribution, Signal, Size


def signal(key: str = "drift/delays/1//", **changes: Any) -> Signal:
    parts: dict[str, Any] = {
        "key": key,
        "kind": "drift",
        "model": "delays",
        "version": "1",
        "segment": "",
        "severity": "warning",
        "title": "Inputs have changed: temp",
        "since": 900.0,
        "features": (
            Contribution("temp", 0.8, "median 12, was 54"),
            Contribution("wind", 0.2, "has risen"),
        ),
        "size": Size("temp", "standard deviations", 0.0, 2.0, 1.5, 2.5),
        "rule": "two-sided CUSUMs",
        "guarantee": "at most one false alarm in 1,000,000 rows",
        "examples": ("a-1", "a-2"),
        "advice": "Compare the features that are named with their source.",
        "assumptions": ("rows are independent",),
    }
    return Signal(**{**parts, **changes})
