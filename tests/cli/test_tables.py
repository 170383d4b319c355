"""Tables of commands keep their cells whole on every terminal: no word is cut at any width."""

from __future__ import annotations

import io
import itertools
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.patience import patient
from tests.support.running_experiment import NOW, running
from tests.support.service import ROOT
from understudy.common.screen import Console, Table, Text, plain_table
from understudy.monitor.cli.experiment_offline import decision_table
from understudy.monitor.cli.findings_text import incident_table, page, table
from understudy.monitor.experiments.summary import document

WIDTHS = [60, 72, 80, 100, 132, 200]


def drawn(item: Any, width: int) -> str:
    console = Console(file=io.StringIO(), width=width)
    console.print(item)
    text: str = console.file.getvalue()  # type: ignore[attr-defined]
    return text


def words(text: str) -> set[str]:
    return {word for word in text.split() if any(map(str.isalnum, word))}


def check_whole(make: Any, first: str = "") -> None:
    """Whatever a very wide screen shows stands on every narrower one, word for word. In a block
    the first cell is the title, without its header ``first``."""
    wanted = words(drawn(make(), 1000)) - {first}
    for width in WIDTHS:
        text = drawn(make(), width)
        assert max(map(len, text.splitlines())) <= width
        assert wanted <= words(text), (width, wanted - words(text), text)


FINDING = {
    "id": "20261123T221530-7", "severity": "critical", "state": "open", "acknowledged": True,
    "silent": False, "age_seconds": 4000.0, "model": "delays", "version": "2026-11-20.3",
    "segment": "carrier=EV", "title": "dep_delay_min is missing from 40 % of the requests, which "
    "never happened in the baseline, and temp_f has moved by 3.1 standard deviations",
    "kind": "quality", "key": "quality/delays/dep_delay_min/missing", "event": "worse",
    "change": "share of missing values: from 0.4 % to 40 %", "reopened": 2,
    "since_at": "2026-11-23T22:10:00Z", "opened_at": "2026-11-23T22:15:30Z", "size": None,
    "features": [
        {"name": "dep_delay_min", "share": 0.8, "detail": "missing from 40 % of the requests"},
        {"name": "temperature_at_the_airport_f", "share": 0.2, "detail": "mean 61.3, was 78.2"},
    ],
    "advice": "Look at the job that fills the column.", "rule": "quality.missing", "guarantee": "",
    "assumptions": ["requests are independent"], "examples": ["4bf92f3577b34da6a3ce929d0e0e4736"],
    "notes": [],
}  # fmt: skip
LISTED = {
    "findings": [FINDING, {**FINDING, "id": "20261123T221531-12", "severity": "warning"}],
    "open": {"critical": 1, "warning": 1},
    "channels": [{"name": "oncall", "error": "status 500"}],
    "not_tested": [],
}
INCIDENT = {
    "id": "i20261123T221530-7", "severity": "critical", "state": "open", "acknowledged": False,
    "model": "delays", "version": "", "since_at": "2026-11-23T22:10:00Z", "age_seconds": 4000.0,
    "headline": "delays: inputs are wrong since 22:10", "findings": [FINDING],
}  # fmt: skip


def test_lists_and_pages_of_findings() -> None:
    check_whole(lambda: table(LISTED), "id")
    check_whole(lambda: page(FINDING))
    check_whole(lambda: incident_table([INCIDENT]))


def test_the_table_of_a_decision() -> None:
    one = document(running(3_000, 0.7), NOW + 200.0)["challengers"][0]
    check_whole(lambda: decision_table(one, "x: candidate against champion"), "metric")


def test_random_tables() -> None:
    rng = np.random.default_rng(3)
    for columns, rows in itertools.product((2, 5, 9), (1, 4)):
        cells = [
            ["w" * int(rng.integers(1, 26)) + f"{r}x{c}" for c in range(columns)]
            for r in range(rows)
        ]
        sentence = "it went from 12.5 ms to 99 ms, which is more than the margin of 10 % allows"

        def make(cells: list[list[str]] = cells, sentence: str = sentence) -> Table:
            made = plain_table(*(f"column{c}" for c in range(len(cells[0]))), "why", wraps=["why"])
            for row in cells:
                made.add_row(*row, Text(sentence, "red"))
            return made

        check_whole(make, "column0")


def test_a_table_that_does_not_fit_becomes_blocks() -> None:
    made = plain_table("stage", "figure", "before", "after", "change", "verdict", wraps=["verdict"])
    row = ("steady", "p99", "12.3 ms", "14.8 ms", "+18 % to +23 %", "worse: beyond the margin")
    made.add_row(*row)
    assert drawn(made, 100).splitlines()[0].split() == [
        *("stage", "figure", "before", "after", "change", "verdict"),
    ]
    blocks = [line.rstrip() for line in drawn(made, 60).splitlines()]
    assert blocks == [
        "steady",
        "  figure p99   before 12.3 ms   after 14.8 ms",
        "  change +18 % to +23 %",
        "  verdict worse: beyond the margin",
    ]


def test_a_table_without_rows_shows_its_headers() -> None:
    made = plain_table("one", "two")
    assert drawn(made, 80).split() == ["one", "two"]


@pytest.mark.parametrize("width", WIDTHS)
def test_gate_compare(width: int) -> None:
    """As `gate compare` draws it, with a long name of a stage and a verdict in words."""
    made = plain_table("stage", "figure", "before", "after", "change", "verdict", wraps=["verdict"])
    made.add_row(
        "the champion stops for a second", "p99.9 of the time to first byte", "123.4 ms",
        "1234 ms", "+900 % to +1,100 %", Text("cannot be told: only 212 requests", "yellow"),
    )  # fmt: skip
    check_whole(lambda: made, "stage")


def test_a_terminal_without_unicode_gets_question_marks(tmp_path: Path) -> None:
    rows = "".join(f"{n % 7},{'ü' if n % 2 else 'é'}\n" for n in range(60))
    (tmp_path / "rows.csv").write_text("a,b\n" + rows, encoding="utf-8")
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0"}
    for line in (
        ("baseline", "build", "rows.csv", "-o", "made.json"),
        ("baseline", "show", "made.json"),
        ("drift", "report", "rows.csv", "rows.csv"),
        ("gate", "--help"),
    ):
        done = subprocess.run(
            [sys.executable, "-m", "understudy", *line],
            capture_output=True,
            cwd=tmp_path,
            env={**os.environ, **plain, "PYTHONPATH": str(ROOT)},
            timeout=patient(60),
        )
        assert done.returncode == 0, done.stderr
        assert done.stdout.isascii()
        assert b"Traceback" not in done.stderr
