"""Each reader of files, and each place that uses them, with what spreadsheets and people write."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from understudy.common.files import (
    FileError,
    ParquetFile,
    csv_objects,
    csv_rows,
    json_lines,
    json_objects,
    lines,
)
from understudy.loadtest.errors import PlanError
from understudy.loadtest.payloads.files import of_bodies, of_rows
from understudy.monitor.archive.reading import open_log
from understudy.monitor.baseline.files import Reader
from understudy.monitor.errors import BaselineError
from understudy.monitor.experiments.replay import rows_of
from understudy.monitor.health.validation.cases import load_cases

BOM = b"\xef\xbb\xbf"
ROWS = BOM + b"a,b,c\r\n1,2,x\r\n3,,y\r\n"


def written(folder: Path, name: str, data: bytes) -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


def test_a_byte_order_mark_is_not_part_of_a_column(tmp_path: Path) -> None:
    path = written(tmp_path, "rows.csv", ROWS)
    assert list(csv_rows(path)) == [(1, ["a", "b", "c"]), (2, ["1", "2", "x"]), (3, ["3", "", "y"])]
    assert [table.columns for table in Reader(path).tables()] == [
        {"a": [1.0, 3.0], "b": [2.0, None], "c": ["x", "y"]}
    ]
    assert [list(row) for _, row in rows_of(path)] == [["a", "b", "c"]] * 2
    [first, _] = of_rows(path, "mlflow-records", 1, "/", 10, {})
    assert json.loads(first.body)["dataframe_records"] == [{"a": 1, "b": 2, "c": "x"}]


def test_a_byte_order_mark_before_json_lines(tmp_path: Path) -> None:
    line = b'{"kind": "malformed", "request": "x"}\n'
    path = written(tmp_path, "rows.jsonl", BOM + line + b"\r\n" + line)
    assert [number for number, _, _ in json_objects(path)] == [1, 3]
    assert next(Reader(path).tables()).columns["request"] == ["x", "x"]
    assert [row["kind"] for _, row in rows_of(path)] == ["malformed"] * 2
    assert [case.kind for case in load_cases(path)] == ["malformed"] * 2
    assert len(of_bodies(path, "/", 10, {})) == 2
    assert [one.data[:1] for one in open_log(path).lines()] == [b"{", b"{"]


def test_a_mark_later_in_a_file_is_content(tmp_path: Path) -> None:
    path = written(tmp_path, "a.jsonl", b"1\n" + BOM + b"2\n")
    assert list(lines(path)) == [(1, b"1\n"), (2, BOM + b"2\n")]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "is empty"),
        (BOM, "is empty"),
        (b"a,a\n1,2\n", "line 1: duplicate column: 'a'"),
        (b"a,b\n1,2\n1\n", "line 3: has 1 cells instead of 2"),
        (b'a,b\n"1\n2",3\n1\n', "line 4: has 1 cells instead of 2"),
        (b"a,b\n1,\xff\n", "is not UTF-8"),
        (b"a\n" + b"1" * 200_000 + b"\n", "line 2: field larger than field limit"),
    ],
)
def test_faults_of_a_csv_file(tmp_path: Path, data: bytes, message: str) -> None:
    path = written(tmp_path, "rows.csv", data)
    with pytest.raises(FileError, match=message) as found:
        list(csv_objects(path))
    assert str(found.value).startswith(f"{path}: ")
    with pytest.raises(PlanError, match=message):
        of_rows(path, "mlflow-records", 1, "/", 10, {})
    with pytest.raises(BaselineError, match=message):
        list(Reader(path).tables())


def test_broken_lines_can_be_counted_instead(tmp_path: Path) -> None:
    seen: list[int] = []

    def count(error: FileError) -> None:
        seen.append(error.line)

    path = written(tmp_path, "rows.csv", b"a,b\n1,2\n1\n\n3,4\n5,6,7\n")
    assert [number for number, _ in csv_rows(path, count)] == [1, 2, 5]
    assert seen == [3, 6]
    seen.clear()
    path = written(tmp_path, "rows.jsonl", b'{"a": 1}\n{\n[1]\n\n{"a": 2}\n')
    assert [(number, row["a"]) for number, _, row in json_objects(path, count)] == [(1, 1), (5, 2)]
    assert seen == [2, 3]


@pytest.mark.parametrize(
    ("data", "message"),
    [(b"{}\n{\n", "line 2: not valid JSON"), (b"{}\n\n3\n", "line 3: must be an object")],
)
def test_faults_of_json_lines(tmp_path: Path, data: bytes, message: str) -> None:
    with pytest.raises(FileError, match=message):
        list(json_objects(written(tmp_path, "rows.jsonl", data)))


def test_payloads_keep_what_only_python_writes(tmp_path: Path) -> None:
    path = written(tmp_path, "bodies.jsonl", b"[NaN]\n[123456789012345678901234567890]\n")
    first, second = of_bodies(path, "/", 10, {})
    assert math.isnan(json.loads(first.body)[0])
    assert json.loads(second.body) == [123456789012345678901234567890]
    with pytest.raises(FileError, match="line 1: not valid JSON"):
        list(json_lines(path))


@pytest.mark.parametrize("name", ["none.csv", "none.jsonl"])
def test_a_file_that_is_not_there(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with pytest.raises(FileError, match="cannot be read: No such file or directory"):
        list(csv_rows(path) if path.suffix == ".csv" else lines(path))


def test_parquet(tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow", reason="NOT TESTED: pyarrow is not installed")
    from pyarrow import parquet

    path = tmp_path / "rows.parquet"
    parquet.write_table(pyarrow.table({"a": list(range(10)), "b": ["x"] * 10}), path)
    file = ParquetFile(path)
    assert (file.names, file.rows) == (["a", "b"], 10)
    assert [batch.num_rows for batch in file.batches(4)] == [4, 4, 2]
    assert [row["a"] for _, row in rows_of(path)] == list(range(10))
    damaged = written(tmp_path, "b.parquet", path.read_bytes()[:4] + bytes(40) + b"PAR1")
    with pytest.raises(FileError, match="not a Parquet file"):
        ParquetFile(damaged)
    with pytest.raises(FileError, match="cannot be read"):
        ParquetFile(tmp_path / "none.parquet")
    parquet.write_table(pyarrow.Table.from_arrays([[1], [2]], ["a", "a"]), path)
    with pytest.raises(FileError, match="duplicate column: 'a'"):
        ParquetFile(path)
