"""Findings and what experiments do, as events. Nothing of the SDK is used here."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from understudy.monitor.findings.changes import Change
from understudy.monitor.telemetry.otlp.spans import Value
from understudy.shadow.rollout.state import TERMINAL

_KINDS = {"opened": "opened", "reopened": "opened", "closed": "closed"}
"""Of a change, the name of its event; all others are ``changed``."""


@dataclass(frozen=True, slots=True)
class Event:
    """``at`` is unix time in seconds; ``severity`` is info, warning or critical."""

    name: str
    at: float
    severity: str
    body: str
    attributes: dict[str, Value]

    @property
    def size(self) -> int:
        """Bytes in memory, about."""
        return 512 + len(self.body) + sum(len(str(value)) for value in self.attributes.values())


def finding_events(changes: Iterable[Change]) -> Iterator[Event]:
    """``understudy.finding.opened``, ``.changed`` and ``.closed``."""
    for change in changes:
        finding, signal = change.finding, change.finding.signal
        attributes: dict[str, Value] = {
            "understudy.finding.id": finding.id,
            "understudy.finding.key": finding.key,
            "understudy.finding.kind": signal.kind,
            "understudy.finding.severity": signal.severity,
            "understudy.finding.change": change.kind,
            "understudy.finding.incident": finding.incident,
        }
        for name in ("model", "version"):
            if getattr(signal, name):
                attributes[f"understudy.{name}"] = getattr(signal, name)
        if signal.size is not None:
            attributes[f"understudy.finding.size.{signal.size.name}"] = signal.size.value
        body = f"{signal.title}: {change.detail}" if change.detail else signal.title
        kind = _KINDS.get(change.kind, "changed")
        severity = "info" if kind == "closed" else signal.severity
        yield Event(f"understudy.finding.{kind}", change.at, severity, body, attributes)


def experiment_events(events: Iterable[Mapping[str, Any]]) -> Iterator[Event]:
    """``understudy.experiment.decision`` for the end of a rollout, else ``.step``; ``events`` are
    those of the audit log."""
    for event in events:
        ended = event["phase"] in TERMINAL
        attributes: dict[str, Value] = {
            "understudy.experiment": event["experiment"],
            "understudy.arm": event["challenger"],
            "understudy.experiment.event": event["kind"],
            "understudy.experiment.stage": event["stage"],
            "understudy.experiment.phase": event["phase"],
            "understudy.experiment.weight": float(event["weight"]),
        }
        if event.get("reasons"):
            attributes["understudy.experiment.reasons"] = "; ".join(map(str, event["reasons"]))
        yield Event(
            f"understudy.experiment.{'decision' if ended else 'step'}",
            float(event["at"]),
            "info",
            f"{event['experiment']}: {event['challenger']}: {event['kind']}: {event['why']}",
            attributes,
        )
