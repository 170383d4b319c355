"""The optional parts of a baseline: how they are checked, and how those of two are merged."""

from __future__ import annotations

import math
from collections.abc import Mapping
from itertools import pairwise
from typing import Any

from understudy.monitor.baseline.together import JointProfile
from understudy.monitor.detectors.seasons import Profile

MOST = 256
"""Series of a correlation, and buckets of a calibration table, that a file may have."""


def check_parts(data: Mapping[str, Any]) -> None:
    """Raise KeyError, TypeError or ValueError when a part of a file cannot be what it says."""
    correlation, calibration = data.get("correlation"), data.get("calibration")
    if correlation is not None:
        names, matrix = correlation["series"], correlation["matrix"]
        square = len(matrix) == len(names) and all(len(row) == len(names) for row in matrix)
        if not square or len(names) > MOST:
            raise ValueError(f"correlation must be a square of at most {MOST} series")
        if not all(_number(value) and abs(value) <= 1.0 for row in matrix for value in row):
            raise ValueError("correlation must hold numbers from -1 to 1")
        if not _number(correlation["rows"]) or correlation["rows"] <= 0:
            raise ValueError("correlation needs its rows")
    if calibration is not None:
        edges, counts = calibration["edges"], calibration["counts"]
        others = (counts, calibration["positives"], calibration["scores"])
        if not isinstance(calibration["prediction"], str) or len(counts) > MOST:
            raise ValueError("calibration must name its prediction, and be of bounded size")
        if any(len(one) != len(edges) + 1 for one in others):
            raise ValueError("calibration must have one bucket more than edges")
        if not all(_number(value) for one in (edges, *others) for value in one):
            raise ValueError("calibration must hold numbers")
        if any(b <= a for a, b in pairwise(edges)):
            raise ValueError("the edges of the calibration must rise")
        if any(not 0 <= p <= n for p, n in zip(others[1], counts, strict=True)):
            raise ValueError("calibration has more positives than rows")
    if data.get("together") is not None:
        JointProfile.from_dict(data["together"])
    if (seasons := data.get("seasons")) is not None:
        result = Profile.from_dict(seasons)
        if result.means.shape[1] != 2 * len(seasons["series"]):
            raise ValueError("seasons must have location and spread of each of their series")
    for name, one in (data.get("performance") or {}).items():
        if not all(_number(one[key]) for key in ("value", "deviation", "rows")):
            raise ValueError(f"performance {name!r} must hold numbers")
        if one["rows"] <= 0:
            raise ValueError(f"performance {name!r} needs its rows")
        if not _number(one.get("threshold", 0.0)):
            raise ValueError(f"the threshold of performance {name!r} must be a number")


def _number(value: Any) -> bool:
    return isinstance(value, (int, float)) and math.isfinite(value)


def merged_correlation(a: dict[str, Any] | None, b: dict[str, Any] | None) -> dict[str, Any] | None:
    """Weighted by rows, where both have the same series; else None."""
    if a is None or b is None or a["series"] != b["series"]:
        return None
    rows = a["rows"] + b["rows"]
    matrix = [
        [round((x * a["rows"] + y * b["rows"]) / rows, 6) for x, y in zip(p, q, strict=True)]
        for p, q in zip(a["matrix"], b["matrix"], strict=True)
    ]
    return {"series": a["series"], "matrix": matrix, "rows": rows}


def merged_calibration(a: dict[str, Any] | None, b: dict[str, Any] | None) -> dict[str, Any] | None:
    """Added up, where the buckets are the same; else None."""
    if a is None or b is None or a["prediction"] != b["prediction"] or a["edges"] != b["edges"]:
        return None
    sums = {
        key: [x + y for x, y in zip(a[key], b[key], strict=True)]
        for key in ("counts", "positives", "scores")
    }
    return {"prediction": a["prediction"], "edges": a["edges"], **sums}


def merged_performance(a: dict[str, Any] | None, b: dict[str, Any] | None) -> dict[str, Any] | None:
    """Of the rows of both, for the metrics that both have."""
    if a is None or b is None:
        return None
    merged = {}
    for name in a.keys() & b.keys():
        if a[name].get("threshold") != b[name].get("threshold"):
            continue
        n, m = a[name]["rows"], b[name]["rows"]
        both = n + m
        mean = (a[name]["value"] * n + b[name]["value"] * m) / both
        squares = sum(
            count * (one[name]["deviation"] ** 2 + (one[name]["value"] - mean) ** 2)
            for one, count in ((a, n), (b, m))
        )
        deviation = (squares / both) ** 0.5
        merged[name] = {**a[name], "value": mean, "deviation": deviation, "rows": both}
    return merged
