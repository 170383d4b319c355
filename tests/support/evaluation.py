"""Records and labels of several sidecars, as they would be published, and states to compare."""

from __future__ import annotations

import base64
import math
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from tests.support.source import NAMES, Source
from understudy.common.codecs import Reason, Table, Undecodable
from understudy.monitor.config.model import Config
from understudy.monitor.evidence.blocks import Block, Builder, RecordBlock
from understudy.monitor.kafka.consumer import EvidenceConsumer
from understudy.monitor.kafka.partitions import EXPERIMENTS, HEALTH
from understudy.monitor.labels.label import Label
from understudy.monitor.records import record as records
from understudy.monitor.records.handoff import Names, SplitNames
from understudy.monitor.records.record import Record

BEGAN = 1_700_000_000.0
ARMS = ("champion", "candidate", "other", "champion-again")
SHADOW = {
    "name": "shadowed",
    "model": "delays",
    "challengers": ["candidate"],
    "compare": {"noise": 0.25},
    "label": {"prediction": "p", "threshold": 0.5},
    "metrics": [
        {"metric": "error_rate", "margin": "2 pp"},
        {"metric": "latency_p95", "margin": "20 %"},
        {"metric": "disagreement", "margin": "10 pp"},
        {"metric": "prediction", "field": "kind", "margin": "0.2 units", "better": "higher"},
        {"metric": "accuracy", "margin": "5 pp"},
    ],
}
SPLIT = {
    "name": "divided",
    "model": "delays",
    "challengers": ["other"],
    "mode": "split",
    "weights": {"other": 0.4},
    "settle": "1s",
    "label": {"prediction": "p", "threshold": 0.5},
    "metrics": [
        {"metric": "error_rate", "margin": "2 pp"},
        {"metric": "latency_mean", "margin": "10 ms", "bounds": [0, 1]},
        {"metric": "accuracy", "margin": "5 pp"},
    ],
}


def config_of(folder: Path, baseline: str | None = None, **changes: Any) -> Config:
    """``baseline`` is the path of one of tests.support.source."""
    model: dict[str, Any] = {"name": "delays", "version": "1"}
    if baseline is not None:
        model |= {"baseline": baseline, "performance": {"prediction": "p", "threshold": 0.5}}
    return Config.model_validate(
        {
            "version": 1,
            "listen": "127.0.0.1:0",
            "state_dir": str(folder),
            "models": [model],
            "champion": {"name": "champion", "url": "http://127.0.0.1:1"},
            "challengers": [
                {"name": "candidate", "url": "http://127.0.0.1:2", "mirror": {"rate": 1.0}},
                {"name": "other", "url": "http://127.0.0.1:3", "mirror": {"rate": 0.0}},
            ],
            "experiments": [SHADOW, SPLIT],
            **changes,
        }
    )


@dataclass(frozen=True)
class Item:
    """What a sidecar has at unix time ``at``: a record, or a label."""

    at: float
    sidecar: int
    names: Names | None = None
    record: Record | None = None
    of_request: Table | Undecodable | None = None
    answer: Table | Undecodable | None = None
    label: Label | None = None


def names_of(epoch: float, since: float, share: float) -> Names:
    weights = (1.0 - share, 0.0, share, 0.0)
    split = SplitNames("divided", 0, weights, since, epoch)
    return Names(1, (("delays", "1", "auto"),), ARMS, (split,))


def reports_of(one: Record, sidecar: int, names: Names) -> Iterator[Item]:
    """What a worker reports of a slow request before it ends."""
    for age in (1.0, 2.0):
        report = Record()
        for name in set(Record.__slots__) - {"fixed"}:
            setattr(report, name, getattr(one, name))
        report.outcome, report.status, report.duration_ns = records.OPEN, 0, int(age * 1e9)
        missing = Undecodable(Reason.NOT_CAPTURED)
        yield Item(one.started + age, sidecar, names, report, missing, missing)


def items(seed: int, requests: int, sidecars: int = 3, seconds: float = 12.0) -> list[Item]:
    """Requests with their copies and labels, in the order of time."""
    chance = random.Random(seed)
    source = Source(seed)
    found: list[Item] = []
    change = BEGAN + seconds * 0.6
    before = [names_of(BEGAN - 10.0, BEGAN - 10.0, 0.4) for _ in range(sidecars)]
    after = [names_of(change, change + 0.05 * n, 0.5) for n in range(sidecars)]
    for number in range(requests):
        sidecar = chance.randrange(sidecars)
        started = BEGAN + seconds * number / requests + chance.random() * 0.01
        names = (after if started >= change + 0.05 * sidecar else before)[sidecar]
        request_id = b"%d-r%d" % (seed, number)
        inputs = Table(NAMES, 1, source.row())
        split = chance.random() < 0.5
        side = 2 if split and chance.random() < 0.4 else 0

        def add(
            arm: int, role: int, answer: Any, wait: float, assigned: int = 0, outcome: int = 0
        ) -> float:
            one = Record()
            one.proxy_id = number + 1 if number % 2 else 0  # noqa: B023
            one.sampled = False
            one.span = one.events = b""
            one.model, one.arm, one.role, one.outcome = 0, arm, role, outcome
            one.status = 200 if outcome == records.OK else 500
            one.assigned = assigned
            one.started = started + wait  # noqa: B023
            one.duration_ns = int(chance.lognormvariate(-4.0, 0.6) * 1e9)
            one.first_byte_ns = one.queue_ns = one.request_size = one.response_size = 0
            one.request_id, one.trace_id, one.unit, one.target = request_id, b"", b"", b"/x"  # noqa: B023
            one.request_headers = one.response_headers = b""
            one.request_body = one.response_body = None
            table: Any = Undecodable(Reason.ERROR_RESPONSE)
            if outcome == records.OK:
                table = Table(("p", "kind"), 1, list(answer))
            asked: Any = inputs if role == records.ROLE_PRIMARY else Undecodable(Reason.EMPTY)  # noqa: B023
            if chance.random() < 0.02:
                asked = Undecodable(Reason.NOT_JSON)
            if assigned and number % 40 == 0:  # noqa: B023
                one.duration_ns = 3_300_000_000
                found.extend(reports_of(one, sidecar, names))  # noqa: B023
            ended = one.started + one.duration_ns * 1e-9
            found.append(Item(ended, sidecar, names, one, asked, table))  # noqa: B023
            return ended

        score = source.score()
        kind = chance.choice(("late", "early", "on time"))
        said = (score, kind)
        other = said if chance.random() < 0.8 else (source.score(), "late")
        failed = records.SERVER_ERROR if chance.random() < 0.03 else records.OK
        ended = add(side, records.ROLE_PRIMARY, said, 0.0, side + 1 if split else 0, failed)
        if side == 0:
            if chance.random() < 0.95:
                outcome = records.TIMEOUT if chance.random() < 0.03 else records.OK
                ended = max(ended, add(1, records.ROLE_MIRROR, other, 0.002, 0, outcome))
            if chance.random() < 0.95:
                add(3, records.ROLE_MIRROR, said, 0.003)
        if chance.random() < 0.5:
            truth = float(chance.random() < score)
            at = ended + 0.1 + 3.0 * chance.random()
            label = Label(request_id.decode(), 0, truth)
            found.append(Item(at, chance.randrange(sidecars), label=label))
    return sorted(found, key=lambda item: item.at)


def published(
    of_all: list[Item], partitions: int, most: int, beat: float = 0.5
) -> Iterator[tuple[float, int, bool, Block]]:
    """What the sidecars publish: time, partition, whether it is of the topic of labels, block.

    Each says every ``beat`` seconds how far it has come, and ends with everything handed over.
    """
    number = 1 + max(item.sidecar for item in of_all)
    builders = [Builder(f"pod-{n}", "run-1", partitions, most, linger=beat) for n in range(number)]
    labels = [Builder(f"pod-{n}", "run-1-labels", partitions) for n in range(number)]
    clock = math.floor(of_all[0].at)
    yield from _beat(builders, clock)
    due = clock + beat
    for item in of_all:
        while item.at >= due:
            yield from _beat(builders, due)
            due += beat
        if item.label is not None:
            for block in labels[item.sidecar].labels([(item.at, item.label)], item.at):
                yield item.at, block.head.partition, True, block
        else:
            for closed in builders[item.sidecar].add(
                item.names, item.record, item.of_request, item.answer, item.at
            ):  # type: ignore[arg-type]
                yield item.at, closed.head.partition, False, closed
    yield from _beat(builders, due)
    yield from _beat(builders, math.ceil(due) + 5.0)


def _beat(builders: list[Builder], now: float) -> Iterator[tuple[float, int, bool, Block]]:
    for builder in builders:
        blocks: list[Block] = [*builder.flush(now, everything=True)]
        blocks += builder.heartbeats(now, now)
        for block in blocks:
            assert not isinstance(block, RecordBlock) or block.count
            yield now, block.head.partition, False, block


def state_of(consumers: list[EvidenceConsumer]) -> dict[str, Any]:
    """The results of the consumers, without their progress."""
    state = joined([consumer.dump_state()["pipeline"] for consumer in consumers])
    state["decisions"] = {
        name: {
            c: (one.decision.verdict, one.rollout.dump_state())
            for c, one in live.contestants.items()
        }
        for name, live in consumers[EXPERIMENTS].experiments.live.items()
    }
    return state


def joined(pipelines: list[dict[str, Any]]) -> dict[str, Any]:
    """The state of one consumer, or of two: experiments from the first one."""
    return {
        **pipelines[min(HEALTH, len(pipelines) - 1)],
        "experiments": pipelines[EXPERIMENTS]["experiments"],
    }


def differences(a: Any, b: Any, tolerance: float = 1e-9, path: str = "") -> list[str]:
    """Where two states are not the same to rounding."""
    if isinstance(a, dict) and isinstance(b, dict):
        found = [f"{path}: {sorted(set(a) ^ set(b))}"] if a.keys() != b.keys() else []
        for key in a.keys() & b.keys():
            found += differences(a[key], b[key], tolerance, f"{path}.{key}")
        return found
    if isinstance(a, (list, tuple)) and isinstance(b, (list, tuple)):
        if len(a) != len(b):
            return [f"{path}: {len(a)} against {len(b)}"]
        found = []
        for place, (x, y) in enumerate(zip(a, b, strict=True)):
            found += differences(x, y, tolerance, f"{path}[{place}]")
        return found
    if isinstance(a, float) or isinstance(b, float):
        if a is None or b is None:
            return [] if a is b else [f"{path}: {a} against {b}"]
        same = math.isclose(a, b, rel_tol=tolerance, abs_tol=tolerance)
        return [] if same or (a != a and b != b) else [f"{path}: {a} against {b}"]
    if isinstance(a, str) and isinstance(b, str) and a != b and a.startswith("eJ"):
        x, y = _unpacked(a), _unpacked(b)
        if x is not None and y is not None and x.shape == y.shape:
            near = np.isclose(x, y, tolerance, tolerance, equal_nan=True)
            return [] if near.all() else [f"{path}: {np.abs(x - y)[~near].max()} apart"]
    return [] if a == b else [f"{path}: {a!r:.80} against {b!r:.80}"]


def _unpacked(text: str) -> np.ndarray | None:
    """An array that was packed with all its digits; None for other values."""
    try:
        data = zlib.decompress(base64.b64decode(text, validate=True))
        return np.frombuffer(data, np.float64)
    except (ValueError, zlib.error):
        return None
