"""The log of records on disk: exported with its types, shown, and checked."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from pyarrow import parquet

from understudy.loadtest.errors import PlanError
from understudy.loadtest.payloads.files import recorded
from understudy.monitor.archive import repeats as archive_repeats
from understudy.monitor.archive.recorder import Recorder
from understudy.monitor.archive.repeats import Repeats
from understudy.monitor.cli.main import main
from understudy.monitor.config.model import RecordLog
from understudy.monitor.labels.label import Label
from understudy.monitor.records.encode import encode
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import OPEN, decode_batch

NAMES = Names(1, (("m", "1", "mlflow"), ("mapped", "2", "json")), ("champion", "challenger"))
START = 1_750_000_000.0


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["records", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def record(request: Any, response: Any, at: float, request_id: str, model: int = 0) -> Any:
    asked = json.dumps(request).encode() if request is not None else None
    said = json.dumps(response).encode() if response is not None else None
    _, parts = encode(
        *(model, 0, 200, 0, 0, at, 5_000_000, 1, 2, 10, 20),
        *(request_id.encode(), b"t" * 32, b"unit", b"/invocations", b"", b"", asked, said, 2),
    )
    return decode_batch(b"".join(parts))[0]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    recorder = Recorder(RecordLog.model_validate({"path": str(tmp_path / "log")}))
    rows = [
        {"age": 31, "income": 1.5, "city": "Ulm", "ok": True, "ssn": "1"},
        {"age": 32, "income": None, "city": None, "ok": False, "ssn": "2"},
    ]
    for number in range(3):
        asked = {"dataframe_records": rows}
        recorder.add(
            NAMES, record(asked, {"predictions": [0.25, 0.5]}, START + number, f"r-{number}")
        )
    recorder.flush()
    recorder.add(NAMES, record(None, {"predictions": [0.75]}, START + 100.0, "uncaptured"))
    recorder.add(NAMES, record({"deep": {"x": 7}}, {"y": "yes"}, START + 101.0, "mapped", 1))
    recorder.add_label(Label("r-1", 1, "late", 0.5, START + 90.0), START + 99.0)
    recorder.close()
    return tmp_path / "log"


def test_records_that_were_written_twice_count_once(tmp_path: Path) -> None:
    """A batch that was sent again, in part and in another order; never what merely looks alike."""
    recorder = Recorder(RecordLog.model_validate({"path": str(tmp_path / "log")}))
    asked, said = {"dataframe_records": [{"age": 31}]}, {"predictions": [0.25]}
    same = record(asked, said, START, "")
    for batch, index in [("r-0-1", 0), ("r-0-1", 1), ("r-0-2", 0), ("r-1-1", 0), ("r-0-1", 1),
                         ("r-0-2", 0), ("r-0-2", 1), ("r-0-1", 0), ("s-0-1", 0), ("", 0), ("", 0)]:  # fmt: skip
        recorder.add(NAMES, same, batch, index)
    posted = record(asked, said, START, "posted")
    for one in (posted, record(asked, said, START, "posted again"), posted):
        recorder.add(NAMES, one)
    posted.arm = 1
    recorder.add(NAMES, posted)
    recorder.close()
    found = json.loads(run("verify", tmp_path / "log", "--json").output)
    assert (found["records"], found["repeated"]) == (6 + 2 + 3, 4)
    text = run("verify", tmp_path / "log")
    assert "4 records were written twice and are counted once" in text.stderr
    damaged = ["", "x", "-", "-1", "a-x", "a-99999999", "a-1.5", "a-²", 7, None, {}]
    repeats = Repeats()
    assert not any(repeats.includes(one) for one in damaged * 2)


def test_the_memory_for_what_was_written_twice_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive_repeats, "MOST_BATCHES", 10)
    repeats = Repeats()
    assert not any(repeats.includes(f"r-0-{number}-0") for number in range(100))
    assert len(repeats._seen) == 10
    assert repeats.includes("r-0-99-0")
    assert not repeats.includes("r-0-0-0"), "longer ago than anything is sent again"


def test_reports_of_unfinished_requests_are_shown_and_not_exported(tmp_path: Path) -> None:
    recorder = Recorder(RecordLog.model_validate({"path": str(tmp_path / "log")}))
    asked, said = {"dataframe_records": [{"age": 31}]}, {"predictions": [0.25]}
    ended = record(asked, said, START, "slow")
    report = record(None, None, START, "slow")
    report.outcome = OPEN
    for one in (report, ended):
        recorder.add(NAMES, one)
    recorder.close()
    out = tmp_path / "out.parquet"
    counts = json.loads(run("export", tmp_path / "log", "-o", out, "--json").output)
    assert (counts["records"], counts["undecoded"]) == (1, 0)
    assert parquet.read_table(out)["outcome"].to_pylist() == ["ok"]
    shown = run("show", tmp_path / "log").output
    assert " open " in shown
    assert " ok " in shown
    lines = tmp_path / "out.jsonl"
    run("export", tmp_path / "log", "-o", lines)
    payloads = recorded(lines, 10, {})
    assert len(payloads) == 1, "a load test sends it once"


def test_an_export_has_typed_columns(log: Path, tmp_path: Path) -> None:
    out, labels = tmp_path / "out.parquet", tmp_path / "labels.parquet"
    said = json.loads(run("export", log, "-o", out, "--labels", labels, "--json").output)
    assert (said["records"], said["rows"], said["labels"], said["undecoded"]) == (5, 8, 1, 2)
    table = parquet.read_table(out)
    types = {field.name: str(field.type) for field in table.schema}
    assert types["feature.age"] == "int64"
    assert types["feature.income"] == types["prediction.y"] == "double"
    assert types["feature.city"] == "string"
    assert types["feature.ok"] == "bool"
    assert types["time"] == "timestamp[us, tz=UTC]"
    rows = table.to_pylist()
    assert [row["request_id"] for row in rows] == [
        *("r-0", "r-0", "r-1", "r-1", "r-2", "r-2"),
        *("uncaptured", "mapped"),
    ]
    second = rows[1]
    assert second["row"] == 1
    assert (second["feature.age"], second["feature.income"], second["feature.city"]) == (
        32,
        None,
        None,
    )
    assert (second["feature.ok"], second["prediction.y"]) == (False, 0.5)
    assert (second["model"], second["version"], second["arm"]) == ("m", "1", "champion")
    assert (second["assigned"], second["outcome"], second["role"]) == (
        "challenger",
        "ok",
        "primary",
    )
    assert second["duration_seconds"] == 0.005
    assert second["time"] == datetime.fromtimestamp(START, UTC)
    assert rows[6]["request_error"] == "not_captured"
    assert (rows[6]["feature.age"], rows[6]["prediction.y"]) == (None, 0.75)
    assert rows[7]["response_error"] is not None
    (label,) = parquet.read_table(labels).to_pylist()
    assert (label["request_id"], label["row"], label["label"], label["reward"]) == (
        "r-1",
        1,
        '"late"',
        0.5,
    )


def test_a_configuration_maps_and_redacts(log: Path, tmp_path: Path) -> None:
    config = tmp_path / "understudy.yaml"
    config.write_text(
        "version: 1\nlisten: 127.0.0.1:0\nchampion: {url: 'http://127.0.0.1:1'}\n"
        "models:\n- {name: m, version: '1', protocol: mlflow}\n"
        "- name: mapped\n  version: '2'\n  protocol: json\n  paths: [/mapped]\n"
        "  json: {features: {x: /deep/x}, predictions: {said: /y}}\n"
        "records: {redact: [ssn]}\n"
    )
    out = tmp_path / "out.parquet"
    assert run("export", log, "-o", out, "-c", config).exit_code == 0
    table = parquet.read_table(out)
    assert "feature.ssn" not in table.schema.names
    row = table.to_pylist()[-1]
    assert (row["feature.x"], row["prediction.said"], row["request_error"]) == (7, "yes", None)


def test_filters_by_time_and_model(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "out.jsonl"
    since = datetime.fromtimestamp(START + 1, UTC).isoformat()
    said = run(
        "export", log, "-o", out, "--from", since, "--to", START + 101, "--model", "m", "--json"
    )
    assert json.loads(said.output)["records"] == 3
    found = [json.loads(line) for line in out.read_text().splitlines()]
    assert [one["record"]["request_id"] for one in found if "record" in one] == [
        *("r-1", "r-2", "uncaptured"),
    ]
    # What was exported is a log again.
    assert "3 records and 1 labels" in run("verify", out).output
    assert json.loads(run("show", out, "-n", "1", "--json").output)["label"]["request_id"] == "r-1"


def test_what_was_exported_can_be_sent_again(log: Path, tmp_path: Path) -> None:
    out = tmp_path / "recorded.jsonl"
    assert run("export", log, "-o", out).exit_code == 0
    sent = recorded(out, 100, {})
    assert [payload.path for payload in sent] == ["/invocations"] * 4
    assert json.loads(sent[-1].body) == {"deep": {"x": 7}}
    with pytest.raises(PlanError, match="understudy records export"):
        recorded(log, 100, {})


def test_the_newest_are_shown(log: Path) -> None:
    lines = run("show", log, "-n", "3").output.splitlines()
    assert len(lines) == 3
    assert "primary m 1 champion  200 ok  5.0 ms  uncaptured" in lines[0]
    assert lines[2].endswith("label   r-1[1] = late")


def test_damage_is_found(log: Path, tmp_path: Path) -> None:
    assert run("verify", log).output.endswith("whole\n")
    (path,) = log.glob("*.useg")
    data = bytearray(path.read_bytes())
    data[100] ^= 1
    path.write_bytes(data)
    said = run("verify", log, "--json")
    assert said.exit_code == 1
    found = json.loads(said.output)
    assert (found["whole"], found["records"], found["damaged"]["places"]) == (False, 2, 1)
    assert "damaged bytes: " in run("export", log, "-o", tmp_path / "o.parquet").output
    path.write_bytes(bytes(data[:-4]))
    assert json.loads(run("verify", log, "--json").output)["damaged"]["torn_bytes"] > 0


def test_what_cannot_be_is_said(log: Path, tmp_path: Path) -> None:
    for arguments, wanted in (
        (("export", log, "-o", tmp_path / "x.csv"), "must end in .parquet or .jsonl"),
        (
            ("export", tmp_path / "none", "-o", tmp_path / "x.jsonl"),
            "cannot be read: No such file or directory",
        ),
        (("verify", tmp_path), "no log of records in this folder"),
        (("show", log, "--from", "yesterday"), "not a valid time: 'yesterday'"),
        (("export", log, "-o", "/proc/none/x.jsonl"), "cannot be written"),
    ):
        said = run(*arguments)
        assert said.exit_code == 2, said.output
        assert wanted in said.output
    assert not list(tmp_path.glob(".*.part"))
