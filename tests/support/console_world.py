"""A past for the console: a history of traffic, and findings, written to the state folder as the
service before a restart would have left them."""

from __future__ import annotations

import contextlib
import dataclasses
import random
from pathlib import Path

import numpy as np

from tests.support.plane_process import PlaneProcess
from understudy.monitor.findings.finding import Contribution, Signal, Size
from understudy.monitor.findings.service import FindingsService
from understudy.monitor.history.store import FOLDER, History
from understudy.monitor.stats.distribution import Distribution
from understudy.monitor.stats.reader import labels_of
from understudy.monitor.stats.windows import Delta, Slot

HOSTILE = "<img src=x onerror=alert(1)>\u202e"
"""A name that a page must show and not obey."""


def past_traffic(state_dir: Path, now: float, seconds: int = 1800) -> None:
    """Requests of the champion, and mirrored ones, up to ``now``; errors in the last third."""
    history, chance = History(state_dir / FOLDER), random.Random(3)
    history.flush()
    for at in range(int(now) - seconds, int(now) - 20, 10):
        for arm, role, base in (("champion", "primary", 0.02), ("candidate", "mirror", 0.03)):
            whole = Distribution.of([base * chance.lognormvariate(0, 0.3) for _ in range(20)])
            filled = np.flatnonzero(whole.counts)
            counts = whole.counts[filled]
            slot = Slot(0.0, 10.0 if arm == "champion" else 0.0)
            labels = {"model": "delays", "arm": arm, "role": role}
            key = labels_of({**labels, "outcome": "ok"})
            slot.counters["requests", key] = 20
            slot.sketches["duration", key] = Delta(
                filled.astype(np.uint16), counts, whole.sum_ns, whole.max_ns
            )
            if arm == "champion" and now - at < seconds / 3:
                slot.counters["requests", labels_of({**labels, "outcome": "timeout"})] = 5
            history.take(slot, at)
    history.close()


def past_findings(state_dir: Path, now: float) -> list[str]:
    """A critical finding that got worse, and a warning in the same incident; returns their ids."""
    state_dir.mkdir(parents=True, exist_ok=True)
    times = iter([now - 1200.0] * 20)
    service = FindingsService(state_dir, clock=lambda: next(times))
    service.load_state(None)
    worse = Size("accuracy", "", 0.91, 0.70, 0.68, 0.72)
    first = Signal(
        key="performance/delays/accuracy[x]",
        kind="performance",
        model="delays",
        version="1",
        segment=HOSTILE,
        severity="critical",
        title=f"Accuracy of delays fell from 91 % to 78 % {HOSTILE}",
        since=now - 1500.0,
        features=(Contribution(HOSTILE, 0.6, "31 %, was 12 %"),),
        size=Size("accuracy", "", 0.91, 0.78, 0.76, 0.80),
        rule="betting",
        guarantee="one false alarm in 1,000,000 rows",
        examples=("first",),
        advice="compare the labels of today with the reference",
        assumptions=("labels come for all predictions alike",),
    )
    second = Signal(
        key="drift/delays/carrier", kind="drift", model="delays", version="1", segment="",
        severity="warning", title="carrier: 'AA' rose from 12 % to 31 %", since=now - 1450.0,
    )  # fmt: skip
    service.ledger.report("seeded", [first, second], now - 1200.0)
    service.ledger.report("seeded", [dataclasses.replace(first, size=worse), second], now - 600.0)
    return [finding.id for finding in service.ledger.open()]


def apply_routes(plane: PlaneProcess) -> None:
    """Be the supervisor whose workers apply every change of the routes, until the end."""
    with contextlib.suppress(OSError, ValueError, AssertionError):
        while True:
            try:
                asked = plane.listen()
            except TimeoutError:
                continue  # nobody has ordered anything for a while
            if "ask" in asked:
                plane.tell({"reply": asked["id"], "ok": True, "generation": 2})
