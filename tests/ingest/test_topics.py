"""Messages of other people's topics: what they say, or why they say nothing."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from understudy.common.codecs import Reason, Table, Undecodable
from understudy.monitor.config.model import Config
from understudy.monitor.config.sources import SourceTopic
from understudy.monitor.errors import SourceError
from understudy.monitor.evidence.blocks import Builder, decode
from understudy.monitor.evidence.blocks import encode as packed
from understudy.monitor.evidence.decoding import Decoder
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.ingest.cloudevents import REQUEST, RESPONSE, Pairs
from understudy.monitor.ingest.records import KnownModels
from understudy.monitor.ingest.topics import Message, TopicReader
from understudy.monitor.kafka.cloudevents import Origin, events_of_record
from understudy.monitor.labels.label import Label
from understudy.monitor.records.encode import encode
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import (
    CLIENT_ERROR,
    OK,
    ROLE_MIRROR,
    SERVER_ERROR,
    decode_batch,
)

CONFIG = Config.model_validate(
    {
        "version": 1,
        "listen": "127.0.0.1:0",
        "models": [
            {"name": "delays", "version": "1", "protocol": "kserve-v1", "predictions": ["p"]},
            {"name": "tensors", "protocol": "open-inference-v2"},
        ],
        "champion": {"url": "http://127.0.0.1:1"},
        "challengers": [{"name": "candidate", "url": "http://127.0.0.1:2"}],
    }
)
SETTINGS = Settings.from_json(CONFIG.model_dump(mode="json", by_alias=True))
NOW = 1_770_000_000.0
MAPPING = {
    "request_id": "/id",
    "time": "/at",
    "model": "/model",
    "arm": "/arm",
    "features": {"age": "/in/age", "city": "/in/city"},
    "predictions": "/out",
    "label": "/truth",
    "reward": "/worth",
    "latency": "/took",
    "status": "/status",
    "error": "/error",
}


def reader(**source: Any) -> TopicReader:
    models = [(m.name, m.version, m.protocol) for m in SETTINGS.models]
    declared = SourceTopic.model_validate({"topic": "t", **source})
    return TopicReader(declared, KnownModels(models, SETTINGS.arms), Decoder(SETTINGS))


def plain(**changes: Any) -> TopicReader:
    return reader(format="json", model="delays", json={**MAPPING, **changes})


def message(value: Any, **more: Any) -> Message:
    return Message(value if isinstance(value, bytes) else json.dumps(value).encode(), **more)


def reason_for(read: TopicReader, one: Message) -> str:
    with pytest.raises(SourceError) as caught:
        read.read(one, NOW)
    return caught.value.reason


# CloudEvents --------------------------------------------------------------------------------------


def event(kind: str, id_: str, body: Any, at: str, service: str = "delays") -> Message:
    headers = [
        ("ce_specversion", b"1.0"),
        ("ce_id", id_.encode()),
        ("ce_type", kind.encode()),
        ("ce_source", b"http://localhost:9081/"),
        ("ce_time", at.encode()),
        ("ce_inferenceservicename", service.encode()),
        ("ce_namespace", b"default"),
        ("content-type", b"application/json"),
    ]
    return message(body, headers=headers)


def test_halves_of_a_request_meet() -> None:
    read = reader(format="cloudevents")
    asked = event(REQUEST, "r-1", {"instances": [{"a": 1.0}]}, "2026-01-31T12:00:00Z")
    said = event(RESPONSE, "r-1", {"predictions": [0.5]}, "2026-01-31T12:00:00.25Z")
    assert read.read(said, NOW).rows == []
    assert read.pairs.waiting == 1
    ((names, record, features, predictions),) = read.read(asked, NOW).rows
    assert names.models[record.model][0] == "delays"
    assert (record.request_id, record.outcome, record.duration_ns) == (b"r-1", OK, 250_000_000)
    assert features == Table(("a",), 1, [1.0])
    assert predictions == Table(("p",), 1, [0.5])


def test_structured_events_are_read_as_well() -> None:
    read = reader(format="cloudevents", model="tensors")
    tensor = {"name": "x", "shape": [1], "datatype": "FP64", "data": [2.0]}
    found = []
    for kind, data in ((REQUEST, {"inputs": [tensor]}), (RESPONSE, {"outputs": [tensor]})):
        body = base64.b64encode(json.dumps(data).encode()).decode()
        one = {
            "specversion": "1.0", "id": "r", "type": kind, "source": "s", "data_base64": body,
            "time": "2026-01-31T12:00:00Z", "inferenceservicename": "called-otherwise",
        }  # fmt: skip
        headers = [("content-type", b"application/cloudevents+json; charset=UTF-8")]
        found += read.read(message(one, headers=headers), NOW).rows
    ((names, record, features, _),) = found
    assert names.models[record.model][0] == "tensors"
    assert features == Table(("x",), 1, [2.0])


def test_halves_that_wait_survive_a_restart() -> None:
    first, second = reader(format="cloudevents"), reader(format="cloudevents")
    at = "2026-01-31T12:00:00Z"
    first.read(event(REQUEST, "r", {"instances": [[1.0]]}, at), NOW)
    second.pairs.load_state(json.loads(json.dumps(first.pairs.dump_state())))
    assert len(second.read(event(RESPONSE, "r", {"predictions": [1]}, at), NOW).rows) == 1
    with pytest.raises(ValueError, match="unpack"):
        Pairs().load_state([[1]])


def test_events_that_cannot_be_used_have_a_reason() -> None:
    read = reader(format="cloudevents")
    assert reason_for(read, Message(None)) == "empty"
    assert reason_for(read, message({"a": 1})) == "not_cloudevent"
    at = "2026-01-31T12:00:00Z"
    assert reason_for(read, event("com.example.else", "r", {}, at)) == "not_cloudevent"
    read.read(event(REQUEST, "r", {}, at, "unheard-of"), NOW)
    assert reason_for(read, event(RESPONSE, "r", {}, at, "unheard-of")) == "unknown_model"


# What we publish ourselves ------------------------------------------------------------------------


def exchange(role: int = 0, request_id: str = "r-9") -> Any:
    _, parts = encode(
        *(0, 0, 200, role, OK, NOW, 125_000_000, 0, 0, 5, 6, request_id.encode(), b"t" * 32),
        *(b"u", b"/v1/models/delays:predict", b"content-type: application/json", b""),
        *(b'{"instances": [[1.0, 2.0]]}', b'{"predictions": [0.25]}'),
    )
    return decode_batch(b"".join(parts))[0]


NAMES = Names(1, (("delays", "1", "kserve-v1"),), ("champion", "candidate"))


def test_what_is_published_as_events_is_read_back() -> None:
    origin = Origin("http://pod/", "prod")
    events = events_of_record(NAMES, exchange(), origin)
    assert [key for _, key, _ in events] == [b"r-9", b"r-9"]
    asked = dict(events[0][0])
    assert asked["ce_type"] == REQUEST.encode()
    assert asked["ce_metadata"] == b'{"content-type": ["application/json"]}'
    assert (asked["ce_source"], asked["ce_namespace"]) == (b"http://pod/", b"prod")
    assert asked["ce_endpoint"] == b"champion"
    read = reader(format="cloudevents")
    rows = [
        row
        for headers, key, value in events
        for row in read.read(Message(value, key, headers), NOW).rows
    ]
    ((_, record, features, predictions),) = rows
    assert (record.request_id, record.started, record.duration_ns) == (b"r-9", NOW, 125_000_000)
    assert (features, predictions) == (
        Table(("x[0]", "x[1]"), 1, [1.0, 2.0]),
        Table(("p",), 1, [0.25]),
    )


def test_copies_and_what_was_not_captured_are_no_events() -> None:
    assert events_of_record(NAMES, exchange(ROLE_MIRROR), Origin()) == []
    one = exchange(request_id="")
    one.request_body = None
    ((headers, key, _),) = events_of_record(NAMES, one, Origin())
    assert dict(headers)["ce_type"] == RESPONSE.encode()
    assert key == dict(headers)["ce_id"]
    assert len(key) == 36
    one.response_body = None
    assert events_of_record(NAMES, one, Origin()) == []


# Plain JSON ---------------------------------------------------------------------------------------


def test_an_exchange_by_its_mapping() -> None:
    value = {
        "id": 77, "at": 1_760_000_000_500, "arm": "candidate", "took": 12.5, "status": 200,
        "in": {"age": 31, "city": "Ulm"}, "out": {"p": 0.5, "q": None}, "truth": True,
    }  # fmt: skip
    taken = plain().read(message(value, timestamp=NOW), NOW)
    ((names, record, features, predictions),) = taken.rows
    assert names.models[record.model][:2] == ("delays", "1")
    assert names.arms[record.arm] == "candidate"
    assert (record.request_id, record.started) == (b"77", 1_760_000_000.5)
    assert (record.duration_ns, record.outcome) == (12_500_000, OK)
    assert features == Table(("age", "city"), 1, [31, "Ulm"])
    assert predictions == Table(("p", "q"), 1, [0.5, None])
    assert taken.labels == [(NOW, Label("77", 0, True))]
    # What was read takes the way of all records.
    builder = Builder("s", "r", 1)
    builder.add(*taken.rows[0], NOW)
    (block,) = builder.flush(NOW, everything=True)
    assert next(decode(packed(block)).rows())[2] == features


def test_rows_from_lists() -> None:
    value = {
        "id": "r",
        "in": {"age": [1, 2], "city": "x"},
        "out": {"p": [0.1, 0.2]},
        "truth": [0, None],
    }
    taken = plain().read(message(value), NOW)
    (row,) = taken.rows
    assert row[2] == Table(("age", "city"), 2, [1, "x", 2, "x"])
    assert row[3] == Table(("p",), 2, [0.1, 0.2])
    assert taken.labels == [(NOW, Label("r", 0, 0))]


def test_a_label_alone_and_ids_that_are_no_latin() -> None:
    taken = plain().read(message({"id": "é–1", "worth": 2}), NOW)
    assert taken.rows == []
    ((_, label),) = taken.labels
    assert label.reward == 2.0
    both = plain().read(message({"id": "é–1", "in": {"age": 1}, "out": {"p": 1}}), NOW)
    assert both.rows[0][1].request_id.decode("latin-1") == label.request_id


def test_failures_have_an_outcome() -> None:
    for more, wanted in (
        ({"status": 503}, SERVER_ERROR),
        ({"status": 422}, CLIENT_ERROR),
        ({"error": "oom"}, SERVER_ERROR),
        ({"error": None}, OK),
        ({"error": False}, OK),
    ):
        ((_, record, _, answer),) = (
            plain().read(message({"id": "r", "in": {"age": 1}, **more}, timestamp=NOW), NOW).rows
        )
        assert record.outcome == wanted
        missing = Reason.NOT_CAPTURED if wanted == OK else Reason.ERROR_RESPONSE
        assert answer == Undecodable(missing)
        assert record.started == NOW


def test_messages_that_cannot_be_used_have_a_reason() -> None:
    good = {"id": "r", "in": {"age": 1}, "out": {"p": 1}}
    for value, wanted in (
        (b"{", "not_json"),
        (b"[1]", "wrong_shape"),
        ({}, "missing_field"),
        ({"id": "r"}, "missing_field"),
        ({**good, "id": ["r"]}, "wrong_type"),
        ({**good, "id": "r" * 300}, "too_large"),
        ({**good, "model": "none"}, "unknown_model"),
        ({**good, "arm": "none"}, "unknown_arm"),
        ({**good, "at": "soon"}, "wrong_type"),
        ({**good, "took": "5"}, "wrong_type"),
        ({**good, "took": -5}, "wrong_type"),
        ({**good, "status": 7}, "wrong_type"),
        ({**good, "out": 5}, "wrong_type"),
        ({**good, "out": {"n" * 300: 1}}, "too_large"),
        ({**good, "out": {"p": [1], "q": [1, 2]}}, "wrong_shape"),
        ({**good, "out": {"p": []}}, "wrong_shape"),
        ({**good, "truth": {"x": 1}}, "wrong_type"),
        ({**good, "worth": "x"}, "wrong_type"),
    ):
        assert reason_for(plain(), message(value)) == wanted, value


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.floats(allow_nan=False)
    | st.integers(-(2**70), 2**70)
    | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
    ),
)


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(
    st.fixed_dictionaries(
        {},
        optional={
            path[1:].split("/")[0]: JSON
            for path in (
                "/id",
                "/at",
                "/model",
                "/arm",
                "/in",
                "/out",
                "/truth",
                "/worth",
                "/took",
                "/status",
                "/error",
            )
        },
    )
)
def test_no_message_is_fatal(value: dict[str, Any]) -> None:
    try:
        plain().read(message(value, timestamp=NOW), NOW)
    except SourceError:
        pass


def test_a_source_has_to_make_sense() -> None:
    for wrong, text in (
        ({"format": "json"}, "json: is required"),
        (
            {"format": "cloudevents", "json": {"request_id": "/i", "label": "/l"}},
            "json: is required",
        ),
        ({"format": "json", "json": {"request_id": "/i"}}, "maps nothing"),
        ({"format": "cloudevents", "version": "1"}, "no meaning without a model"),
        ({"format": "json", "json": {"request_id": "i", "label": "/l"}}, "pattern"),
    ):
        with pytest.raises(ValidationError, match=text):
            SourceTopic.model_validate({"topic": "t", **wrong})
