"""From encoded batches to accumulators, in one process."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.support.plane_process import ARMS, MODEL, encoded
from understudy.common.durable import set_aside
from understudy.monitor.errors import StateError
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.pipeline import exemplars, state
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.pipeline.recent import Recent
from understudy.monitor.records import record
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.slots import Slots


def settings(**model: Any) -> Settings:
    return Settings.from_json(
        {"models": [{**MODEL, **model}], "challengers": [{"name": "candidate"}]}
    )


def names(protocol: str = "open-inference-v2") -> Names:
    return Names(1, (("delays", "1", protocol),), tuple(ARMS))


def take(pipeline: Pipeline, *records: bytes, protocol: str = "open-inference-v2") -> None:
    pipeline.take(names(protocol), len(records), b"".join(records))
    pipeline.flush()


def test_features_come_from_requests_and_predictions_from_answers_that_were_ok() -> None:
    pipeline = Pipeline(settings())
    take(
        pipeline,
        encoded({"a": [1.0]}, {"p": [0.1]}),
        encoded({"a": [2.0]}, {"p": [0.2]}, arm=1, role=record.ROLE_MIRROR),
        encoded({"a": [3.0]}, {"p": [0.3]}, outcome=record.SERVER_ERROR),
    )
    features = pipeline.features["delays", "1"]
    assert features.rows == 2  # the copy has the champion's request
    assert features.summary()[0]["mean"] == 2.0
    assert pipeline.predictions["delays", "1", "champion"].rows == 1
    assert pipeline.predictions["delays", "1", "candidate"].rows == 1
    assert not pipeline.undecodable


def test_bodies_over_the_limit_are_counted() -> None:
    pipeline = Pipeline(settings())
    take(pipeline, encoded(None, None))
    assert pipeline.undecodable == {
        ("delays", "1", "champion", "request", "not_captured"): 1,
        ("delays", "1", "champion", "response", "not_captured"): 1,
    }


def test_a_tensor_that_cannot_be_read_is_counted_and_the_others_are_used() -> None:
    shared = {"name": "b", "shape": [1], "datatype": "FP64",
              "parameters": {"shared_memory_region": "r"}}  # fmt: skip
    read = {"name": "a", "shape": [1], "datatype": "FP64", "data": [1.0]}
    request, answer = ({key: [shared, read]} for key in ("inputs", "outputs"))
    pipeline = Pipeline(settings())
    take(pipeline, encoded(json.dumps(request).encode(), json.dumps(answer).encode()))
    assert pipeline.undecodable == {
        ("delays", "1", "champion", "request", "shared_memory"): 1,
        ("delays", "1", "champion", "response", "shared_memory"): 1,
    }
    found = {one["name"]: one for one in pipeline.features["delays", "1"].summary()}
    assert (found["a"]["mean"], found["b"]["missing"]) == (1.0, 1)
    assert pipeline.predictions["delays", "1", "champion"].rows == 1


def test_scores_of_classes_give_a_class_where_the_configuration_says_so() -> None:
    tensor = {"name": "scores", "shape": [2, 3], "datatype": "FP64", "data": [1, 5, 2, 9, 0, 3]}
    answer = json.dumps({"outputs": [tensor]}).encode()
    pipeline = Pipeline(settings(classes={"of": "scores", "labels": ["a", "b"]}))
    take(pipeline, encoded({"x": [1.0, 2.0]}, answer))
    found = pipeline.predictions["delays", "1", "champion"]
    assert found.by_name["class"].classes == {"b": 1, "a": 1}


def test_a_copy_is_read_in_the_format_of_the_requests() -> None:
    pipeline = Pipeline(settings(protocol="auto"))
    copy = encoded(None, {"p": [0.5]}, arm=1, role=record.ROLE_MIRROR, target="/score")
    take(pipeline, copy, protocol="auto")
    assert pipeline.undecodable["delays", "1", "candidate", "response", "unknown_protocol"] == 1
    take(pipeline, encoded({"a": [1.0]}, {"p": [0.5]}, target="/score"), copy, protocol="auto")
    assert pipeline.predictions["delays", "1", "candidate"].rows == 1


def test_configured_json_names_are_expected() -> None:
    mapping = {"features": {"age": "/age", "size": "/size"}, "predictions": {"p": "/p"}}
    pipeline = Pipeline(settings(protocol="json", json=mapping))
    take(pipeline, encoded(b'{"age": 3}', b'{"p": 1.5}', target="/x"), protocol="json")
    assert pipeline.features["delays", "1"].missing() == {"age": 0, "size": 1}
    assert pipeline.predictions["delays", "1", "champion"].by_name["p"].total == 1.5


def test_a_worker_with_other_names_is_still_counted() -> None:
    pipeline = Pipeline(settings())
    row = encoded({"a": [1.0]}, {"p": [0.5]})
    pipeline.take(Names(9, (("new", "7", "auto"),), ("gold",)), 1, row)
    pipeline.take(Names(), 1, row)
    pipeline.flush()
    assert set(pipeline.predictions) == {("new", "7", "gold"), ("other", "", "other")}


def test_a_fault_of_our_own_is_counted_and_does_not_raise(monkeypatch: pytest.MonkeyPatch) -> None:
    pipeline = Pipeline(settings())

    def broken(*_: object) -> None:
        raise RuntimeError

    monkeypatch.setattr(pipeline.recent, "add", broken)
    take(pipeline, encoded(), encoded())
    assert pipeline.undecodable["", "", "", "record", "internal"] == 2
    assert pipeline.records == 2


def test_the_last_trace_of_each_bucket_is_the_exemplar() -> None:
    pipeline = Pipeline(settings())
    for trace, duration in (("aa", 0.004), ("bb", 0.0041), ("cc", 0.3), ("", 0.3), ("dd", 99.0)):
        take(pipeline, encoded(trace_id=trace, duration=duration))
    take(pipeline, encoded(trace_id="ee", sampled=False, duration=99.0))
    (series,) = pipeline.exemplars.by_series().items()
    assert series[0] == ("delays", "1", "champion", "primary", "ok")
    assert {bucket: found.trace_id for bucket, found in series[1].items()} == {
        0: "bb",
        7: "cc",
        14: "dd",
    }


def test_exemplars_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exemplars, "_MAX_SERIES", 2)
    pipeline = Pipeline(settings())
    for outcome in range(6):
        take(pipeline, encoded(trace_id="aa", outcome=outcome))
    assert len(pipeline.exemplars.by_series()) == 2


def test_recent_records_are_bounded_by_count_and_by_bytes() -> None:
    def request_ids(recent: Recent) -> list[bytes]:
        return [found.request_id for _, _, found in recent.newest()]

    records = record.decode_batch(
        b"".join(encoded(bytes(1000), request_id=str(number)) for number in range(10))
    )
    recent = Recent(keep=4)
    recent.add(names(), records)
    assert request_ids(recent) == [b"9", b"8", b"7", b"6"]
    recent.resize(2)
    assert request_ids(recent) == [b"9", b"8"]
    recent = Recent(keep=100, max_bytes=3 * 1512)
    recent.add(names(), records)
    assert request_ids(recent) == [b"9", b"8", b"7"]
    recent = Recent(keep=0)
    recent.add(names(), records)
    assert len(recent) == 0


def test_a_resumed_state_is_the_state(tmp_path: Path) -> None:
    path = tmp_path / "evaluation.json"
    slots = Slots()
    slots.of("r", 0).last_seq = 3
    whole, resumed = Pipeline(settings()), Pipeline(settings())
    rows = [
        encoded({"a": [1.0], "b": ["x"]}, {"p": [0.1], "c": ["no"]}),
        encoded({"a": [None], "b": ["y"]}, {"p": [0.9], "c": ["yes"]}),
        encoded(b"{", b"{"),
    ]
    for row in rows * 2:
        take(whole, row)
        take(resumed, row)
        state.write(path, state.capture(slots, resumed))
        resumed = Pipeline(settings())
        assert dict(state.restore(path, "r", resumed))["r", 0].last_seq == 3
    assert resumed.dump_state() == whole.dump_state()


@pytest.mark.parametrize("part", ["records", "features", "predictions", "undecodable"])
def test_a_state_that_lacks_a_part_is_refused(tmp_path: Path, part: str) -> None:
    path = tmp_path / "evaluation.json"
    pipeline = Pipeline(settings())
    take(pipeline, encoded({"a": [1.0]}, {"p": [0.1]}))
    saved = state.capture(Slots(), pipeline)
    saved["pipeline"][part] = [{"odd": 1}] if part != "undecodable" else [["too", "short"]]
    state.write(path, saved)
    with pytest.raises(StateError):
        state.restore(path, "r", Pipeline(settings()))
    assert set_aside(path).exists()
    assert not path.exists()
