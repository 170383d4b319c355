"""The cases: what identical arms may look like, and each way in which a challenger can be worse."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from benchmarks.verdicts.service import LARGE, Request, Server, Traffic

SHADOW: dict[str, Any] = {"mode": "shadow"}
SPLIT: dict[str, Any] = {"mode": "split", "weights": {"candidate": 0.5}}
CANARY: dict[str, Any] = {
    "mode": "canary",
    "stages": [
        {"weight": 0.0, "requests": 300},
        {"weight": 0.05, "requests": 100},
        {"weight": 0.25, "requests": 300},
        {"weight": 0.5, "requests": 500, "requires": "decision"},
        {"weight": 1.0},
    ],
}
SMALL: dict[str, Any] = {"mode": "split", "weights": {"candidate": 0.05}}
MODES = {"shadow": SHADOW, "split": SPLIT, "canary": CANARY, "small": SMALL}
GUARDRAILS: list[dict[str, Any]] = [
    {"metric": "error_rate", "margin": "1 pp"},
    {"metric": "latency_p99", "margin": "20 %"},
    {"metric": "latency_mean", "margin": "20 %"},
]
SUCCESS: list[dict[str, Any]] = [
    {"metric": "error_rate", "role": "success"},
    {"metric": "latency_p99", "role": "success"},
]
LABELS: dict[str, Any] = {"label": {"prediction": "y"}}

_PLAIN = Server()
_USUAL = Traffic()


@dataclass(frozen=True)
class Case:
    """A champion, a challenger and their traffic, in the modes named."""

    name: str
    challenger: Server
    champion: Server = _PLAIN
    traffic: Traffic = _USUAL
    modes: tuple[str, ...] = ("shadow", "split", "canary")
    metrics: tuple[dict[str, Any], ...] = tuple(GUARDRAILS)
    declared: dict[str, Any] = field(default_factory=dict)
    config: dict[str, Any] = field(default_factory=dict)

    def experiment(self, mode: str) -> dict[str, Any]:
        """The declaration of the experiment, as in the configuration file."""
        declared = {"metrics": list(self.metrics), "minimum_duration": 0}
        return {**declared, **MODES[mode], **self.declared}


def _same(name: str, server: Server, **more: Any) -> Case:
    return Case(name, server, server, **more)


USERS = {"unit": {"by": "header", "name": "x-user"}}

IDENTICAL = (
    _same("plain", Server()),
    _same("1 ms", Server(latency=0.001)),
    _same("10 s", Server(latency=8.0, sigma=0.2), traffic=Traffic(rate=5.0)),
    _same("four at once", Server(slots=4), traffic=Traffic(rate=20.0)),
    _same("AR .9", Server(correlation=0.9)),
    _same("heavy tail", Server(sigma=1.5)),
    _same("large bodies", Server(), traffic=Traffic(large=0.1), modes=("split", "canary")),
    _same("clients give up", Server(latency=0.5, sigma=1.0), traffic=Traffic(patience=2.0)),
    _same("failures in bursts", Server(errors=0.02, burst=50)),
    _same(
        "outages of its own",
        Server(outages=(90.0, 20.0, 0.5)),
        declared={"minimum_duration": "300s"},
    ),
    _same("few errors in bursts", Server(errors=0.004, burst=4), modes=("small",)),
    Case("a stall of 8 s of the champion", Server(), Server(stalls=((30.0, 8.0),))),
    Case("a stall of 8 s of the challenger", Server(stalls=((30.0, 8.0),))),
    Case("a cold start of 20 s", Server(cold=20.0), modes=("split", "canary")),
    _same("users who return", Server(), traffic=Traffic(units=400), declared=USERS),
    _same(
        "users who differ",
        Server(errors=0.03),
        traffic=Traffic(units=400, clustered=1.5),
        declared=USERS,
    ),
    _same(
        "answers that are never read",
        Server(),
        traffic=Traffic(binary=1.0),
        declared={"opaque_answers": True},
    ),
    Case(
        "labels of one arm are late",
        Server(label_delay=60.0),
        Server(label_delay=2.0),
        Traffic(labels=0.5),
        ("split", "canary"),
        ({"metric": "accuracy", "margin": "3 pp"},),
        LABELS,
    ),
)


def _on_large(request: Request, seconds: float, count: int, rng: np.random.Generator) -> str | None:
    return "error" if request.size == LARGE else None


def _on_rare(request: Request, seconds: float, count: int, rng: np.random.Generator) -> str | None:
    return "error" if request.segment < 0.03 else None


def _hangs(request: Request, seconds: float, count: int, rng: np.random.Generator) -> str | None:
    return "hang" if request.segment < 0.05 else None


def _unreadable(
    request: Request, seconds: float, count: int, rng: np.random.Generator
) -> str | None:
    return "unreadable" if request.segment < 0.1 else None


def _later(request: Request, seconds: float, count: int, rng: np.random.Generator) -> str | None:
    return "error" if seconds > 40.0 and request.segment < 0.1 else None


def _segment_wrong(
    request: Request, seconds: float, count: int, rng: np.random.Generator
) -> str | None:
    return "wrong" if request.segment < 0.15 else None


def _fails_in_part(
    request: Request, seconds: float, count: int, rng: np.random.Generator
) -> str | None:
    return "error" if request.segment < 0.3 else None


LONGER = {"minimum_duration": "80s"}
"""Of faults that show only after a while: half a minute for a request that hangs, as that is the
time limit."""

WORSE = (
    Case(
        "hangs until clients give up",
        Server(fault=_hangs),
        traffic=Traffic(patience=2.0),
        declared=LONGER,
    ),
    Case("hangs, judged at once", Server(fault=_hangs), modes=("shadow",)),
    Case("fails on large bodies", Server(fault=_on_large), traffic=Traffic(large=0.05)),
    Case("fails on 3 % of the requests", Server(fault=_on_rare)),
    Case(
        "wrong on one segment",
        Server(fault=_segment_wrong, label_delay=3.0),
        Server(label_delay=3.0),
        Traffic(labels=1.0),
        ("split", "canary"),
        ({"metric": "accuracy", "margin": "3 pp"},),
        LABELS,
    ),
    Case(
        "wrong, and errors of both arms are known late",
        Server(wrong=0.15, label_delay=2.0, late_errors=60.0),
        Server(wrong=0.1, label_delay=2.0, late_errors=60.0),
        Traffic(labels=1.0),
        ("split", "canary"),
        ({"metric": "accuracy", "margin": "3 pp"},),
        LABELS,
    ),
    Case(
        "wrong, and its labels are late",
        Server(fault=_segment_wrong, label_delay=60.0),
        Server(label_delay=3.0),
        Traffic(labels=1.0),
        ("split", "canary"),
        ({"metric": "accuracy", "margin": "3 pp"},),
        LABELS,
    ),
    Case(
        "answers cannot be read",
        Server(fault=_unreadable),
        metrics=({"metric": "disagreement", "margin": "5 pp"},),
        modes=("shadow",),
    ),
    Case(
        "half of the mean latency more",
        Server(latency=0.045),
    ),
    Case("fails only after 40 s", Server(fault=_later), declared=LONGER),
    Case("hangs in part, and is cold", replace(Server(fault=_hangs), cold=10.0), declared=LONGER),
    Case(
        "hangs in part, and is cold, judged at once",
        replace(Server(fault=_hangs), cold=10.0),
        modes=("shadow",),
    ),
    Case(
        "fails only after 40 s, and the traffic stops before",
        Server(fault=_later),
        traffic=Traffic(until=20.0),
        declared=LONGER,
    ),
    Case("fails every request, as the champion does", Server(errors=1.0), Server(errors=1.0)),
)
"""Each challenger is worse than its champion by more than the margin, or not fit to serve."""

BETTER = (
    Case("the champion is down, and fails at once", Server(), Server(latency=0.001, errors=1.0)),
    Case("the champion fails 30 % at once", Server(), Server(fault=_fails_in_part)),
    Case(
        "errors of both arms are known late",
        Server(wrong=0.05, label_delay=2.0, late_errors=60.0),
        Server(wrong=0.1, label_delay=2.0, late_errors=60.0),
        Traffic(labels=1.0),
        ("split", "canary"),
        ({"metric": "accuracy", "role": "success", "effect": "1 pp"},),
        LABELS,
    ),
)
"""Each challenger is better than its champion, and never rolled back."""

QUICK = ("plain", "a cold start of 20 s", "fails on large bodies", "hangs until clients give up")
