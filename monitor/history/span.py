"""One slot of the history: counts and sketches of a stretch of time, which merge without loss."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import Any

import numpy as np
import orjson

from understudy.monitor.routing.serving import NOT_SENT
from understudy.monitor.stats.buckets import BUCKETS
from understudy.monitor.stats.windows import Delta, Slot, merged_delta

VERSION = 1
DIVERTED = "diverted"
"""Counted beside the outcomes: requests that the arm should have served, and another one did."""
_MOST = 1 << 62
_NAME = 256

Key = tuple[str, str, str]
"""Model, arm and role (primary: requests of clients; mirror: mirrored requests). The model is empty
for what is not counted by model."""
Gauge = tuple[str, str, str]
"""Model, column or series (empty for the model as a whole), and name."""


@dataclass(slots=True)
class Traffic:
    """Requests of one key: how many by outcome, and their durations."""

    counts: dict[str, int] = field(default_factory=dict)
    durations: Delta | None = None

    def add(self, other: Traffic) -> None:
        """Merge another stretch of time into this one."""
        for name, count in other.counts.items():
            self.counts[name] = self.counts.get(name, 0) + count
        known = self.durations
        if other.durations is not None:
            both = [other.durations] if known is None else [known, other.durations]
            self.durations = merged_delta(both)


@dataclass(slots=True)
class Span:
    """What happened in a slot. ``start`` is unix seconds, a multiple of the resolution; ``seconds``
    is how much of the slot was observed; of each gauge the last value is kept."""

    start: int
    seconds: float = 0.0
    traffic: dict[Key, Traffic] = field(default_factory=dict)
    gauges: dict[Gauge, float] = field(default_factory=dict)

    def add(self, later: Span) -> None:
        """Merge a span that was observed later."""
        self.seconds += later.seconds
        for key, traffic in later.traffic.items():
            self.traffic.setdefault(key, Traffic()).add(traffic)
        self.gauges.update(later.gauges)

    def observe(self, slot: Slot) -> None:
        """Add what has grown between two readings of the workers' statistics."""
        self.seconds += max(0.0, slot.end - slot.start)
        for (name, labels), count in slot.counters.items():
            have = dict(labels)
            if name == "requests":
                key, counted = _key(have), have.get("outcome", "")
            elif name == "mirror" and have.get("outcome") in NOT_SENT:
                key, counted = ("", have.get("arm", ""), "mirror"), have["outcome"]
            elif name == "diverted":
                key, counted = ("", have.get("arm", ""), "primary"), DIVERTED
            else:
                continue
            counts = self.traffic.setdefault(key, Traffic()).counts
            counts[counted] = counts.get(counted, 0) + count
        durations: dict[Key, list[Delta]] = {}
        for (name, labels), delta in slot.sketches.items():
            if name == "duration":
                durations.setdefault(_key(dict(labels)), []).append(delta)
        for key, deltas in durations.items():
            traffic = self.traffic.setdefault(key, Traffic())
            known = () if traffic.durations is None else (traffic.durations,)
            traffic.durations = merged_delta((*known, *deltas))


def _key(labels: Mapping[str, str]) -> Key:
    return labels.get("model", ""), labels.get("arm", ""), labels.get("role", "")


def merged(spans: Iterable[Span], start: int) -> Span:
    """All spans as one that begins at ``start``."""
    result = Span(start)
    for span in spans:
        result.add(span)
    return result


# On disk ------------------------------------------------------------------------------------------


def dump(span: Span, through: int) -> bytes:
    """JSON. ``through``: entries of the next finer resolution before this index are part of this
    span or of an earlier one."""
    return orjson.dumps(
        {
            "version": VERSION,
            "start": span.start,
            "seconds": round(span.seconds, 6),
            "through": through,
            "traffic": [
                [*key, one.counts, _dumped(one.durations)] for key, one in span.traffic.items()
            ],
            "gauges": [[*gauge, value] for gauge, value in span.gauges.items() if isfinite(value)],
        }
    )


def _dumped(delta: Delta | None) -> list[Any] | None:
    if delta is None:
        return None
    return [delta.buckets.tolist(), delta.counts.tolist(), delta.sum_ns, delta.max_ns]


def load(data: bytes) -> tuple[Span, int]:
    """Undo :func:`dump`. Raises ValueError, KeyError or TypeError for anything else."""
    document = orjson.loads(data)
    if document["version"] != VERSION:
        raise ValueError(f"unknown version {document['version']!r}")
    span = Span(_count(document["start"]), float(document["seconds"]))
    if not 0.0 <= span.seconds < _MOST:
        raise ValueError(f"{span.seconds!r} seconds are not possible")
    for model, arm, role, counts, durations in document["traffic"]:
        key = _text(model), _text(arm), _text(role)
        found = {_text(name): _integer(count) for name, count in counts.items()}
        span.traffic[key] = Traffic(found, _loaded(durations))
    for model, column, name, value in document["gauges"]:
        span.gauges[_text(model), _text(column), _text(name)] = float(value)
    return span, _count(document["through"])


def _loaded(data: Sequence[Any] | None) -> Delta | None:
    if data is None:
        return None
    buckets, counts, sum_ns, max_ns = data
    if len(buckets) != len(counts) or any(not 0 <= one < BUCKETS for one in map(_count, buckets)):
        raise ValueError("buckets that do not exist")
    values = np.array([_integer(count) for count in counts], np.int64)
    return Delta(np.array(buckets, np.uint16), values, _integer(sum_ns), _count(max_ns))


def _integer(value: Any) -> int:
    if not isinstance(value, int) or not -_MOST < value < _MOST:
        raise ValueError(f"{value!r} is not a count")
    return value


def _count(value: Any) -> int:
    if _integer(value) < 0:
        raise ValueError(f"{value!r} is not a count")
    return int(value)


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 4 * _NAME:
        raise ValueError(f"{value!r} is not a name")
    return value
