"""``understudy drift report`` on files."""

from __future__ import annotations

import json
from pathlib import Path

from click.testing import CliRunner, Result

from tests.support.report_columns import write
from understudy.monitor.cli.main import main


def run(*arguments: object) -> Result:
    command = ["drift", "report", *map(str, arguments)]
    result = CliRunner().invoke(main, command, env={"COLUMNS": "120"})
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def test_drifted_series_are_ranked_and_drawn(tmp_path: Path) -> None:
    old = write(tmp_path / "old.jsonl", 5000, 1)
    new = write(tmp_path / "new.jsonl", 3000, 2, factor=2.0, lost=True)
    page = tmp_path / "drift.html"
    said = run(old, new, "--html", page, "--exit-code")
    assert said.exit_code == 1, said.output
    assert "2 of 3 columns have changed" in said.output
    assert "Inputs have changed: amount" in said.output
    assert "age is missing in 3" in said.output
    assert "missing in 33.3 % of the rows, was 0 %" in said.output
    plain = run(old, new, "--json")
    assert plain.exit_code == 0, "changes are an exit code only where that is asked for"
    found = json.loads(plain.output)
    assert sorted(found["drifted"]) == ["age", "amount"]
    assert next(q for q in found["quality"] if q["rule"] == "missing")["feature"] == "age"
    assert all(finding["after_rows"] <= 512 for finding in found["findings"])
    text = page.read_text()
    assert text.count("<svg") >= 4
    assert "2 of 3 columns changed" in text
    assert "http" not in text, "it needs nothing from elsewhere"


def test_the_same_data_have_no_drift(tmp_path: Path) -> None:
    old = write(tmp_path / "old.jsonl", 5000, 1)
    new = write(tmp_path / "new.jsonl", 4000, 3)
    said = run(old, new, "--exit-code")
    assert said.exit_code == 0, said.output
    assert "0 of 3 columns" in said.output
    baseline = tmp_path / "baseline.json"
    built = CliRunner().invoke(main, ["baseline", "build", str(old), "-o", str(baseline)])
    assert built.exit_code == 0
    assert run(baseline, new, "--exit-code").exit_code == 0


def test_invalid_files_are_rejected(tmp_path: Path) -> None:
    old = write(tmp_path / "old.jsonl", 100, 1)
    other = tmp_path / "other.jsonl"
    other.write_text('{"z": 1}\n')
    said = run(old, other)
    assert (said.exit_code, "none of the columns" in said.output) == (2, True)
    assert run(old, tmp_path / "none.csv").exit_code == 2
    empty = tmp_path / "empty.jsonl"
    empty.write_text("")
    assert "it has no rows" in run(old, empty).output
