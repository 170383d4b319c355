"""Channels that send one message per change of a finding."""

from __future__ import annotations

import random
from abc import abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from understudy.monitor.config.notify import Notification
from understudy.monitor.findings.channels.base import Channel, Source
from understudy.monitor.findings.finding import Finding


@dataclass(frozen=True, slots=True)
class Message:
    """``event`` is the kind of change as this receiver sees it, or ``reminder``."""

    event: str
    finding: Finding

    @property
    def delivery(self) -> str:
        """Delivery id: the same each time that the message is sent."""
        return f"{self.finding.id}.{self.finding.revision}.{self.event}"


class MessageChannel(Channel):
    """Of each finding it stores the ``revision`` that was sent and the time, ``at``."""

    def __init__(self, config: Notification, rng: random.Random | None = None) -> None:
        super().__init__(config, rng)
        self._tries: Counter[str] = Counter()
        """Failed attempts by finding, so that one that always fails does not block the others."""
        self._next = 0.0

    @abstractmethod
    def render(self, message: Message, now: float) -> tuple[bytes, dict[str, str]]:
        """Body and headers. Raises DeliveryError when the message cannot be built."""

    def due(self, source: Source, now: float) -> list[Message]:
        """The messages to send, in order."""
        messages = [Message("closed", finding) for finding in self.newly_closed(source, now)]
        free_slots = self.free_slots()
        for finding in source.open():
            event = self._event(finding, now)
            new = finding.id not in self.notified
            if event and (not new or free_slots > 0):
                free_slots -= new
                messages.append(Message(event, finding))
        self._tries = Counter({m.finding.id: self._tries[m.finding.id] for m in messages})
        return sorted(
            messages,
            key=lambda m: (self._tries[m.finding.id], -m.finding.severity, m.finding.changed),
        )

    def _event(self, finding: Finding, now: float) -> str | None:
        known = self.notified.get(finding.id)
        if known is None:
            if not self.wants(finding, now):
                return None
            return "reopened" if finding.reopened else "opened"
        if finding.silent(now):
            return None
        if known["revision"] != finding.revision:
            known_event = finding.event in ("updated", "acknowledged", "reopened")
            return finding.event if known_event else "updated"
        repeat = self.config.repeat
        since = now - known["at"]
        # After the clock was set back, reminders neither stop for ever nor come at once.
        if since < 0.0:
            known["at"] = now
        if repeat is None or finding.acknowledged or since < repeat or not self.wants(finding, now):
            return None
        return "reminder"

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
        id_ = message.finding.id
        if outcome == "failed":
            self._tries[id_] += 1
            return False
        if message.event == "closed":
            # It may have reopened meanwhile: that is sent next.
            self.notified.pop(id_, None)
        else:
            self.notified[id_] = {"revision": message.finding.revision, "at": now}
        return True

    def is_valid_entry(self, known: object) -> bool:
        """Whether a value of ``notified`` that was saved can be used."""
        if not isinstance(known, Mapping):
            return False
        return isinstance(known.get("revision"), int) and isinstance(known.get("at"), (int, float))
