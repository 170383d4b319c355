"""A recorded log gives the findings that there were live."""

from __future__ import annotations

import json
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner, Result

from tests.support.patience import eventually
from tests.support.plane_process import MODEL, PlaneProcess, WorkerEnd, encoded
from tests.support.source import NAMES, Source, saved
from understudy.monitor.archive.lines import (
    label_line,
    names_line,
    read_label,
    read_record,
    record_line,
)
from understudy.monitor.archive.recorder import Recorder
from understudy.monitor.cli.main import main
from understudy.monitor.config.model import RecordLog
from understudy.monitor.errors import ReplayError
from understudy.monitor.evidence.blocks.codec import _label, _label_row
from understudy.monitor.labels.label import Label
from understudy.monitor.records import frames
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.log import read
from understudy.monitor.records.record import OPEN, decode_batch


def run(*arguments: object) -> Result:
    result = CliRunner().invoke(main, ["replay", *map(str, arguments)])
    assert result.exception is None or isinstance(result.exception, SystemExit), result.output
    return result


def record(plane: PlaneProcess, rows: int, source: Source, seq: int, cents: bool) -> None:
    records = []
    for number in range(rows):
        row = source.row()
        if cents:
            row[0] *= 100.0
        features = {name: [cell] for name, cell in zip(NAMES, row, strict=True)}
        answer = {"p": [source.score()]}
        records.append(encoded(features, answer, request_id=f"r-{seq}-{number}"))
    worker = WorkerEnd(plane, incarnation=seq)
    worker.batch(seq, records)
    worker.wait_for(frames.ACK, seq)
    worker.close()


def test_the_findings_of_a_replay_are_those_of_the_service(tmp_path: Path) -> None:
    log = tmp_path / "records"
    model = {**MODEL, "baseline": saved(tmp_path)}
    more: dict[str, Any] = {
        "models": [model],
        "records": {"keep": 50, "redact": [], "log": {"path": str(log)}},
    }
    source = Source(3)
    with PlaneProcess(tmp_path, **more) as plane:
        record(plane, 1000, source, 1, cents=False)
        time.sleep(1.2)  # so that the log has a stretch of time
        record(plane, 300, source, 2, cents=True)
        live = eventually(
            lambda: len(found := plane.get("/v1/findings").json()["findings"]) == 2 and found
        )
        label = {"request_id": "r-1-1", "label": 1}
        said = httpx.post(plane.url + "/v1/feedback", json=label)
        assert said.status_code in (200, 202), said.text
        assert plane.drain() == 0
    config = tmp_path / "understudy.yaml"
    plain = {**plane.config, "version": 1, "listen": "127.0.0.1:8080"}
    config.write_text(yaml.safe_dump(plain))
    code = run(log, "--config", config, "--json", "--exit-code")
    assert code.exit_code == 1, code.output
    again = json.loads(code.output)
    assert (again["records"], again["labels"]) == (1300, 1)

    def key(found: dict[str, Any]) -> tuple[Any, ...]:
        size = found["size"] and round(found["size"]["value"], 6)
        return found["key"], found["title"], found["since"], size

    assert sorted(map(key, again["findings"])) == sorted(map(key, live))
    shown = run(log, "--config", config)
    assert shown.exit_code == 0
    assert "1,300 records" in shown.output
    assert "Inputs have changed: amount" in shown.output


def test_broken_lines_are_named_or_left_out(tmp_path: Path) -> None:
    log = tmp_path / "records.jsonl"
    config = tmp_path / "understudy.yaml"
    config.write_text(
        "version: 1\nlisten: 127.0.0.1:0\nmodels: [{name: m}]\n"
        "champion: {url: 'http://127.0.0.1:1'}\n"
    )
    names = Names(1, (("m", "", "auto"),), ("champion",))
    one = decode_batch(encoded({"a": [1.0]}, {"p": [0.5]}))[0]
    # As earlier versions wrote them.
    log.write_bytes(names_line(names) + b"\n" + record_line(one) + b"\n{broken\n")
    log.with_name("records.jsonl.1").write_bytes(names_line(names) + b"\n" + record_line(one))
    said = run(log, "--config", config)
    assert said.exit_code == 2
    assert f"{log}: line 3: not valid JSON" in said.output
    shown = run(log, "--config", config, "--skip-broken").output
    assert "1 lines could not be read" in shown
    assert "2 records" in shown
    assert run(tmp_path / "none.jsonl", "--config", config).exit_code == 2


@pytest.mark.parametrize("outcome", [2, OPEN])
def test_a_record_and_a_label_survive_the_way_to_the_file_and_back(outcome: int) -> None:
    data = encoded({"a": [1.0]}, b"\xff\x00 no text", trace_id="t", outcome=outcome)
    original = decode_batch(data)[0]
    line = json.loads(record_line(original))["record"]
    again = decode_batch(read_record(line))[0]
    for name in original.__slots__:
        assert getattr(again, name) == getattr(original, name), name
    label = Label("r-1", 2, True, 0.5, 12.0, "k")
    named = replace(label, source="desk")
    assert read_label(json.loads(label_line(named, 20.0))["label"]) == (20.0, named)
    assert _label(_label_row(20.0, named)) == (20.0, named), "over Kafka as well"
    assert read_label(json.loads(label_line(label, 20.0))["label"]) == (20.0, label)
    for wrong in ({**line, "outcome": "odd"}, {**line, "duration": -1}, {"time": 1}):
        with pytest.raises(ReplayError):
            read_record(wrong)


def test_files_are_rotated_and_each_frame_knows_its_names(tmp_path: Path) -> None:
    declared = RecordLog.model_validate({"path": str(tmp_path / "log"), "max_size": 65536})
    declared = declared.model_copy(update={"max_size": 8192, "keep": 4})
    recorder = Recorder(declared)
    names = Names(1, (("m", "", "auto"),), ("champion",))
    one = decode_batch(encoded({"a": [1.0]}, {"p": [0.5]}))[0]
    for number in range(300):
        recorder.add(names, one)
        if number % 3 == 2:
            recorder.add_label(Label(f"r-{number}", 0, 1.0), 12.0)
        recorder.flush()
    recorder.close()
    assert (recorder.written, recorder.dropped, recorder.error) == (400, 0, None)
    assert 1 < len(list((tmp_path / "log").glob("*.useg"))) <= 5
    frames = list(read(tmp_path / "log"))
    assert len(frames) < 300
    assert all(b"names" in frame.content.entries[0] for frame in frames)
    assert all(frame.frame.records == 1 for frame in frames)


def test_a_log_that_cannot_be_written_costs_the_log_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "log").write_text("of an earlier version")
    recorder = Recorder(RecordLog.model_validate({"path": str(tmp_path / "log")}))
    names = Names(1, (("m", "", "auto"),), ("champion",))
    one = decode_batch(encoded({"a": [1.0]}, {"p": [0.5]}))[0]
    for _ in range(2):
        recorder.add(names, one)
        recorder.flush()
    assert recorder.dropped == 2
    assert recorder.error is not None
    assert "set records.log.path to a folder" in recorder.error
    assert caplog.text.count("cannot be written") == 1
    (tmp_path / "log").unlink()
    recorder.add(names, one)
    recorder.flush()
    assert (recorder.written, recorder.error) == (1, None)
    recorder.close()


def test_damaged_stretches_are_left_out_and_said(tmp_path: Path) -> None:
    recorder = Recorder(RecordLog.model_validate({"path": str(tmp_path / "log")}))
    names = Names(1, (("m", "", "auto"),), ("champion",))
    one = decode_batch(encoded({"a": [1.0]}, {"p": [0.5]}))[0]
    for number in range(3):
        recorder.add(names, one, "run-0-1", number)
        recorder.flush()
    recorder.close()
    (path,) = (tmp_path / "log").glob("*.useg")
    with path.open("r+b") as file:
        file.seek(path.stat().st_size // 2)
        file.write(b"\xff" * 9)
    config = tmp_path / "understudy.yaml"
    config.write_text(
        "version: 1\nlisten: 127.0.0.1:0\nmodels: [{name: m}]\n"
        "champion: {url: 'http://127.0.0.1:1'}\n"
    )
    said = run(tmp_path / "log", "--config", config, "--json")
    assert said.exit_code == 0
    found = json.loads(said.output)
    assert found["records"] == 2
    assert found["damaged"]["places"] == 1
    assert "in 1 places of the log" in run(tmp_path / "log", "--config", config).output
