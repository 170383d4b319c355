"""What the external processor makes of Envoy's messages, without Envoy."""

from __future__ import annotations

import base64
import random
from typing import Any

import pytest

from tests.support.envoy_messages import (
    ANSWERED,
    GOOD,
    body,
    call,
    field,
    header_map,
    headers,
    request,
)
from tests.support.grpc_calls import (
    HEADERS,
    STREAM_PATH,
    body_of,
    floats,
    request_message,
    response_message,
)
from understudy.common.grpc_messages import INFER, framed
from understudy.monitor.errors import IngestError
from understudy.monitor.ingest.external_processor import ExternalExchange, Room
from understudy.monitor.ingest.records import KnownModels

LIMIT = 1000
HTTP = b"/v2/models/m/infer"


class Fed:
    """An exchange that is given messages a millisecond apart."""

    def __init__(self, *messages: bytes, room: int = 10_000, **options: Any) -> None:
        self.items: list[dict[str, Any]] = []
        self.room, self.all = Room(room), room
        self.exchange = ExternalExchange(
            self.items.append, self.room, LIMIT, options.get("arms", {}), options.get("extra", {})
        )
        self.now = 1_000_000
        self.give(*messages)

    def give(self, *messages: bytes) -> None:
        for message in messages:
            self.exchange.feed(message, self.now, 1e9 + self.now / 1e9)
            self.now += 1_000_000

    def ended(self) -> list[dict[str, Any]]:
        self.exchange.end()
        assert self.room.left == self.all
        return self.items


def bodies(item: dict[str, Any]) -> tuple[bytes | None, bytes | None]:
    found = (item.get(name) for name in ("request_base64", "response_base64"))
    sent, got = (None if one is None else base64.b64decode(one) for one in found)
    return sent, got


def test_a_request_over_http() -> None:
    fed = Fed(
        request(HTTP, x_request_id=b"rid", content_type=b"application/json"),
        body(4, b'{"inp'), body(4, b'uts": []}', end=True),
        headers(3, {b":status": b"200", b"content-type": b"application/json", b"server": b"x"}),
        body(5, b"{}", end=True),
    )  # fmt: skip
    (item,) = fed.items  # without waiting for the end of Envoy's stream
    assert bodies(item) == (b'{"inputs": []}', b"{}")
    assert (item["request_id"], item["path"], item["status"]) == ("rid", HTTP.decode(), 200)
    assert (item["outcome"], item["duration_seconds"]) == ("ok", 0.004)
    assert (item["first_byte_seconds"], item["time"]) == (0.003, 1e9 + 0.001)
    assert item["response_headers"] == {"content-type": "application/json"}
    assert fed.ended() == [item]


def test_outcomes() -> None:
    def outcome(*answer: bytes, path: bytes = HTTP) -> tuple[int, str]:
        (item,) = Fed(request(path), body(4, b"{}", end=True), *answer).ended()
        return item["status"], item["outcome"]

    for status, expected in ((404, "client_error"), (429, "model_overload"), (503, "server_error"),
                             (504, "timeout")):  # fmt: skip
        answer = headers(3, {b":status": b"%d" % status}, end=True)
        assert outcome(answer) == (status, expected)
    assert outcome() == (0, "cancelled")
    assert outcome(headers(3, {b":status": b"200"})) == (0, "cancelled")
    for code, expected in ((b"5", "client_error"), (b"14", "server_error"), (b"4", "timeout"),
                           (b"1", "cancelled"), (b"99", "server_error")):  # fmt: skip
        only = {b":status": b"200", b"content-type": b"application/grpc", b"grpc-status": code}
        (item,) = Fed(call(), body(4, framed(b""), end=True), headers(3, only, end=True)).ended()
        assert item["outcome"] == expected
        assert item["response_headers"]["grpc-status"] == code.decode()


def test_what_asks_for_no_prediction_is_left_out() -> None:
    answer = headers(3, {b":status": b"200"}, end=True)
    for head in (
        request(HTTP, method=b"GET"),
        request(b"/v2/models/m/ready"),
        request(b"/grpc.health.v1.Health/Check", content_type=b"application/grpc"),
        request(b"/inference.GRPCInferenceService/ServerLive", content_type=b"application/grpc"),
        request(b"/" + b"x" * 5000),
    ):
        fed = Fed(head, body(4, b"x" * 100, end=True), answer)
        assert fed.room.left == 10_000
        assert fed.ended() == []
    assert len(Fed(request(b"/score"), body(4, b"{}", end=True), answer).ended()) == 1


def test_bodies_that_are_not_kept() -> None:
    answer = headers(3, {b":status": b"200"}), body(5, b"y" * 900), body(5, b"y" * 900, end=True)
    fed = Fed(request(HTTP), body(4, b"x" * 800, end=True), *answer)
    (item,) = fed.ended()
    assert bodies(item) == (b"x" * 800, None)
    assert (item["request_bytes"], item["response_bytes"]) == (800, 1800)
    assert fed.exchange.left_out == 0
    fed = Fed(request(HTTP), body(4, b"x" * 800, end=True), *answer, room=50)
    assert bodies(fed.ended()[0]) == (None, None)
    assert fed.exchange.left_out == 2
    # The model of a gRPC call is in the beginning of its body.
    message = body_of(request_message(("a", "FP32", floats(*[0.0] * 1000)), model="delays"))
    fed = Fed(call(), body(4, message[:300]), body(4, message[300:], end=True), ANSWERED, GOOD)
    (item,) = fed.ended()
    assert (item["model"], bodies(item)) == ("delays", (None, b""))
    # A body that is cut off is none.
    assert bodies(Fed(request(HTTP), body(4, b"{"), *answer[:1]).ended()[0]) == (None, None)


def test_arms_are_clusters_or_all_one() -> None:
    value = field(1, b"xds.cluster_name") + field(2, field(3, b"delays-v2"))
    attributes = field(9, field(1, b"envoy.filters.http.ext_proc") + field(2, field(1, value)))
    rest = body(4, b"{}", end=True), headers(3, {b":status": b"200"}, end=True)
    arms = {"delays-v2": "candidate"}
    assert Fed(request(HTTP) + attributes, *rest, arms=arms).items[0]["arm"] == "candidate"
    assert "arm" not in Fed(request(HTTP), *rest, arms=arms).items[0]
    mirrored = {"arm": "candidate", "role": "mirror"}
    assert Fed(request(HTTP), *rest, extra=mirrored).items[0]["role"] == "mirror"


def test_a_stream_is_a_record_for_each_request() -> None:
    from tritonclient.grpc import service_pb2 as pb

    sent = [body_of(request_message(("a", "FP32", floats(n)), id_=str(n))) for n in (1, 2)]
    got = [
        body_of(pb.ModelStreamInferResponse(
            infer_response=response_message(("p", "FP32", floats(n)), id_=str(n))))
        for n in (1, 2)
    ]  # fmt: skip
    failed = body_of(pb.ModelStreamInferResponse(error_message="boom"))
    fed = Fed(call(STREAM_PATH), body(4, sent[0] + sent[1][:9]), body(4, sent[1][9:]), ANSWERED)
    fed.give(body(5, got[1]), body(5, got[0][:3]), body(5, got[0][3:]))
    assert fed.items == []
    fed.exchange.quiet(fed.now + 2_000_000_000)
    second, first = sorted(fed.items, key=lambda item: item["request_id"], reverse=True)
    assert (first["request_id"], second["request_id"]) == ("rid/1", "rid/2")
    assert (bodies(first), bodies(second)) == ((sent[0], got[0]), (sent[1], got[1]))
    assert (first["duration_seconds"], second["duration_seconds"]) == (0.005, 0.002)
    fed.give(body(4, sent[0]), body(5, failed), body(4, sent[1]), GOOD)
    assert [item["outcome"] for item in fed.items[2:]] == ["server_error", "server_error"]
    assert bodies(fed.items[3]) == (sent[1], None)
    assert fed.ended()[3]["status"] == 200


def test_a_filter_that_waits_is_noticed() -> None:
    first = field(2, field(1, header_map({b":path": HTTP, b":method": b"POST"})))
    waiting = Fed(first, body(4, b"{}", end=True), headers(3, {b":status": b"200"}, end=True))
    assert (waiting.exchange.observed, waiting.ended()) == (False, [])
    assert not Fed(first + field(10, 0)).exchange.observed
    assert Fed(first + field(10, 1)).exchange.observed


def test_any_bytes_are_counted_and_raise_nothing() -> None:
    pick = random.Random(3)
    parts = [
        call(STREAM_PATH), body(4, body_of(request_message(("a", "FP32", floats(1.0)))), end=True),
        ANSWERED, body(5, b"x" * 9), GOOD,
    ]  # fmt: skip
    damaged = 0
    for _ in range(3000):
        fed = Fed()
        for part in parts:
            mutated = bytearray(part)
            for _ in range(pick.randrange(3)):
                mutated[pick.randrange(len(mutated))] = pick.randrange(256)
            fed.give(bytes(mutated))
        fed.ended()
        damaged += fed.exchange.damaged
    assert damaged > 100


def test_the_model_of_a_request() -> None:
    def served(known: KnownModels, path: str, body: bytes | None = None) -> str:
        return "/".join(known.served(path, body, HEADERS)[:2])

    models = [("a:b", "", "auto"), ("m", "1", "auto"), ("m", "2", "auto"), ("p", "", "json")]
    known = KnownModels(models, ["champion"], paths=[("/score/*", models[3])])
    message = request_message(("a", "FP32", floats(1.0)), model="m")
    message.model_version = "2"
    assert served(known, INFER, body_of(message)) == "m/2"
    assert served(known, "/prefix/v2/models/m/versions/1/infer?x") == "m/1"
    assert served(known, "/v1/models/a%3Ab:predict") == "a:b/"
    assert served(known, "/v1/models/a:b:predict") == "a:b/"
    assert served(known, "/score/x") == "p/"
    for path in ("/v2/models/m/infer", "/v2/models/none/infer", "/invocations", INFER):
        with pytest.raises(IngestError):
            served(known, path)
    # Models that are not listed.
    known = KnownModels([*models, ("other", "", "auto")], ["champion"], ["x-*"], 2)
    assert served(known, "/v2/models/m/versions/2/infer") == "m/2"
    assert served(known, "/v2/models/x-1/versions/3/infer") == "x-1/3"
    assert served(known, "/v2/models/x-2/infer") == "x-2/"
    assert served(known, "/v2/models/x-3/infer") == "other/"  # there are two
    assert served(known, "/v2/models/y-1/infer") == "other/"
    assert served(known, "/invocations") == "other/"
