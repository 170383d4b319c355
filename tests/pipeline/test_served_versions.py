"""The version that answers say is counted by arm, and another one is an event."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import orjson
import pytest

from tests.support.read_service import Service
from understudy.common.codecs import ModelSpec, Table, decode_exchange
from understudy.common.grpc_messages import INFER, framed
from understudy.monitor.pipeline.events import Events
from understudy.monitor.pipeline.served import AGAIN, VersionChange
from understudy.monitor.records.record import ROLE_MIRROR
from understudy.monitor.routing.plan import Plan, Upstream
from understudy.monitor.telemetry.predictions import undecoded_families

GOOD = {"a": [1.0]}
PLAN = Plan(1, Upstream("champion", "127.0.0.1", 1))


def said(version: Any) -> bytes:
    outputs = [{"name": "p", "shape": [1], "datatype": "FP32", "data": [0.5]}]
    return orjson.dumps({"model_name": "delays", "model_version": version, "outputs": outputs})


def metric(service: Service, name: str) -> dict[tuple[str, ...], float]:
    found = {family.name: family for family in undecoded_families(service.pipeline, PLAN)}
    return {
        tuple(sample.labels.values()): sample.value
        for sample in found[f"understudy_{name}"].samples
        if sample.name.endswith("_total")
    }


def test_a_model_that_is_replaced_in_place_is_an_event(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    service = Service(tmp_path)
    seen: list[VersionChange] = []
    events = Events()
    service.pipeline.served.listeners += [seen.append, events.version_changed]
    service.send(150, GOOD, said("1"))
    service.send(5, GOOD, said("1"), arm=1, role=ROLE_MIRROR)
    assert seen == []
    service.send(1, GOOD, said("2"))
    (change,) = seen
    assert (change.model, change.version, change.arm) == ("delays", "1", "champion")
    assert (change.before, change.after, change.request_id) == ("1", "2", "r-156")
    assert [one.message for one in caplog.records] == [
        "model 'delays' of 'champion' answers as version '2', and was '1' before (request r-156)"
    ]
    key = ("delays", "1", "champion")
    assert metric(service, "served_answers") == {
        (*key, "1"): 150, (*key, "2"): 1, ("delays", "1", "candidate", "1"): 5,
    }  # fmt: skip
    assert metric(service, "served_version_changes") == {key: 1, ("delays", "1", "candidate"): 0}
    (event,) = events.after(0)
    assert (event["kind"], event["event"], event["before"]) == ("version", "2", "1")
    document = service.pipeline.served.document()
    assert document["changes"][0]["after"] == "2"
    assert [one["served"] for one in document["versions"]] == ["2", "1"]


def test_pods_that_are_replaced_one_by_one_are_one_change_and_a_rollback_is_another(
    tmp_path: Path,
) -> None:
    service = Service(tmp_path)
    service.send(50, GOOD, said("1"))
    for _ in range(30):
        service.send(1, GOOD, said("2"))
        service.send(2, GOOD, said("1"))
    service.send(AGAIN + 1, GOOD, said("2"))
    changes = service.pipeline.served.changes
    assert [(one.before, one.after) for one in changes] == [("1", "2")]
    service.send(1, GOOD, said("1"))
    assert [(one.before, one.after) for one in changes] == [("1", "2"), ("2", "1")]


@pytest.mark.parametrize("version", [None, 3, ["1"], ""])
def test_what_is_no_version(tmp_path: Path, version: object) -> None:
    service = Service(tmp_path)
    service.send(3, GOOD, said(version))
    service.send(3, GOOD, b"not json")
    assert service.pipeline.served.answers == {}
    assert service.pipeline.predictions["delays", "1", "champion"].by_name.keys() == {"p"}


def test_a_header_says_it_too_and_what_is_kept_is_bounded(tmp_path: Path) -> None:
    service = Service(tmp_path)
    lines = "content-type: application/json\r\nX-Model-Version: {}"
    for number in range(30):
        service.send(1, GOOD, {"p": [0.5]}, answer_headers=lines.format(number))
    answers = service.pipeline.served.answers["delays", "1", "champion"]
    assert len(answers) == 9
    assert answers["other"] == 22
    assert len(service.pipeline.served.changes) == 29


def test_answers_over_grpc_say_it_in_their_messages() -> None:
    tensor = b"\x0a\x01p\x12\x04FP32\x1a\x01\x01\x2a\x06\x32\x04\x00\x00\x00\x3f"
    answer = b"\x0a\x01m\x12\x017\x2a" + bytes((len(tensor),)) + tensor
    headers = b"content-type: application/grpc\r\ngrpc-status: 0"
    found = decode_exchange(
        ModelSpec("m"), INFER, headers, framed(b"\x0a\x01m"), 200, headers, framed(answer)
    ).predictions
    assert isinstance(found, Table)
    assert (found.version, found.values) == ("7", [0.5])
