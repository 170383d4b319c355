"""Alertmanager's API, version 2: open findings are sent repeatedly, closed ones once.

Labels identify an alert, so they hold what stays the same while a finding is open and when it is
reopened; when the severity changes, the alert with the old severity ends. Alertmanager groups,
repeats and routes by itself: this channel only reports that a finding is open or has closed. The
findings of an incident share their model and version, by which Alertmanager makes one notification
of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import orjson

from understudy.monitor.config.notify import RESEND_SECONDS
from understudy.monitor.config.runbooks import alert_name
from understudy.monitor.findings import words
from understudy.monitor.findings.channels.base import Channel, Probe, Source
from understudy.monitor.findings.finding import Finding

PATH = "/api/v2/alerts"
_MAX_LABEL = 200
_MAX_KEY = 512


class Alertmanager(Channel):
    """Of each finding it stores the ``labels`` of the alert, the ``revision``, and ``start``."""

    probe = Probe("GET", "/api/v2/status", accepts=lambda reply: reply.status == 200)
    _sent = 0.0

    @property
    def resend(self) -> float:
        """Seconds between two messages about the same alerts."""
        return self.config.resend or RESEND_SECONDS

    def pending(self, source: Source, now: float) -> int:
        """Number of findings whose present state Alertmanager does not know."""
        firing = self._firing(source, now)
        changed = sum(self._is_changed(finding) for finding in firing)
        return changed + len(self._ended(firing))

    def _firing(self, source: Source, now: float) -> list[Finding]:
        wanted = [finding for finding in source.open() if self.wants(finding, now)]
        new = [finding for finding in wanted if finding.id not in self.notified][
            : self.free_slots()
        ]
        sent = {finding.id for finding in new} | self.notified.keys()
        return [finding for finding in wanted if finding.id in sent]

    def _is_changed(self, finding: Finding) -> bool:
        known = self.notified.get(finding.id)
        return known is None or known.get("revision") != finding.revision

    def _ended(self, firing: list[Finding]) -> list[tuple[str, dict[str, str], float]]:
        """Id, labels and start of alerts that have ended: the finding closed, was silenced, fell
        below the wanted severity, or has other labels now."""
        current = {finding.id: self.labels(finding) for finding in firing}
        return [
            (id_, dict(known["labels"]), float(known["start"]))
            for id_, known in self.notified.items()
            if current.get(id_) != known["labels"]
        ]

    async def step(self, source: Source, now: float) -> bool:
        """Send all alerts in one request, when one has changed or a resend is due."""
        if not self.backoff.ready(now):
            return False
        firing = self._firing(source, now)
        ended = self._ended(firing)
        due = ended or any(self._is_changed(finding) for finding in firing)
        if not due and (not firing or 0.0 <= now - self._sent < self.resend):
            return False
        current = [self.labels(finding) for finding in firing]
        alerts = [
            {"labels": labels, "startsAt": words.moment(start), "endsAt": words.moment(now)}
            for _, labels, start in ended
            # A closed finding and an open one with the same key are the same alert.
            if labels not in current
        ]
        headlines = {one.id: one.headline for one in source.incidents()}
        alerts += [self._alert(finding, headlines, now) for finding in firing]
        outcome = await self.send(PATH, lambda: (orjson.dumps(alerts), {}), now)
        if outcome == "failed":
            return False
        self._sent = now
        for id_, _, _ in ended:
            self.notified.pop(id_, None)
        for finding in firing:
            self.notified[finding.id] = {
                "revision": finding.revision,
                "labels": self.labels(finding),
                "start": finding.opened,
            }
        return True

    def labels(self, finding: Finding) -> dict[str, str]:
        """The labels that identify the alert; empty ones are left out, as Alertmanager does."""
        signal = finding.signal
        labels = {
            **self.config.labels,
            "alertname": alert_name(signal.kind),
            "model": signal.model,
            "version": signal.version,
            "segment": signal.segment,
            "kind": signal.kind,
            "severity": signal.severity,
        }
        labels = {name: value[:_MAX_LABEL] for name, value in labels.items() if value}
        return {**labels, "key": signal.key[:_MAX_KEY]}

    def _alert(self, finding: Finding, headlines: Mapping[str, str], now: float) -> dict[str, Any]:
        signal = finding.signal
        page = self.page(finding)
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
            "incident": finding.incident,
            "headline": headlines.get(finding.incident, ""),
            "runbook_url": self.runbook(finding),
            "finding_url": page or "",
            "acknowledged": finding.notes[-1].who if finding.acknowledged else "",
        }
        alert: dict[str, Any] = {
            "labels": self.labels(finding),
            "annotations": {name: text for name, text in annotations.items() if text},
            "startsAt": words.moment(finding.opened),
            "endsAt": words.moment(now + 4.0 * self.resend),
        }
        if page:
            alert["generatorURL"] = page
        return alert

    def is_valid_entry(self, known: object) -> bool:
        """Whether a value of ``notified`` that was saved can be used."""
        if not isinstance(known, Mapping):
            return False
        return isinstance(known.get("labels"), Mapping) and isinstance(
            known.get("start"), (int, float)
        )
