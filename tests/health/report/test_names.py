"""Names of columns and categories that a terminal or a page would obey."""

from __future__ import annotations

import csv
import random
from pathlib import Path

import pytest
from click.testing import CliRunner

from understudy.monitor.cli.main import main

ESC = "\x1b]0;OWNED\x07\x1b[2J\u202e"
NAMES = ["price [/eur]", "[red]x[/red]", "größe (km)", "a.b", "<script>alert(1)</script>", "k", ESC]


def write(path: Path, seed: int, shift: float) -> Path:
    rng = random.Random(seed)
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(NAMES)
        for _ in range(1_000):
            numbers = [repr(rng.gauss(shift, 1.0)) for _ in NAMES[:-2]]
            rows.writerow([*numbers, rng.choice(["[/b]", ESC, "<b>"]), rng.choice("xyz")])
    return path


@pytest.mark.parametrize("shift", [0.0, 3.0])
def test_no_command_on_files_obeys_them(tmp_path: Path, shift: float) -> None:
    old, new = write(tmp_path / "old.csv", 1, 0.0), write(tmp_path / "new.csv", 2, shift)
    page = tmp_path / "page.html"
    for arguments in (
        ["drift", "report", old, new, "--html", page],
        ["baseline", "build", old, "-o", tmp_path / "old.json"],
        ["baseline", "build", new, "-o", tmp_path / "new.json"],
        ["baseline", "show", tmp_path / "old.json"],
        ["baseline", "diff", tmp_path / "old.json", tmp_path / "new.json"],
        ["drift", "report", tmp_path / "old.json", tmp_path / f"{ESC}[/eur].csv"],
    ):
        said = CliRunner().invoke(main, list(map(str, arguments)))
        assert said.exception is None or isinstance(said.exception, SystemExit), said.exception
        assert not set(said.output) & set("\x1b\x07\u202e"), said.output
        if arguments[1] in ("report", "show", "diff"):
            assert "[/eur]" in said.output.replace("\n", ""), said.output
            assert r"\x1b]0;OWNED" in said.output.replace("\n", "")
    html = page.read_text(encoding="utf-8")
    assert "<script" not in html
    assert "<b>" not in html.replace("<p><b>", "").replace('<p class="bad"><b>', "")
    assert not set(html) & set("\x1b\x07\u202e")
