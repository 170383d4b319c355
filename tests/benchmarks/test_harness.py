"""The pure parts of the benchmarks: medians, claims, what is written."""

from __future__ import annotations

import json
from pathlib import Path

from benchmarks.harness import Claim, Result, median, median_ratio, shown, table


def test_the_ratio_is_taken_round_by_round() -> None:
    assert median_ratio([1.0, 20.0, 3.0], [2.0, 40.0, 3.0]) == 0.5
    assert median_ratio([], []) is None
    assert median_ratio([1.0], [0.0]) is None
    assert median([3.0, 1.0, 2.0]) == 2.0


def test_claims_know_whether_they_are_met() -> None:
    assert Claim("c", 0.3, 0.35, "<=").met
    assert not Claim("c", 0.36, 0.35, "<=").met
    assert Claim("c", 8.0, 7.0, ">=").met
    assert not Claim("c", None, 7.0, ">=").met


def test_a_result_is_written_for_machines_and_people(tmp_path: Path) -> None:
    result = Result("proxy-x", {"cores": 2}, {"m": [1]}, [Claim("fast", 0.5, 0.35, "<=")])
    result.tables.append(("T", ["a", "b"], [["x", 12345.6], ["y", None]]))
    document = json.loads(result.write(tmp_path).read_text())
    assert document["claims"] == [
        {"claim": "fast", "value": 0.5, "target": 0.35, "op": "<=", "met": False}
    ]
    text = (tmp_path / "proxy-x.md").read_text()
    assert "| fast | 0.5 | <= 0.35 | **no** |" in text
    assert "| x | 12,346 |" in text
    assert "| y | – |" in text


def test_figures_in_tables() -> None:
    assert [shown(v) for v in (None, 0.123456, 12345.0, 7, "t")] == [
        "–",
        "0.123",
        "12,345",
        "7",
        "t",
    ]
    assert table("T", ["a"], [[1]]) == "## T\n\n| a |\n| --- |\n| 1 |"
