"""Files of rows from the field: one reading of them in every command that takes them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.gates import gate, plan
from understudy.common.cells import Kind, count_cells
from understudy.common.files import (
    FileError,
    csv_rows,
    delimiter,
    delimiter_of,
    json_items,
    objects,
)
from understudy.loadtest.errors import PlanError
from understudy.loadtest.payloads.files import of_bodies, of_rows
from understudy.monitor.baseline.files import Reader
from understudy.monitor.cli.main import main
from understudy.monitor.experiments.replay import rows_of

WANTED: list[dict[str, Any]] = [
    {"a": 1, "b": 2, "c": "x; y, z"},
    {"a": 3, "b": None, "c": 'say "y"'},
]
COMMA = b'a,b,c\r\n1,2,"x; y, z"\r\n3,,"say ""y"""\r\n'
TEXTS = {
    "comma.csv": COMMA,
    "bom.csv": b"\xef\xbb\xbf" + COMMA,
    "lines.csv": COMMA.replace(b"\r\n", b"\n"),
    "old.csv": COMMA.replace(b"\r\n", b"\r"),
    "semicolon.csv": b'a;b;c\r\n1;2;"x; y, z"\r\n3;;"say ""y"""\r\n',
    "tab.csv": b'a\tb\tc\r\n1\t2\tx; y, z\r\n3\t\t"say ""y"""\r\n',
    "tab.tsv": b'a\tb\tc\n1\t2\tx; y, z\n3\t\t"say ""y"""',
    "bar.csv": b'a|b|c\n1|2|x; y, z\n3|NA|"say ""y"""\n',
    "sixteen.csv": COMMA.decode().encode("utf-16"),
    "quoted.csv": b'"a","b","c"\n"1","2","x; y, z"\n"3","","say ""y"""\n\n',
    "lines.jsonl": b"".join(json.dumps(row).encode() + b"\n" for row in WANTED),
    "windows.jsonl": b"\xef\xbb\xbf" + b"\r\n\r\n".join(json.dumps(row).encode() for row in WANTED),
    "list.json": json.dumps(WANTED, indent=2).encode(),
    "bom.json": b"\xef\xbb\xbf" + json.dumps(WANTED).encode(),
}
FILES = [*TEXTS, "rows.parquet"]


def written(folder: Path, name: str) -> Path:
    path = folder / name
    if name.endswith(".parquet"):
        pyarrow = pytest.importorskip("pyarrow", reason="NOT TESTED: pyarrow is not installed")
        from pyarrow import parquet

        parquet.write_table(pyarrow.Table.from_pylist(WANTED), path)
    else:
        path.write_bytes(TEXTS[name])
    return path


@pytest.mark.parametrize("name", FILES)
def test_every_command_reads_the_same_rows(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    sent = [json.loads(one.body) for one in of_rows(path, "json", 1, "/", 10, {})]
    assert sent == WANTED
    [table] = Reader(path).tables()
    columns = {key: [row[key] for row in WANTED] for key in WANTED[0]}
    assert table.columns == columns
    replayed = [{k: v or None for k, v in row.items()} for _, row in rows_of(path)]
    as_text = [{k: None if v is None else str(v) for k, v in row.items()} for row in WANTED]
    texts = [{k: None if v in (None, "NA") else str(v) for k, v in row.items()} for row in replayed]
    assert texts == as_text


@pytest.mark.parametrize("name", FILES)
def test_a_tensor_has_one_datatype_in_every_request(tmp_path: Path, name: str) -> None:
    path = written(tmp_path, name)
    bodies = [json.loads(one.body) for one in of_rows(path, "open-inference-v2", 1, "/", 10, {})]
    found = [{one["name"]: one["datatype"] for one in body["inputs"]} for body in bodies]
    assert found == [{"a": "INT64", "b": "FP64", "c": "BYTES"}] * 2


def test_the_datatype_is_that_of_the_whole_file(tmp_path: Path) -> None:
    rows = "".join(f"{n},{n},TRUE,{n}\n" for n in range(5000))
    path = tmp_path / "rows.csv"
    path.write_text(f"number,text,flag,long\n{rows}0.5,x,false,9223372036854775808\n")
    [first] = of_rows(path, "open-inference-v2", 1, "/", 1, {})
    assert {
        one["name"]: (one["datatype"], one["data"]) for one in json.loads(first.body)["inputs"]
    } == {
        "number": ("FP64", [0.0]), "text": ("BYTES", ["0"]), "flag": ("BOOL", [True]),
        "long": ("FP64", [0.0]),
    }  # fmt: skip
    [records] = of_rows(path, "mlflow-records", 1, "/", 1, {})
    assert b'{"number": 0.0, "text": "0", "flag": true' in records.body  # not 0, an integer there
    # A baseline takes a column for numbers where most cells are, and so sees the odd ones.
    columns = next(Reader(path).tables()).columns
    assert columns["number"][:2] == columns["text"][:2] == [0.0, 1.0]
    assert columns["flag"][0] == "TRUE"


def test_most_cells_decide_and_not_the_first(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a\n" + "1\n" * 3000 + "x\n" * 4000)
    assert {type(cell) for table in Reader(path).tables() for cell in table.columns["a"]} == {str}


def test_datatypes_are_declared(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("zip,a,b,c\n01234,1,1,2.0\n99999,2,0,\n")
    wanted = {"zip": "BYTES", "a": "FP32", "b": "BOOL", "c": "INT32"}
    bodies = [
        json.loads(one.body)["inputs"]
        for one in of_rows(path, "open-inference-v2", 1, "/", 10, {}, wanted)
    ]
    assert [[one["datatype"] for one in body] for body in bodies] == [list(wanted.values())] * 2
    assert [[one["data"] for one in body] for body in bodies] == [
        [["01234"], [1.0], [True], [2]],
        [["99999"], [2.0], [False], [None]],
    ]
    with pytest.raises(PlanError, match="line 2: zip: '01234' is not a value of BOOL"):
        of_rows(path, "open-inference-v2", 1, "/", 10, {}, {"zip": "BOOL"})
    with pytest.raises(PlanError, match="unknown column 'zpi'; did you mean 'zip'"):
        of_rows(path, "open-inference-v2", 1, "/", 10, {}, {"zpi": "BYTES"})
    matrix = of_rows(path, "open-inference-v2-matrix", 2, "/", 1, {}, dict.fromkeys(wanted, "FP32"))
    assert json.loads(matrix[0].body)["inputs"][0]["datatype"] == "FP32"


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("a\n1\n", ","), ("a,b\n1,2\n", ","), ("a;b\n1,5;2,5\n", ";"), ("a\tb,c\n1\t2\n", "\t"),
        ('"a;b;c",d\n1,2\n', ","), ("a b;c\n", ";"), ("", ","), ("a|b\n1|2\n", "|"),
    ],
)  # fmt: skip
def test_delimiters(text: str, found: str) -> None:
    assert delimiter_of(text) == found


def test_a_delimiter_can_be_given(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    path.write_text("a;b,c\n1;2,3\n")
    assert [row for _, row in csv_rows(path, delimiter=",")] == [["a;b", "c"], ["1;2", "3"]]
    text = "payloads: {rows: rows.csv, format: json, delimiter: ',', datatypes: {c: FP32}}\n"
    file = plan(tmp_path, text + "stages: [{name: a, load: {rate: 1}, judged: false}]")
    checked = gate("--target", "http://127.0.0.1:1", "--plan", file, "--check", "--no-verdict")
    assert "1 payload" in checked.output, checked.output


NOTES = "a;b;c;d;e"
"""A column that looks as several."""
EXPERIMENT = {
    "name": "x",
    "metrics": [{"metric": "latency_mean", "margin": "10 %"}],
    "minimum_duration": 0,
}
COMMANDS: dict[str, tuple[list[str], list[str]]] = {
    "build": (["v"], ["baseline", "build", "rows.csv", "-o", "baseline.json", "--json"]),
    "report": (["v"], ["drift", "report", "rows.csv", "rows.csv", "--json"]),
    "replay": (["champion.latency", "challenger.latency"],
               ["experiment", "replay", "rows.csv", "--experiment", "x.yaml", "--json"]),
    "plan": (["latency"], ["experiment", "plan", "x.yaml", "--values", "rows.csv", "--json",
                           "--streams", "20", "--limit", "1000"]),
}  # fmt: skip


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_on_rows_takes_the_same_option(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: str
) -> None:
    """The delimiter that is detected is the wrong one: with it, the columns are others."""
    columns, arguments = COMMANDS[command]
    monkeypatch.chdir(tmp_path)
    rows = [[NOTES, *(f"{0.1 + 0.01 * (number % 7):g}" for _ in columns)] for number in range(300)]
    text = "\n".join(",".join(row) for row in [[NOTES, *columns], *rows])
    (tmp_path / "rows.csv").write_text(text)
    (tmp_path / "x.yaml").write_text(json.dumps(EXPERIMENT))
    wrong = CliRunner().invoke(main, arguments)
    right = CliRunner().invoke(main, [*arguments, "--delimiter", ","])
    if command == "build":
        # By semicolons: e and the value are one column.
        assert (json.loads(wrong.stdout)["columns"], json.loads(right.stdout)["columns"]) == (5, 2)
    elif command == "report":
        found = [
            {one["column"] for one in json.loads(one.stdout)["columns"]} for one in (wrong, right)
        ]
        assert found == [{"a", "b", "c", "d", "e,v"}, {NOTES, "v"}]
    else:
        assert wrong.exit_code == 2, wrong.output
        assert right.exit_code in (0, 10), right.output
        assert json.loads(right.stdout)
    refused = CliRunner().invoke(main, [*arguments, "--delimiter", ",;"])
    assert refused.exit_code == 2
    assert "Invalid value for '--delimiter': not a valid delimiter: ',;'" in refused.output


def test_a_delimiter_that_cannot_be_typed_has_a_name() -> None:
    assert delimiter("tab") == delimiter("\t") == delimiter(r"\t") == "\t"
    for wrong in ("", '"', "\n", "\r", "tabs"):
        with pytest.raises(ValueError, match="not a valid delimiter"):
            delimiter(wrong)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        ("datatypes: {c: FP33}", "payloads.datatypes.c: must be 'BOOL'"),
        ("datatypes: {d: FP32}", "rows.csv: payloads.datatypes: unknown column 'd'"),
        (
            "delimiter: ''",
            "payloads.delimiter: not a valid delimiter: '' (examples: ';', '|', tab)",
        ),
        ("delimiter: ';;'", "payloads.delimiter: not a valid delimiter: ';;'"),
    ],
)
def test_faults_of_payloads_name_the_key(tmp_path: Path, key: str, message: str) -> None:
    (tmp_path / "rows.csv").write_text("a,c\n1,2\n")
    text = f"payloads: {{rows: rows.csv, {key}}}\nstages: [{{name: a, load: {{rate: 1}}}}]"
    found = gate("--target", "http://127.0.0.1:1", "--plan", plan(tmp_path, text), "--no-verdict")
    assert (found.exit_code, message in found.output) == (2, True), found.output


def test_bodies_come_as_a_list_too(tmp_path: Path) -> None:
    path = tmp_path / "bodies.json"
    path.write_text('[{"a": [1, "]"]}, {"body": {"b": 2}, "path": "/x"}, NaN]')
    first, second, _ = of_bodies(path, "/", 10, {})
    assert (json.loads(first.body), json.loads(second.body), second.path) == (
        {"a": [1, "]"]}, {"b": 2}, "/x",
    )  # fmt: skip


@pytest.mark.parametrize(
    ("name", "data", "message"),
    [
        ("a.json", b"", "not valid JSON: the body is empty"),
        ("a.json", b'[{"a": 1}', "not valid JSON: the JSON document ends early"),
        ("a.json", b'[{"a": 1}, {"a": }]', "item 2: not valid JSON"),
        ("a.json", b'[{"a": 1}, 5]', "must be an object"),
        ("a.xlsx", b"PK", "must end in .csv, .jsonl or .parquet"),
    ],
)
def test_faults_of_files(tmp_path: Path, name: str, data: bytes, message: str) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    with pytest.raises(FileError, match=message):
        list(objects(path))
    with pytest.raises(PlanError, match=message):
        of_rows(path, "json", 1, "/", 10, {})


def test_a_long_list_is_read_in_parts(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"n": n, "text": "ü[]{}," * 20} for n in range(3000)]
    path = tmp_path / "rows.json"
    path.write_text(json.dumps(rows, ensure_ascii=False))
    assert [value for _, _, value in json_items(path)] == rows


def test_kinds_of_columns() -> None:
    kinds = {
        name: one.kind(texts=False)
        for name, one in count_cells(
            [{"a": 1, "b": "x", "c": 1, "e": None}, {"a": 2.5, "b": 1, "d": True, "e": None}], False
        ).items()
    }
    assert kinds == {
        "a": Kind.NUMBER, "b": Kind.MIXED, "c": Kind.INTEGER, "d": Kind.BOOLEAN, "e": Kind.EMPTY
    }  # fmt: skip
    texts = count_cells(
        [{"a": "1_000", "b": "1e3", "c": "NaN"}, {"a": "5", "b": "", "c": "1"}], True
    )
    assert [one.kind(texts=True) for one in texts.values()] == [Kind.TEXT, Kind.NUMBER, Kind.NUMBER]
    assert texts["b"].missing == 1


@pytest.mark.parametrize("name", ["semicolon.csv", "sixteen.csv", "list.json"])
def test_the_commands_take_them(tmp_path: Path, name: str) -> None:
    lines = [f"{n};{n % 7};{'xy'[n % 2]}" for n in range(300)]
    text = "\n".join(["a;b;c", *lines])
    rows = [dict(zip("abc", (n, n % 7, "xy"[n % 2]), strict=True)) for n in range(300)]
    path = tmp_path / name
    path.write_bytes(
        json.dumps(rows).encode()
        if name.endswith(".json")
        else text.encode("utf-16" if name == "sixteen.csv" else "utf-8")
    )
    out = tmp_path / "baseline.json"
    made = CliRunner().invoke(main, ["baseline", "build", str(path), "-o", str(out)])
    assert made.exit_code == 0, made.output
    assert set(json.loads(out.read_text())["columns"]) == {"a", "b", "c"}
    report = CliRunner().invoke(main, ["drift", "report", str(path), str(path)])
    assert report.exit_code == 0, report.output
