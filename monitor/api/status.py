"""The status document: what ``top``, the web page and the demo show."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from understudy import __version__
from understudy.monitor.api.language_models import language_models
from understudy.monitor.console.findings import in_short
from understudy.monitor.experiments.summary import summary as summary_of
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.records.redaction import Redaction
from understudy.monitor.routing.serving import NOT_ERRORS, NOT_SENT, ArmService
from understudy.monitor.stats.distribution import Distribution, summary
from understudy.monitor.stats.reader import Labels, Snapshot
from understudy.monitor.stats.windows import WINDOW_NAMES, WINDOWS, Windows, since_start
from understudy.monitor.supervisor.process_use import ProcessUse
from understudy.monitor.telemetry.processes import uses

START = "start"
_UNSEEN: dict[str, Any] = {"mean": None, "std": None, "min": None, "max": None, "classes": {}}
"""Parts of a hidden column's summary that are not shown."""


class Figures:
    """What was measured, by arm: nothing in it changes, so any thread may look at it."""

    def __init__(self, snapshot: Snapshot, windows: Windows, run_seconds: float) -> None:
        self.snapshot = snapshot
        self._seconds = {
            name: windows.covered(seconds)
            for name, seconds in zip(WINDOW_NAMES, WINDOWS, strict=True)
        }
        self._seconds[START] = run_seconds
        self._durations = {
            name: _by_arm(windows.sketches("duration", seconds))
            for name, seconds in zip(WINDOW_NAMES, WINDOWS, strict=True)
        }
        self._durations[START] = _by_arm(since_start(snapshot, "duration"))
        self._minute = {
            name: _by_arm(windows.sketches(name, WINDOWS[1])) for name in ("first_byte", "queue")
        }
        self._recent_mirror = _by_arm(windows.counters("mirror", WINDOWS[1]))
        self._counters: dict[tuple[str, str], list[tuple[Labels, int]]] = {}
        for (name, labels), value in snapshot.counters.items():
            key = name, dict(labels).get("arm", "")
            self._counters.setdefault(key, []).append((labels, value))
        self._gauges: dict[tuple[str, str], list[int]] = {}
        for (name, labels), by_slot in snapshot.gauges.items():
            key = name, dict(labels).get("arm", "")
            self._gauges.setdefault(key, []).extend(by_slot.values())

    def counter(self, name: str, arm: str) -> int:
        """Sum of a counter of an arm."""
        return sum(value for _, value in self._counters.get((name, arm), ()))

    def gauge(self, name: str, arm: str) -> list[int]:
        """Values of a gauge of an arm, of each worker."""
        return self._gauges.get((name, arm), [])

    def mirror(self, arm: str, recent: bool = False) -> dict[str, int]:
        """Mirrored requests by outcome."""
        if recent:
            return _by("outcome", dict(self._recent_mirror.get(arm, ())))
        return _by("outcome", dict(self._counters.get(("mirror", arm), ())))

    def windows(self, arm: str, role: str) -> dict[str, Any]:
        """Summaries of an arm in a role, by window."""
        return {
            name: _window(found.get(arm, ()), role, self._seconds[name])
            for name, found in self._durations.items()
        }

    def brief(self, name: str, arm: str, role: str) -> dict[str, Any]:
        """A sketch of an arm in a role within the last minute."""
        whole = Distribution()
        for labels, distribution in self._minute[name].get(arm, ()):
            if dict(labels).get("role") == role:
                whole.add(distribution)
        values = summary(whole, 0.0)
        return {key: values[key] for key in ("count", "p50", "p99", "max")}


_T = TypeVar("_T")


def _by_arm(found: Mapping[Labels, _T]) -> dict[str, list[tuple[Labels, _T]]]:
    arms: dict[str, list[tuple[Labels, _T]]] = {}
    for labels, value in found.items():
        arms.setdefault(dict(labels).get("arm", ""), []).append((labels, value))
    return arms


def _window(
    found: Iterable[tuple[Labels, Distribution]], role: str, seconds: float
) -> dict[str, Any]:
    """Summary of one arm in one role (primary or mirror), with its errors and the summary of each
    outcome."""
    whole = Distribution()
    by_outcome: dict[str, Distribution] = {}
    for labels, distribution in found:
        have = dict(labels)
        if have.get("role") != role:
            continue
        whole.add(distribution)
        outcome = have.get("outcome", "")
        by_outcome.setdefault(outcome, Distribution()).add(distribution)
    total = whole.count
    errors = sum(d.count for outcome, d in by_outcome.items() if outcome not in NOT_ERRORS)
    return {
        "seconds": round(seconds, 3),
        **summary(whole, seconds),
        "errors": errors,
        "error_rate": errors / total if total else None,
        "outcomes": {
            outcome: summary(distribution, seconds)
            for outcome, distribution in sorted(by_outcome.items())
        },
    }


def _by(label: str, values: Mapping[Labels, int]) -> dict[str, int]:
    """Sums by one label."""
    sums: dict[str, int] = {}
    for labels, value in values.items():
        if value:
            key = dict(labels).get(label, "")
            sums[key] = sums.get(key, 0) + value
    return dict(sorted(sums.items()))


def _arm(figures: Figures, service: ArmService) -> dict[str, Any]:
    arm = service.arm
    mirrored = service.role in ("mirrored", "unused")
    # Mirrored requests are another measurement than those of clients: never in one figure.
    of_role = {role: figures.windows(arm, role) for role in ("primary", "mirror")}
    measured = "mirror" if mirrored else "primary"
    other = "primary" if mirrored else "mirror"
    cold = [value / 1e6 for value in figures.gauge("cold_start_us", arm) if value]
    result: dict[str, Any] = {
        "arm": arm,
        **service.to_dict(),
        "measured": measured,
        "in_flight": sum(figures.gauge("in_flight", arm)),
        "windows": of_role[measured],
        "other_windows": of_role[other] if of_role[other][START]["count"] else None,
        "first_byte": figures.brief("first_byte", arm, measured),
        "queue": figures.brief("queue", arm, measured),
        "pool": {
            state: sum(figures.gauge(f"pool_{state}", arm)) for state in ("idle", "busy", "waiting")
        },
        "connects": figures.counter("upstream_connects", arm),
        "connect_failures": figures.counter("upstream_connect_failures", arm),
        "retries": figures.counter("retries", arm),
        "request_bytes": figures.counter("request_bytes", arm),
        "response_bytes": figures.counter("response_bytes", arm),
        "cold_starts": figures.counter("cold_starts", arm),
        "cold_start_seconds": max(cold) if cold else None,
        "mirror": None,
    }
    if service.challenger:
        outcomes = figures.mirror(arm)
        result["mirror"] = {
            "outcomes": outcomes,
            "outcomes_1m": figures.mirror(arm, recent=True),
            "not_sent": sum(n for outcome, n in outcomes.items() if outcome in NOT_SENT),
            "queue": sum(figures.gauge("mirror_queue", arm)),
            "rate": service.mirror_rate,
            "breaker": dict(service.mirror_breaker),
        }
    return result


def _arms(figures: Figures, arms: Iterable[ArmService]) -> list[dict[str, Any]]:
    return [_arm(figures, arm) for arm in arms]


def predictions(plane: EvaluationPlane) -> list[dict[str, Any]]:
    """Prediction summaries by arm, the champion first; of hidden outputs only counts."""
    order = {arm: place for place, arm in enumerate(plane.settings.arms)}
    known = plane.pipeline.predictions
    return [
        {
            **{"model": model, "version": version, "arm": arm, "prediction": name},
            **seen(plane.redaction, name, stats.summary()),
        }
        for model, version, arm in sorted(known, key=lambda key: order.get(key[2], len(order)))
        for name, stats in known[model, version, arm].by_name.items()
    ]


def seen(redaction: Redaction, name: str, summary: dict[str, Any]) -> dict[str, Any]:
    """The redacted summary of a column: of a hidden one only counts, since its classes, minimum and
    maximum are values of single rows."""
    if not redaction.hides(name):
        return summary
    return {key: _UNSEEN.get(key, value) for key, value in summary.items()}


def undecodable(plane: EvaluationPlane) -> list[dict[str, Any]]:
    """Counts of payloads that could not be decoded."""
    return [
        {
            "model": model,
            "version": version,
            "arm": arm,
            "part": part,
            "reason": reason,
            "count": count,
        }
        for (model, version, arm, part, reason), count in sorted(plane.pipeline.undecodable.items())
    ]


def _of(use: Mapping[str, ProcessUse], process: str, figure: str) -> float | None:
    found = use.get(process)
    return None if found is None else getattr(found, figure)


async def status(plane: EvaluationPlane) -> dict[str, Any]:
    """The whole document, as plain data. Durations in seconds, sizes in bytes.

    The figures of the arms, which may be many, are computed in another thread.
    """
    snapshot = await plane.fresh_snapshot()
    run_seconds = plane.run_seconds()
    problems = plane.problems(snapshot)
    service = plane.service(snapshot)
    windows = plane.windows.copy()
    arms = await asyncio.to_thread(
        lambda: _arms(Figures(snapshot, windows, run_seconds), service.arms)
    )
    tokens = language_models(plane)
    for arm in arms:
        arm["language_models"] = tokens.get(arm["arm"], [])
    supervisor = plane.supervisor
    use = dict(uses(snapshot.slots, supervisor))
    workers = {int(worker["slot"]): worker for worker in supervisor.workers}
    dropped = _by("reason", snapshot.counters_named("records_dropped"))
    eligible = snapshot.counter("records_eligible")
    sent = snapshot.counter("records_sent")
    loop = plane.pipeline.findings_loop
    return {
        "time": time.time(),
        "version": __version__,
        "run": plane.run,
        "run_seconds": run_seconds,
        "ready": not problems,
        "problems": problems,
        "warnings": plane.warnings(service, snapshot),
        "config": {"generation": supervisor.generation, "error": supervisor.config_error},
        "workers": [
            {
                "slot": slot,
                "pid": pid,
                "restarts": int(workers.get(slot, {}).get("restarts", 0)),
                "killed": workers.get(slot, {}).get("killed", {}),
                "memory_bytes": _of(use, f"worker-{slot}", "memory_bytes"),
                "cpu_seconds": _of(use, f"worker-{slot}", "cpu_seconds"),
            }
            for slot, pid in sorted(snapshot.slots.items())
        ],
        "evaluation": {
            "pid": os.getpid(),
            "restarts": supervisor.evaluation_restarts,
            "killed": supervisor.evaluation_killed,
            "memory_bytes": _of(use, "evaluation", "memory_bytes"),
            "cpu_seconds": _of(use, "evaluation", "cpu_seconds"),
        },
        "arms": arms,
        "records": {
            "eligible": eligible,
            "sent": sent,
            "dropped": dropped,
            "pending": max(0, eligible - sent - sum(dropped.values())),
            "lost": snapshot.counter("records_lost"),
            "evaluated": plane.pipeline.records,
        },
        "rejected": _by("reason", snapshot.counters_named("rejected")),
        "connections": {
            "open": snapshot.gauge("connections_open"),
            "accepted": snapshot.counter("connections_accepted"),
        },
        "predictions": predictions(plane),
        "undecodable": undecodable(plane),
        "served": plane.pipeline.served.document(),
        "findings": in_short(loop.service.ledger.incidents(), time.time()) if loop else {"open": 0},
        "watched": loop.watches.in_short() if loop else [],
        "not_tested": loop.watches.untested() if loop else [],
        "experiments": [
            summary_of(live, time.time())
            for live in (plane.experiments.live.values() if plane.experiments else ())
        ],
        "ended_experiments": (
            plane.experiments.ended.summaries()[:10] if plane.experiments else []
        ),
        "state": {"error": plane.saver.error, "write_failures": plane.saver.failures},
        "kafka": plane.mode.summary(),
    }
