"""The same rows by five protocols: identical columns, drift at the same row, the same verdict.

Each way has a pipeline of its own, with findings and an experiment. What Envoy would tell the
external processor goes through it. A real Envoy, and a sidecar, are in tests/ingest/test_envoy.py.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.envoy_messages import ANSWERED, GOOD, body, call
from tests.support.evaluation import differences
from tests.support.grpc_calls import HEADERS, PATH, body_of, request_message, response_message
from tests.support.read_service import Service
from understudy.common.codecs.infer_message import infer_request
from understudy.common.grpc_messages import framed
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.experiments.summary import document
from understudy.monitor.ingest.external_processor import ExternalExchange, Room
from understudy.monitor.ingest.records import Item, KnownModels, item_of
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import OK, ROLE_MIRROR, ROLE_PRIMARY

MODEL = ("delays", "1", "open-inference-v2")
ARMS = ("champion", "candidate")
NAMES = Names(1, (MODEL,), ARMS)
START = 1_800_000_000.0
CHUNK = 50
"""Rows between two looks at the findings."""
HTTP, JSON = "/v2/models/delays/infer", b"content-type: application/json"
EXPERIMENT = {
    "name": "x", "challengers": ["candidate"], "minimum_duration": 0,
    "metrics": [{"metric": "disagreement", "margin": "5 pp"}],
}  # fmt: skip
Tensors = list[tuple[str, str, Any]]
Way = Callable[[Tensors, Tensors], tuple[str, bytes, bytes, bytes, bytes]]
"""Path, headers and body of the request, headers and body of the answer."""


def rows(count: int) -> Iterator[tuple[Tensors, Tensors, Tensors]]:
    """Inputs, the champion's answer, the candidate's; one column drifts from the middle on."""
    rng = np.random.default_rng(21)
    for number in range(count):
        moved = 3.0 if number >= count // 2 else 0.0
        matrix = rng.normal(size=(1, 3)).astype(np.float32)
        matrix[0, 2] += np.float32(moved)
        hour = np.array([int(rng.integers(-3, 24))], np.int64)
        carrier = np.array([("AA", "BÄ", "", "DL")[rng.integers(4)]], object)
        late = np.array([rng.random() < 0.5])
        inputs: Tensors = [
            ("x", "FP32", matrix), ("hour", "INT64", hour), ("carrier", "BYTES", carrier),
            ("late", "BOOL", late),
        ]  # fmt: skip
        p = np.array([float(matrix.sum())], np.float64)
        other = p + (rng.random() < 0.2)
        yield inputs, [("p", "FP64", p)], [("p", "FP64", other)]


def described(tensors: Tensors, raw: bool) -> tuple[list[dict[str, Any]], bytes]:
    found, tail = [], b""
    for name, datatype, array in tensors:
        one: dict[str, Any] = {"name": name, "datatype": datatype, "shape": list(array.shape)}
        if raw:
            data = request_message((name, datatype, array)).raw_input_contents[0]
            one["parameters"] = {"binary_data_size": len(data)}
            tail += data
        else:
            one["data"] = array.reshape(-1).tolist()
        found.append(one)
    return found, tail


def by_json(inputs: Tensors, outputs: Tensors) -> tuple[str, bytes, bytes, bytes, bytes]:
    sent, got = described(inputs, False)[0], described(outputs, False)[0]
    return HTTP, JSON, json.dumps({"inputs": sent}).encode(), JSON, json.dumps(
        {"outputs": got}
    ).encode()  # fmt: skip


def by_binary(inputs: Tensors, outputs: Tensors) -> tuple[str, bytes, bytes, bytes, bytes]:
    parts: list[bytes] = []
    for key, tensors in (("inputs", inputs), ("outputs", outputs)):
        about, tail = described(tensors, True)
        head = json.dumps({key: about}).encode()
        kept = b"content-type: application/octet-stream\r\ninference-header-content-length: %d"
        parts += [kept % len(head), head + tail]
    return HTTP, parts[0], parts[1], parts[2], parts[3]


def by_grpc(raw: bool) -> Way:
    def way(inputs: Tensors, outputs: Tensors) -> tuple[str, bytes, bytes, bytes, bytes]:
        sent = body_of(request_message(*inputs, raw=raw, model="delays"))
        got = body_of(response_message(*outputs, raw=raw))
        # The message that the gate makes of the JSON is the same one.
        written = framed(infer_request({"inputs": described(inputs, False)[0]}, "delays", raw=raw))
        assert written == sent
        return PATH.decode(), HEADERS, sent, HEADERS, got

    return way


WAYS: dict[str, Way] = {
    "json": by_json,
    "binary": by_binary,
    "typed": by_grpc(raw=False),
    "raw": by_grpc(raw=True),
    "ext-proc": by_grpc(raw=True),
}


def through_processor(one: Item) -> Item:
    """What the external processor makes of the call, in pieces as Envoy gives them."""
    items: list[dict[str, Any]] = []
    room = Room(1 << 20)
    exchange = ExternalExchange(items.append, room, 1 << 18, {}, {})
    assert one.request is not None
    assert one.response is not None
    messages = [
        call(), body(4, one.request[:70]), body(4, one.request[70:], end=True),
        ANSWERED, body(5, one.response), GOOD,
    ]  # fmt: skip
    for moment, message in enumerate(messages, 1):
        exchange.feed(message, moment * 1_000_000, one.started)
    exchange.end()
    (found,) = items
    known = KnownModels([MODEL], ARMS)
    made = item_of(json.loads(json.dumps(found)), known, one.started)
    assert made.outcome == OK
    # An Envoy measures other times, and gives another id.
    return replace(
        made, request_id=one.request_id, started=one.started, duration=one.duration,
        first_byte=one.first_byte, arm=one.arm, role=one.role,
    )  # fmt: skip


def seen(folder: Path, way: str, count: int) -> dict[str, Any]:
    """What a pipeline makes of the rows that come in this way."""
    service = Service(folder, learn=count // 4, experiments=[EXPERIMENT])
    runner = ExperimentRunner(service.config, lambda: START + service.now)
    service.pipeline.experiments = runner
    found: dict[str, Any] = {"findings": []}
    for number, (inputs, answer, other) in enumerate(rows(count)):
        for arm, role, outputs in ((0, ROLE_PRIMARY, answer), (1, ROLE_MIRROR, other)):
            path, sent_headers, sent, got_headers, got = WAYS[way](inputs, outputs)
            one = Item(
                MODEL, ARMS[arm], f"r{number}", 200, OK, START + number, 0.02, "", path, sent, got,
                sent_headers, got_headers, role=role,
            )  # fmt: skip
            if way == "ext-proc":
                one = through_processor(one)
            service.pipeline.take(NAMES, 1, one.encode(0, arm))
        if (number + 1) % CHUNK == 0:
            service.pipeline.flush()
            service.now += 60.0
            service.loop.tick(service.now)
            runner.tick()
            found["findings"].append((number, sorted(service.open())))
    assert dict(service.pipeline.undecodable) == {}
    found["columns"] = {
        str(key): one.dump_state() for key, one in service.pipeline.features.items()
    }
    found["predictions"] = {
        str(key): one.dump_state() for key, one in service.pipeline.predictions.items()
    }
    found["verdict"] = document(runner.live["x"], START + service.now)
    return found


def check(folder: Path, count: int) -> None:
    found: dict[str, dict[str, Any]] = {}
    for way in WAYS:
        (folder / way).mkdir()
        found[way] = seen(folder / way, way, count)
    wanted = found["json"]
    first = next(number for number, keys in wanted["findings"] if any("drift" in k for k in keys))
    assert first >= count // 2, "drift begins in the middle"
    assert len(wanted["columns"]) == len(wanted["predictions"]) / len(ARMS) == 1
    (challenger,) = wanted["verdict"]["challengers"]
    assert (challenger["decision"], challenger["cause"]) == ("rollback", "harm")
    for way, other in found.items():
        assert differences(other, wanted, 0.0) == [], way


def test_five_ways_have_identical_columns_findings_and_verdict(tmp_path: Path) -> None:
    check(tmp_path, 600)


@pytest.mark.slow
def test_ten_thousand_rows_by_five_ways(tmp_path: Path) -> None:
    check(tmp_path, 10_000)
