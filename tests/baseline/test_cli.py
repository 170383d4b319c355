"""``understudy baseline`` on files."""

from __future__ import annotations

import csv
import json
import random
import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from understudy.monitor.cli.main import main


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["baseline", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def write(path: Path, rows: int, seed: int, shift: float = 0.0) -> Path:
    chance = random.Random(seed)
    with path.open("w", newline="") as file:
        out = csv.writer(file)
        out.writerow(["id", "amount", "country", "score", "label"])
        for number in range(rows):
            score = chance.random()
            amount = "" if number % 50 == 0 else round(chance.gauss(shift, 1.0), 4)
            label = int(chance.random() < score)
            out.writerow([number, amount, chance.choice(["de", "fr", "it"]), score, label])
    return path


ROLES = ("--target", "label", "--prediction", "score", "--id", "id")


def test_build_show_diff_and_merge(tmp_path: Path) -> None:
    data, out = write(tmp_path / "a.csv", 2000, 1), tmp_path / "a.json"
    built = run("build", data, *ROLES, "-o", out)
    assert built.exit_code == 0, built.output
    assert "accuracy" in built.output
    assert "2,000 rows, 4 columns" in built.output
    found = json.loads(out.read_text())
    assert found["columns"]["amount"]["missing"] == 40
    assert found["columns"]["score"]["role"] == "prediction"
    assert sum(found["calibration"]["counts"]) == 2000
    shown = run("show", out)
    assert "█" in shown.output
    assert json.loads(run("show", out, "--json").output) == found
    other = tmp_path / "b.json"
    moved = write(tmp_path / "b.csv", 2000, 2, shift=1.0)
    assert run("build", moved, *ROLES, "-o", other, "--json").exit_code == 0
    same = run("diff", out, out, "--exit-code")
    assert (same.exit_code, "0 of" in same.output) == (0, True)
    far = run("diff", out, other, "--exit-code", "--json")
    assert far.exit_code == 1
    first = json.loads(far.output)["series"][0]
    assert first["series"] == "amount"
    assert first["shift"] == pytest.approx(1.0, abs=0.15)
    holes = tmp_path / "holes.csv"
    lines = data.read_text().splitlines()
    cut = [re.sub(r"^(\d*0),[^,]*,", r"\1,,", line) for line in lines]
    holes.write_text("\n".join(cut) + "\n")
    assert run("build", holes, *ROLES, "-o", other).exit_code == 0
    lost = run("diff", out, other, "--exit-code", "--json")
    assert lost.exit_code == 1, "a tenth of the values is missing, the others are as they were"
    worst = json.loads(lost.output)["series"][0]
    assert (worst["series"], worst["missing"]) == ("amount", pytest.approx(0.08))
    assert run("build", moved, *ROLES, "-o", other).exit_code == 0
    both = tmp_path / "both.json"
    assert run("merge", out, other, "-o", both).exit_code == 0
    assert json.loads(both.read_text())["rows"] == 4000


@pytest.mark.parametrize("kind", ["jsonl", "parquet"])
def test_all_file_formats_give_the_same_baseline(tmp_path: Path, kind: str) -> None:
    rows: list[dict[str, Any]] = [
        {"x": n / 7.0, "c": "ab"[n % 2], "when": f"2026-01-01T00:{n % 60:02d}:00"}
        for n in range(500)
    ]
    path = tmp_path / f"rows.{kind}"
    if kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    else:
        pyarrow = pytest.importorskip("pyarrow", reason="NOT TESTED: pyarrow is missing")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    out = tmp_path / "out.json"
    assert run("build", path, "--time", "when", "-o", out).exit_code == 0
    found = json.loads(out.read_text())
    assert found["rows"] == 500
    assert found["columns"]["c"]["series"]["c"]["counts"] == {"a": 250, "b": 250}
    assert found["columns"]["x"]["series"]["x"]["maximum"] == pytest.approx(499 / 7.0)


def test_parquet_cells_are_what_a_client_would_send(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="NOT TESTED: pyarrow is missing")
    from pyarrow import parquet

    start = datetime(2026, 1, 1, tzinfo=UTC)
    hours = [start + timedelta(hours=n) for n in range(99)]
    columns = {
        "sent": pyarrow.array([*hours, None], pyarrow.timestamp("ns", "UTC")),
        "day": pyarrow.array([*(hour.date() for hour in hours), None]),
        "price": pyarrow.array([*(Decimal(n) / 4 for n in range(99)), None]),
        "code": pyarrow.array([b"a", b"\xff"] * 50),
        "town": pyarrow.array(["Ulm", "Bonn"] * 50).dictionary_encode(),
    }
    path, out = tmp_path / "typed.parquet", tmp_path / "out.json"
    parquet.write_table(pyarrow.table(columns), path)
    assert run("build", path, "-o", out).exit_code == 0
    found = json.loads(out.read_text())["columns"]
    assert [c["kind"] for c in found.values()] == [
        "datetime", "datetime", "numeric", "categorical", "categorical",
    ]  # fmt: skip
    assert [c["missing"] for c in found.values()] == [1, 1, 1, 0, 0]
    assert found["price"]["series"]["price"]["maximum"] == 24.5
    assert sum(found["sent"]["series"]["sent.hour"]["counts"].values()) == 99
    whole = path.read_bytes()
    path.write_bytes(whole[:4] + b"\xff" * 60 + whole[64:])
    assert run("build", path, "-o", out).exit_code == 2
    path.write_bytes(whole[:-200])
    assert "not a Parquet file" in run("build", path, "-o", out).output


def test_errors_name_the_cause(tmp_path: Path) -> None:
    broken = tmp_path / "broken.csv"
    broken.write_text("a,b\n1,2\n1,2,3\n4,5\n")
    out = tmp_path / "out.json"
    said = run("build", broken, "-o", out)
    assert said.exit_code == 2
    assert "line 3: has 3 cells instead of 2" in said.output
    kept = run("build", broken, "-o", out, "--skip-broken")
    assert (kept.exit_code, "1 lines could not be read" in kept.output) == (0, True)
    lines = tmp_path / "broken.jsonl"
    lines.write_text('{"a": 1}\n{"a": \n')
    assert "line 2: not valid JSON" in run("build", lines, "-o", out).output
    for arguments, text in (
        ((broken, "--skip-broken", "--target", "none"), "no column 'none' (--target)"),
        ((tmp_path / "none.csv",), "cannot be read"),
        ((tmp_path / "a.txt",), "must end in"),
        ((), "name files"),
    ):
        (tmp_path / "a.txt").write_text("x")
        found = run("build", *arguments, "-o", out)
        assert (found.exit_code, text in found.output) == (2, True), found.output
    empty = tmp_path / "empty.csv"
    empty.write_text("a,b\n")
    assert "it has no rows" in run("build", empty, "-o", out).output
    assert run("show", broken).exit_code == 2
