"""What happens, as events: findings, experiments, circuit breakers, and what is known of single
answers. Nothing of the SDK is used here."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from understudy.monitor.config.experiment import Label
from understudy.monitor.config.model import Config
from understudy.monitor.evidence.mirrored import Compared
from understudy.monitor.evidence.observe import of_label
from understudy.monitor.evidence.pending import TRACE
from understudy.monitor.findings.changes import Change
from understudy.monitor.labels.store import Joined
from understudy.monitor.pipeline.served import VersionChange
from understudy.monitor.proxy.breaker import CLOSED, OPEN
from understudy.monitor.records.record import ROLE_MIRROR
from understudy.monitor.records.trace import SpanIds, span_ids
from understudy.monitor.telemetry.otlp.gen_ai import Value
from understudy.shadow.rollout.state import TERMINAL

EVALUATION = "gen_ai.evaluation.result"
"""https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-events/"""
_BREAKERS = {"serving_breaker": "primary", "breaker": "mirror"}
"""Gauges of workers, and the role of the requests that they allow."""
_MOST_TEXT = 1024
_KINDS = {"opened": "opened", "reopened": "opened", "closed": "closed"}
"""Of a change, the name of its event; all others are ``changed``."""


@dataclass(frozen=True, slots=True)
class Event:
    """``at`` is unix time in seconds; ``severity`` is info, warning or critical. ``trace`` and
    ``span`` are what it is about, 0 if nothing."""

    name: str
    at: float
    severity: str
    body: str
    attributes: dict[str, Value]
    trace: int = 0
    span: int = 0
    sampled: bool = False

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


def version_event(change: VersionChange) -> Event:
    """``understudy.model.version_changed``."""
    attributes: dict[str, Value] = {
        "understudy.model": change.model,
        "understudy.arm": change.arm,
        "understudy.request_id": change.request_id,
        "understudy.model.version.before": change.before,
        "understudy.model.version.after": change.after,
    }
    if change.version:
        attributes["understudy.version"] = change.version
    return Event("understudy.model.version_changed", change.at, "warning", change.words, attributes)


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


@dataclass(slots=True)
class BreakerWatch:
    """Notices circuit breakers that open and close, from the states that the workers publish."""

    _open: dict[tuple[str, str], int] = field(default_factory=dict)

    def events(
        self, gauges: Callable[[str], Mapping[tuple[tuple[str, str], ...], Mapping[int, float]]]
    ) -> Iterator[Event]:
        """``understudy.breaker.opened`` for the first worker whose breaker for an arm opens, and
        ``.closed`` when it is closed in all. ``gauges`` gives states by labels and slot."""
        now = time.time()
        found: dict[tuple[str, str], int] = {}
        for name, role in _BREAKERS.items():
            for labels, by_slot in gauges(name).items():
                key = dict(labels).get("arm", ""), role
                count = sum(state == OPEN for state in by_slot.values())
                # One that lets a probe pass has not closed yet.
                if count or (key in self._open and any(map(CLOSED.__ne__, by_slot.values()))):
                    found[key] = count
        for key in sorted(found.keys() ^ self._open.keys()):
            arm, role = key
            opened = key in found
            attributes: dict[str, Value] = {"understudy.arm": arm, "understudy.role": role}
            if opened:
                attributes["understudy.breaker.workers"] = found[key]
            text = f"circuit breaker for {arm} ({role}) {'opened' if opened else 'closed'}"
            kind, severity = ("opened", "warning") if opened else ("closed", "info")
            yield Event(f"understudy.breaker.{kind}", now, severity, text, attributes)
        self._open = found


def comparison_event(compared: Compared) -> Event:
    """The result of comparing the challenger's answer with the champion's, about the challenger's:
    1 where they agree, else 0."""
    names, record = compared.challenger
    model, version, _ = names.model(record.model)
    attributes: dict[str, Value] = {
        "gen_ai.evaluation.name": "agreement",
        "gen_ai.evaluation.score.value": 1.0 if compared.agree else 0.0,
        "gen_ai.evaluation.score.label": "agrees" if compared.agree else "differs",
        "understudy.model": model,
        "understudy.arm": names.arm(record.arm),
        "understudy.experiment": compared.experiment,
        "understudy.request_id": record.request_id.decode("utf-8", "replace"),
    }
    if version:
        attributes["understudy.version"] = version
    if compared.difference:
        attributes["gen_ai.evaluation.explanation"] = compared.difference[:_MOST_TEXT]
    ids: SpanIds | None = None
    if record.span:
        ids = span_ids(record.trace_id, record.span)
    return Event(
        EVALUATION,
        compared.at,
        "info",
        f"{names.arm(record.arm)} {'agrees with' if compared.agree else 'differs from'} "
        f"{compared.champion[0].arm(compared.champion[1].arm)}",
        attributes,
        ids.trace if ids is not None else 0,
        0 if ids is None else ids.client if record.role == ROLE_MIRROR else ids.server,
        record.sampled,
    )


class LabelScores:
    """What a label says of the prediction that it belongs to, by the configuration."""

    def __init__(self, config: Config) -> None:
        self._rules: dict[str, tuple[Label, float | None]] = {}
        first = config.models[0].name if config.models else ""
        for declared in config.experiments:
            if declared.label is not None:
                self._rules.setdefault(declared.model or first, (declared.label, None))
        for model in config.models:
            known = model.performance
            if known is not None:
                label = Label(prediction=known.prediction, threshold=known.threshold)
                self._rules.setdefault(model.name, (label, known.tolerance))

    def events(self, joined: Joined) -> Iterator[Event]:
        """A result for the label and one for the reward, of those that there are."""
        if joined.reward is not None:
            yield self._event(joined, "reward", float(joined.reward), "")
        rule = self._rules.get(joined.model)
        if joined.label is None or rule is None:
            return
        label, tolerance = rule
        values = of_label(joined.outputs, joined.label, label)
        error = values.get("absolute_error")
        pair = joined.outputs.get(label.prediction), joined.label
        if error is not None and tolerance is not None:
            values["correct"] = float(error <= tolerance)
        elif error is not None and label.threshold is None and not all(map(_is_class, pair)):
            yield self._event(joined, "absolute_error", error, "")
            return
        if "correct" in values:
            text = "correct" if values["correct"] else "wrong"
            yield self._event(joined, "correct", values["correct"], text)

    def _event(self, joined: Joined, name: str, value: float, text: str) -> Event:
        attributes: dict[str, Value] = {
            "gen_ai.evaluation.name": name,
            "gen_ai.evaluation.score.value": value,
            "understudy.model": joined.model,
            "understudy.arm": joined.arm,
            "understudy.role": "mirror" if joined.mirrored else "primary",
            "understudy.request_id": joined.request_id,
            "understudy.label.row": joined.row,
            "understudy.label.delay_seconds": joined.delay,
        }
        if text:
            attributes["gen_ai.evaluation.score.label"] = text
        if joined.experiment:
            attributes["understudy.experiment"] = joined.experiment
        trace, span = _ids(joined.outputs.get(TRACE))
        return Event(
            EVALUATION,
            joined.received,
            "info",
            f"{joined.arm}: {name} {value:g}",
            attributes,
            trace,
            span,
        )


def _ids(of: object) -> tuple[int, int]:
    trace, _, span = str(of or "").partition("-")
    try:
        return int(trace, 16), int(span, 16)
    except ValueError:
        return 0, 0


def _is_class(cell: object) -> bool:
    return not isinstance(cell, float) or cell.is_integer()
