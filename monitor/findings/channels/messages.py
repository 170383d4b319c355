"""Channels that send one message per change of an incident."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from understudy.monitor.config.notify import Notification
from understudy.monitor.findings.channels.base import Channel, Source
from understudy.monitor.findings.finding import Finding
from understudy.monitor.findings.incident import Incident

QUIET_SECONDS = 60.0
"""After a message about an incident, changes that are not urgent wait that long and are sent
together."""


@dataclass(frozen=True, slots=True)
class Message:
    """``event`` is the kind of change as this receiver sees it, or ``reminder``. ``incident`` has
    the findings that concern the receiver; of these, ``changed`` are news. ``sent`` are the ids
    that it knew before."""

    event: str
    incident: Incident
    changed: tuple[Finding, ...]
    sent: frozenset[str]

    @property
    def finding(self) -> Finding:
        """The finding that the message is about first of all: of the news, if they are not all."""
        if self.event in ("opened", "reopened", "reminder", "closed") or not self.changed:
            return self.incident.lead
        return self.changed[0]

    @property
    def change(self) -> str:
        """What changed, in one line."""
        if len(self.incident.findings) == 1:
            return self.finding.change
        return "; ".join(self._told(finding) for finding in self.changed[:5])

    def _told(self, finding: Finding) -> str:
        title = finding.signal.title
        if not finding.open:
            return f"closed: {title} ({finding.reason})"
        if finding.id not in self.sent or finding.event == "opened":
            return f"new: {title}"
        return f"{title}: {finding.event}" + (f", {finding.change}" if finding.change else "")

    @property
    def delivery(self) -> str:
        """Delivery id: the same each time that the message is sent."""
        revisions = sum(finding.revision for finding in self.incident.findings)
        return f"{self.incident.id}.{revisions}.{self.event}"


class MessageChannel(Channel):
    """Of each incident it stores the revisions of its ``findings`` that were sent, the time ``at``,
    and the ``severity`` as a rank."""

    def __init__(self, config: Notification, rng: random.Random | None = None) -> None:
        super().__init__(config, rng)
        self._tries: Counter[str] = Counter()
        """Failed attempts by incident, so that one that always fails does not block the others."""
        self._next = 0.0

    @abstractmethod
    def render(self, message: Message, now: float) -> tuple[bytes, dict[str, str]]:
        """Body and headers. Raises DeliveryError when the message cannot be built."""

    def due(self, source: Source, now: float) -> list[Message]:
        """The messages to send, in order."""
        messages = [self._closing(incident) for incident in self.newly_closed(source, now)]
        free_slots = self.free_slots()
        for incident in source.incidents():
            message = self._message(incident, now)
            new = incident.id not in self.notified
            if message is not None and (not new or free_slots > 0):
                free_slots -= new
                messages.append(message)
        self._tries = Counter({m.incident.id: self._tries[m.incident.id] for m in messages})
        return sorted(
            messages,
            key=lambda m: (
                self._tries[m.incident.id], -m.incident.severity, m.finding.changed
            ),
        )  # fmt: skip

    def _closing(self, incident: Incident) -> Message:
        sent = frozenset(self.notified[incident.id]["findings"])
        known = incident.only(sent)
        known = known if known.findings else incident
        return Message("closed", known, known.findings, sent)

    def _message(self, incident: Incident, now: float) -> Message | None:
        """What is due about an open incident; None for nothing."""
        entry = self.notified.get(incident.id)
        wanted = [finding for finding in incident.open_findings if self.wants(finding, now)]
        if entry is None:
            if not wanted:
                return None
            event = "reopened" if all(finding.reopened for finding in wanted) else "opened"
            chosen = incident.only(finding.id for finding in wanted)
            return Message(event, chosen, chosen.findings, frozenset())
        sent = frozenset(entry["findings"])
        chosen = incident.only({*sent, *(finding.id for finding in wanted)})
        if not chosen.open:
            # What is left of the incident does not concern this receiver.
            return self._closing(incident) if chosen.findings else None
        changed = tuple(
            finding
            for finding in chosen.findings
            if entry["findings"].get(finding.id) != finding.revision and not finding.silent(now)
        )
        if changed:
            if self._waits(entry, changed, now):
                return None
            return Message(_event(changed, sent), chosen, changed, sent)
        since = now - entry["at"]
        # After the clock was set back, reminders neither stop for ever nor come at once.
        if since < 0.0:
            entry["at"] = now
        repeat = self.config.repeat
        unacknowledged = any(not finding.acknowledged for finding in wanted)
        if repeat is None or since < repeat or not unacknowledged:
            return None
        return Message("reminder", chosen, (), sent)

    def _waits(self, entry: Mapping[str, int], changed: tuple[Finding, ...], now: float) -> bool:
        """Whether changes wait for others: not those that a person made, nor a worse severity."""
        if not 0.0 <= now - entry["at"] < QUIET_SECONDS:
            return False
        urgent = any(
            finding.open
            and (finding.severity > entry["severity"] or finding.event == "acknowledged")
            for finding in changed
        )
        return not urgent

    def pending(self, source: Source, now: float) -> int:
        """How many messages are due."""
        return len(self.due(source, now))

    async def step(self, source: Source, now: float) -> bool:
        """Send one message."""
        if not self.backoff.ready(now) or 0.0 < self._next - now <= self.spacing_seconds:
            return False
        due = self.due(source, now)
        if not due:
            return False
        message = due[0]
        self._next = now + self.spacing_seconds
        outcome = await self.send("", lambda: self.render(message, now), now)
        id_ = message.incident.id
        if outcome == "failed":
            self._tries[id_] += 1
            return False
        if message.event == "closed":
            # It may have reopened meanwhile: that is sent next.
            self.notified.pop(id_, None)
        else:
            findings = {f.id: f.revision for f in message.incident.findings}
            severity = message.incident.severity
            self.notified[id_] = {"findings": findings, "at": now, "severity": severity}
        return True

    def is_valid_entry(self, known: object) -> bool:
        """Whether a value of ``notified`` that was saved can be used."""
        if not isinstance(known, Mapping) or not isinstance(known.get("findings"), Mapping):
            return False
        revisions = known["findings"].values()
        return all(isinstance(revision, int) for revision in revisions) and all(
            isinstance(known.get(name), (int, float)) for name in ("at", "severity")
        )


def _event(changed: tuple[Finding, ...], sent: frozenset[str]) -> str:
    """One word for all changes: that of the finding, if all have the same."""
    events = {finding.event if finding.id in sent else "updated" for finding in changed}
    only = events.pop() if len(events) == 1 else "updated"
    return only if only in ("updated", "acknowledged", "reopened") else "updated"
