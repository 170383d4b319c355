"""Alertmanager's API, version 2: everything that is open, again and again, and what has ended.

An alert is known by its labels, so they hold what stays the same while a finding lasts and when it
comes back; when its severity changes the alert of the old one ends. Alertmanager groups, repeats
and routes by itself; our own notices are only that something holds or has ended.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from understudy.monitor.config.notify import RESEND_SECONDS
from understudy.monitor.findings import words
from understudy.monitor.findings.channels.base import Channel, Source
from understudy.monitor.findings.finding import Finding

PATH = "/api/v2/alerts"
_MAX_LABEL = 200
_MAX_KEY = 512


class Alertmanager(Channel):
    """What was told of each finding are the ``labels`` of its alert, the ``revision``, and
    ``start``."""

    _sent = 0.0

    @property
    def resend(self) -> float:
        """Seconds between two messages about the same."""
        return self.config.resend or RESEND_SECONDS

    def pending(self, source: Source, now: float) -> int:
        """Findings of which Alertmanager does not know how they are."""
        firing = self._firing(source, now)
        news = sum(self._is_news(finding) for finding in firing)
        return news + len(self._ended(firing))

    def _firing(self, source: Source, now: float) -> list[Finding]:
        wanted = [finding for finding in source.open() if self.wants(finding, now)]
        new = [finding for finding in wanted if finding.id not in self.told][: self.places()]
        kept = {finding.id for finding in new} | self.told.keys()
        return [finding for finding in wanted if finding.id in kept]

    def _is_news(self, finding: Finding) -> bool:
        known = self.told.get(finding.id)
        return known is None or known.get("revision") != finding.revision

    def _ended(self, firing: list[Finding]) -> list[tuple[str, dict[str, str], float]]:
        """Id, labels and start of alerts that no longer hold: closed, silenced, below the severity
        that is wanted, or under other labels."""
        lasting = {finding.id: self.labels(finding) for finding in firing}
        return [
            (id_, dict(known["labels"]), float(known["start"]))
            for id_, known in self.told.items()
            if lasting.get(id_) != known["labels"]
        ]

    async def step(self, source: Source, now: float) -> bool:
        """Send everything at once, when something is new or it is time."""
        if not self.backoff.ready(now):
            return False
        firing = self._firing(source, now)
        ended = self._ended(firing)
        due = ended or any(self._is_news(finding) for finding in firing)
        if not due and (not firing or 0.0 <= now - self._sent < self.resend):
            return False
        lasting = [self.labels(finding) for finding in firing]
        alerts = [
            {"labels": labels, "startsAt": words.moment(start), "endsAt": words.moment(now)}
            for _, labels, start in ended
            # A finding that ended and another one of the same key are the same alert.
            if labels not in lasting
        ]
        alerts += [self._alert(finding, now) for finding in firing]
        outcome = await self.send(PATH, lambda: (orjson.dumps(alerts), {}), now)
        if outcome == "failed":
            return False
        self._sent = now
        for id_, _, _ in ended:
            self.told.pop(id_, None)
        for finding in firing:
            self.told[finding.id] = {
                "revision": finding.revision,
                "labels": self.labels(finding),
                "start": finding.opened,
            }
        return True

    def labels(self, finding: Finding) -> dict[str, str]:
        """What the alert is known by; empty ones are left out, as Alertmanager does."""
        signal = finding.signal
        labels = {
            **self.config.labels,
            "alertname": f"Understudy{signal.kind.capitalize()}",
            "model": signal.model,
            "version": signal.version,
            "segment": signal.segment,
            "kind": signal.kind,
            "severity": signal.severity,
        }
        labels = {name: value[:_MAX_LABEL] for name, value in labels.items() if value}
        return {**labels, "key": signal.key[:_MAX_KEY]}

    def _alert(self, finding: Finding, now: float) -> dict[str, Any]:
        signal = finding.signal
        annotations = {
            "summary": signal.title,
            "description": signal.advice,
            "features": "\n".join(words.features(signal)),
            "size": words.size(signal.size) if signal.size is not None else "",
            "since": words.moment(signal.since) if signal.since is not None else "",
            "change": finding.change,
            "rule": signal.rule,
            "guarantee": signal.guarantee,
            "examples": ", ".join(signal.examples),
            "finding": finding.id,
            "acknowledged": finding.notes[-1].who if finding.acknowledged else "",
        }
        alert: dict[str, Any] = {
            "labels": self.labels(finding),
            "annotations": {name: text for name, text in annotations.items() if text},
            "startsAt": words.moment(finding.opened),
            "endsAt": words.moment(now + 4.0 * self.resend),
        }
        link = self.config.link
        if link:
            alert["generatorURL"] = f"{link.rstrip('/')}/v1/findings/{finding.id}"
        return alert

    def can_be_told(self, known: object) -> bool:
        """Whether a value of ``told`` that was saved can be used."""
        if not isinstance(known, Mapping):
            return False
        return isinstance(known.get("labels"), Mapping) and isinstance(
            known.get("start"), (int, float)
        )
