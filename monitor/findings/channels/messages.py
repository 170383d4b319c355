"""Channels that send one message for each thing that happened."""

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
    """``event`` is that of the finding as this receiver has to hear it, or reminder."""

    event: str
    finding: Finding

    @property
    def delivery(self) -> str:
        """The same for the same message, however often it is sent."""
        return f"{self.finding.id}.{self.finding.revision}.{self.event}"


class MessageChannel(Channel):
    """What was told of each finding is its ``revision`` and when, ``at``."""

    def __init__(self, config: Notification, chance: random.Random | None = None) -> None:
        super().__init__(config, chance)
        self._tries: Counter[str] = Counter()
        """Failed attempts by finding, so that one that never works is not in the way."""
        self._next = 0.0

    @abstractmethod
    def render(self, message: Message, now: float) -> tuple[bytes, dict[str, str]]:
        """Body and headers. Raises DeliveryError when that cannot be."""

    def due(self, source: Source, now: float) -> list[Message]:
        """What has to be told, the first in front."""
        found = [Message("closed", finding) for finding in self.gone(source, now)]
        places = self.places()
        for finding in source.open():
            event = self._event(finding, now)
            new = finding.id not in self.told
            if event and (not new or places > 0):
                places -= new
                found.append(Message(event, finding))
        self._tries = Counter({m.finding.id: self._tries[m.finding.id] for m in found})
        return sorted(
            found, key=lambda m: (self._tries[m.finding.id], -m.finding.severity, m.finding.changed)
        )

    def _event(self, finding: Finding, now: float) -> str | None:
        known = self.told.get(finding.id)
        if known is None:
            if not self.wants(finding, now):
                return None
            return "reopened" if finding.reopened else "opened"
        if finding.silent(now):
            return None
        if known["revision"] != finding.revision:
            told = finding.event in ("updated", "acknowledged", "reopened")
            return finding.event if told else "updated"
        repeat = self.config.repeat
        since = now - known["at"]
        # A clock that was set back is no reason to be silent for ever, nor to repeat at once.
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
            # By now it may be open again: then that is told next.
            self.told.pop(id_, None)
        else:
            self.told[id_] = {"revision": message.finding.revision, "at": now}
        return True

    def can_be_told(self, known: object) -> bool:
        """Whether a value of ``told`` that was saved can be used."""
        if not isinstance(known, Mapping):
            return False
        return isinstance(known.get("revision"), int) and isinstance(known.get("at"), (int, float))
