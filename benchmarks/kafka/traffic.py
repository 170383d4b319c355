"""Requests, copies and labels that are a function of seed, sidecar and number alone.

So a sidecar that is killed makes the same ones again, and what should be known in the end can be
made without any of them.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from understudy.common.codecs import Reason, Table, Undecodable
from understudy.monitor.labels.label import Label
from understudy.monitor.records import record as records
from understudy.monitor.records.handoff import Names, SplitNames
from understudy.monitor.records.record import Record

TICK_SECONDS = 0.1
ARMS = ("champion", "candidate", "other")
FEATURES = ("amount", "age", "country")
COUNTRIES = ("de", "fr", "it", "es")
NAMES = Names(
    1,
    (("delays", "1", "auto"),),
    ARMS,
    (SplitNames("divided", 0, (0.6, 0.0, 0.4), 0.0, 1.0),),
)
EXPERIMENTS: list[dict[str, Any]] = [
    {
        "name": "shadowed",
        "challengers": ["candidate"],
        "label": {"prediction": "p", "threshold": 0.5},
        "metrics": [
            {"metric": "error_rate", "margin": "2 pp"},
            {"metric": "latency_p95", "margin": "20 %"},
            {"metric": "disagreement", "margin": "10 pp"},
            {"metric": "accuracy", "margin": "5 pp"},
        ],
    },
    {
        "name": "divided",
        "challengers": ["other"],
        "mode": "split",
        "weights": {"other": 0.4},
        "metrics": [
            {"metric": "error_rate", "margin": "2 pp"},
            {"metric": "latency_mean", "margin": "10 ms", "bounds": [0, 1]},
        ],
    },
]
Exchange = tuple[Record, Table | Undecodable, Table | Undecodable]


@dataclass(frozen=True)
class Batch:
    """What a sidecar has in one tick, with labels for requests of this tick and earlier ones."""

    exchanges: list[Exchange]
    labels: list[Label]


def batch(seed: int, sidecar: int, number: int, began: float, requests: int) -> Batch:
    """The batch of tick ``number``, at unix time ``began`` + number ticks."""
    chance = random.Random(f"{seed}/{sidecar}/{number}")
    exchanges: list[Exchange] = []
    labels: list[Label] = []
    for place in range(requests):
        started = began + TICK_SECONDS * (number + place / requests)
        request_id = f"s{seed}-{sidecar}-{number}-{place}"
        amount = round(chance.lognormvariate(3.0, 1.0), 2)
        inputs = Table(
            FEATURES, 1, [amount, float(chance.randint(18, 90)), chance.choice(COUNTRIES)]
        )
        score = round(chance.betavariate(2.0, 5.0), 4)
        split = chance.random() < 0.4
        side = 2 if split and chance.random() < 0.4 else 0
        outcome = records.SERVER_ERROR if chance.random() < 0.03 else records.OK
        assigned = side + 1 if split else 0
        seconds = chance.lognormvariate(-4.5, 0.5)
        exchanges.append(
            _exchange(request_id, side, 0, outcome, started, seconds, inputs, score, assigned)
        )
        if side == 0:
            theirs = score if chance.random() < 0.9 else round(chance.betavariate(2.0, 5.0), 4)
            failed = records.TIMEOUT if chance.random() < 0.03 else records.OK
            seconds = chance.lognormvariate(-4.5, 0.5)
            exchanges.append(
                _exchange(request_id, 1, 1, failed, started + 0.001, seconds, inputs, theirs, 0)
            )
        if chance.random() < 0.3:
            labels.append(Label(request_id, 0, float(chance.random() < score)))
    return Batch(exchanges, labels)


def _exchange(
    request_id: str,
    arm: int,
    role: int,
    outcome: int,
    started: float,
    seconds: float,
    inputs: Table,
    score: float,
    assigned: int,
) -> Exchange:
    one = Record()
    one.proxy_id = 0
    one.model, one.arm, one.role, one.outcome, one.assigned = 0, arm, role, outcome, assigned
    one.status = 200 if outcome == records.OK else 500
    one.started, one.duration_ns = started, int(seconds * 1e9)
    one.first_byte_ns = one.queue_ns = one.request_size = one.response_size = 0
    one.request_id, one.trace_id, one.unit, one.target = request_id.encode(), b"", b"", b"/x"
    one.request_headers = one.response_headers = b""
    one.request_body = one.response_body = None
    asked: Table | Undecodable = inputs if role == 0 else Undecodable(Reason.EMPTY)
    said: Table | Undecodable = Undecodable(Reason.ERROR_RESPONSE)
    if outcome == records.OK:
        said = Table(("p",), 1, [score])
    return one, asked, said
