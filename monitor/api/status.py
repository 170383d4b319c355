"""The status document: what ``top``, the web page and the demo show."""

from __future__ import annotations

import os
import time
from typing import Any

from understudy import __version__
from understudy.monitor.console.findings import in_short
from understudy.monitor.experiments.summary import summary as summary_of
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.records.redaction import Redaction
from understudy.monitor.routing.serving import NOT_ERRORS, NOT_SENT, ArmService
from understudy.monitor.stats.distribution import Distribution, summary
from understudy.monitor.stats.reader import Labels, Snapshot
from understudy.monitor.stats.windows import WINDOW_NAMES, WINDOWS, since_start
from understudy.monitor.telemetry.processes import uses

START = "start"
_UNSEEN: dict[str, Any] = {"mean": None, "std": None, "min": None, "max": None, "classes": {}}
"""Parts of a hidden column's summary that are not shown."""


def _of_arm(labels: Labels, arm: str) -> bool:
    return dict(labels).get("arm") == arm


def _window(
    sketches: dict[Labels, Distribution], arm: str, role: str, seconds: float
) -> dict[str, Any]:
    """Summary of one arm in one role (primary or mirror), with its errors and the summary of each
    outcome."""
    whole = Distribution()
    by_outcome: dict[str, Distribution] = {}
    for labels, distribution in sketches.items():
        have = dict(labels)
        if (have.get("arm"), have.get("role")) != (arm, role):
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


def _by(label: str, values: dict[Labels, int], arm: str | None = None) -> dict[str, int]:
    """Sums by one label, of one arm or of all."""
    sums: dict[str, int] = {}
    for labels, value in values.items():
        if value and (arm is None or _of_arm(labels, arm)):
            key = dict(labels).get(label, "")
            sums[key] = sums.get(key, 0) + value
    return dict(sorted(sums.items()))


def _windows(
    plane: EvaluationPlane, snapshot: Snapshot, arm: str, role: str, run_seconds: float
) -> dict[str, Any]:
    windows = plane.windows
    shown = {
        name: _window(windows.sketches("duration", seconds), arm, role, windows.covered(seconds))
        for name, seconds in zip(WINDOW_NAMES, WINDOWS, strict=True)
    }
    shown[START] = _window(since_start(snapshot, "duration"), arm, role, run_seconds)
    return shown


def _arm(
    plane: EvaluationPlane, snapshot: Snapshot, service: ArmService, run_seconds: float
) -> dict[str, Any]:
    windows, arm = plane.windows, service.arm
    mirrored = service.role in ("mirrored", "unused")
    # Mirrored requests are another measurement than those of clients: never in one figure.
    of_role = {
        role: _windows(plane, snapshot, arm, role, run_seconds) for role in ("primary", "mirror")
    }
    measured = "mirror" if mirrored else "primary"
    other = "primary" if mirrored else "mirror"

    def gauge(name: str) -> list[int]:
        return [
            value
            for labels, by_slot in snapshot.gauges_named(name).items()
            if _of_arm(labels, arm)
            for value in by_slot.values()
        ]

    cold = [value / 1e6 for value in gauge("cold_start_us") if value]
    result: dict[str, Any] = {
        "arm": arm,
        **service.to_dict(),
        "measured": measured,
        "in_flight": sum(gauge("in_flight")),
        "windows": of_role[measured],
        "other_windows": of_role[other] if of_role[other][START]["count"] else None,
        "first_byte": _brief(windows.sketches("first_byte", WINDOWS[1]), arm, measured),
        "queue": _brief(windows.sketches("queue", WINDOWS[1]), arm, measured),
        "pool": {state: sum(gauge(f"pool_{state}")) for state in ("idle", "busy", "waiting")},
        "connects": snapshot.counter("upstream_connects", arm=arm),
        "connect_failures": snapshot.counter("upstream_connect_failures", arm=arm),
        "retries": snapshot.counter("retries", arm=arm),
        "request_bytes": snapshot.counter("request_bytes", arm=arm),
        "response_bytes": snapshot.counter("response_bytes", arm=arm),
        "cold_starts": snapshot.counter("cold_starts", arm=arm),
        "cold_start_seconds": max(cold) if cold else None,
        "mirror": None,
    }
    if service.challenger:
        outcomes = snapshot.counters_named("mirror")
        recent = windows.counters("mirror", WINDOWS[1])
        result["mirror"] = {
            "outcomes": _by("outcome", outcomes, arm),
            "outcomes_1m": _by("outcome", recent, arm),
            "not_sent": sum(
                n for outcome, n in _by("outcome", outcomes, arm).items() if outcome in NOT_SENT
            ),
            "queue": sum(gauge("mirror_queue")),
            "rate": service.mirror_rate,
            "breaker": dict(service.mirror_breaker),
        }
    return result


def _brief(sketches: dict[Labels, Distribution], arm: str, role: str) -> dict[str, Any]:
    whole = Distribution()
    for labels, distribution in sketches.items():
        if _of_arm(labels, arm) and dict(labels).get("role") == role:
            whole.add(distribution)
    values = summary(whole, 0.0)
    return {name: values[name] for name in ("count", "p50", "p99", "max")}


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


def status(plane: EvaluationPlane) -> dict[str, Any]:
    """The whole document, as plain data. Durations in seconds, sizes in bytes."""
    snapshot = plane.snapshot()
    run_seconds = plane.run_seconds()
    problems = plane.problems(snapshot)
    service = plane.service(snapshot)
    supervisor = plane.supervisor
    use = {pid: process_use for _, pid, process_use in uses(snapshot.slots)}
    restarts = {int(w["slot"]): int(w.get("restarts", 0)) for w in supervisor.workers}
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
        "warnings": plane.warnings(service),
        "config": {"generation": supervisor.generation, "error": supervisor.config_error},
        "workers": [
            {
                "slot": slot,
                "pid": pid,
                "restarts": restarts.get(slot, 0),
                "memory_bytes": use[pid].memory_bytes if pid in use else None,
                "cpu_seconds": use[pid].cpu_seconds if pid in use else None,
            }
            for slot, pid in sorted(snapshot.slots.items())
        ],
        "evaluation": {
            "pid": os.getpid(),
            "restarts": supervisor.evaluation_restarts,
            "memory_bytes": use[os.getpid()].memory_bytes if os.getpid() in use else None,
            "cpu_seconds": use[os.getpid()].cpu_seconds if os.getpid() in use else None,
        },
        "arms": [_arm(plane, snapshot, arm, run_seconds) for arm in service.arms],
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
