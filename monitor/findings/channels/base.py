"""What all channels have in common: what they have told, and what is still to be told.

A channel compares what it has told with how things are, so nothing has to be queued: many changes
while a receiver is away become one message, the newest, and after a restart it goes on where it
was. What was sent and not yet saved when the process was killed is sent once more: every message
has a delivery id, the same each time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import random
import ssl
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Mapping
from typing import Any, Protocol

from understudy.monitor.config.notify import Notification
from understudy.monitor.errors import DeliveryError, UnknownFindingError
from understudy.monitor.findings.backoff import Backoff
from understudy.monitor.findings.finding import Finding, rank
from understudy.monitor.findings.post import Reply, context, post

log = logging.getLogger(__name__)

OUTCOMES = ("delivered", "failed", "refused", "dropped")
"""failed: tried again later; refused: the receiver does not take this message; dropped: its end was
given up after a day, or is no longer known."""
_REFUSED = frozenset((400, 405, 406, 413, 415, 422))
"""Faults of the message. Others (a wrong token, a page that is not there yet) may be mended."""
MAX_TOLD = 1000
"""Findings that a receiver is told of at a time; others wait for a place."""
GIVE_UP_SECONDS = 86_400.0


class Source(Protocol):
    """Where findings come from: a ledger."""

    def open(self) -> list[Finding]:
        """Open ones, the worst first."""

    def find(self, id_: str) -> Finding:
        """Raises UnknownFindingError."""


class Channel(ABC):
    """One receiver. ``told`` is what it knows, by id of the finding; what its values hold is up to
    the kind of channel and is JSON-able."""

    spacing_seconds = 0.0
    """Shortest time between two requests."""

    def __init__(self, config: Notification, chance: random.Random | None = None) -> None:
        self.config = config
        self.name = config.label
        self.least = rank(config.severity)
        self.told: dict[str, dict[str, Any]] = {}
        self.outcomes: Counter[str] = Counter()
        self.error: str | None = None
        """The present trouble."""
        self.backoff = Backoff(chance=chance)
        self._tls: ssl.SSLContext | None = None

    @abstractmethod
    def pending(self, source: Source, now: float) -> int:
        """How many findings have something to tell that has not been told."""

    @abstractmethod
    async def step(self, source: Source, now: float) -> bool:
        """Send what is due next, if anything is; True when something was settled. Never raises
        DeliveryError."""

    def wants(self, finding: Finding, now: float) -> bool:
        """Whether the receiver should know of that open finding."""
        return finding.severity >= self.least and not finding.silent(now)

    def gone(self, source: Source, now: float) -> list[Finding]:
        """Findings that were told and are closed. What nobody knows any more is forgotten."""
        found = []
        open_ = {finding.id for finding in source.open()}
        for id_ in [id_ for id_ in self.told if id_ not in open_]:
            try:
                finding = source.find(id_)
            except UnknownFindingError:
                self.drop(id_)
                continue
            if finding.closed is not None and now - finding.closed > GIVE_UP_SECONDS:
                self.drop(id_)
            else:
                found.append(finding)
        return found

    def places(self) -> int:
        """How many findings more it can be told of."""
        return max(0, MAX_TOLD - len(self.told))

    def drop(self, id_: str) -> None:
        """Its end will not be told."""
        del self.told[id_]
        self.outcomes["dropped"] += 1

    async def send(
        self, suffix: str, make: Callable[[], tuple[bytes, dict[str, str]]], now: float
    ) -> str:
        """POST to the receiver's address and ``suffix``; ``make`` gives body and headers. One of
        ``OUTCOMES``, which is counted."""
        outcome, reason, wait = "failed", "", 0.0
        try:
            reply = await self._post(suffix, make)
        except DeliveryError as error:
            reason = str(error)
        else:
            outcome = _outcome(reply)
            wait = reply.retry_after
            if outcome != "delivered":
                reason = f"answered {reply.status}" + (f": {reply.text}" if reply.text else "")
        self.outcomes[outcome] += 1
        if outcome == "failed":
            wait = self.backoff.failed(now, wait)
            if self.error is None:
                log.warning(
                    "notify: %s: %s; trying again in %.0f s and from then on less often",
                    self.name,
                    reason,
                    wait,
                )
            self.error = reason
            return outcome
        if outcome == "refused":
            log.error("notify: %s does not take a message: %s", self.name, reason)
        elif self.error is not None:
            log.info("notify: %s is back", self.name)
        self.backoff.worked()
        self.error = reason or None
        return outcome

    async def _post(self, suffix: str, make: Callable[[], tuple[bytes, dict[str, str]]]) -> Reply:
        url = self.config.url or self.variable(self.config.url_env)
        body, headers = make()
        if self.config.token_env:
            headers["Authorization"] = f"Bearer {self.variable(self.config.token_env)}"
        if self._tls is None and url.lower().startswith("https:"):
            tls = self.config.tls
            self._tls = await asyncio.to_thread(
                context, tls.ca if tls else None, tls.verify if tls else True
            )
        address = url.rstrip("/") + suffix if suffix else url
        return await post(address, body, headers, self.config.timeout, self._tls)

    def variable(self, name: str | None) -> str:
        """A secret from the environment. Raises DeliveryError."""
        value = os.environ.get(name or "", "").strip()
        if not value:
            raise DeliveryError(f"the environment variable {name} is not set")
        return value

    @abstractmethod
    def can_be_told(self, known: object) -> bool:
        """Whether a value of ``told`` that was saved can be used."""

    def dump_state(self) -> dict[str, Any]:
        """JSON-able: what has been told, and what became of the messages."""
        return {"told": dict(self.told), "outcomes": dict(self.outcomes)}

    def load_state(self, data: Mapping[str, Any]) -> None:
        """Become what :meth:`dump_state` gave, as far as that can be used."""
        told, outcomes = data.get("told"), data.get("outcomes")
        if isinstance(told, Mapping):
            usable = {str(k): dict(v) for k, v in told.items() if self.can_be_told(v)}
            self.told = dict(list(usable.items())[:MAX_TOLD])
        if isinstance(outcomes, Mapping):
            self.outcomes = Counter({k: int(outcomes[k]) for k in OUTCOMES if k in outcomes})


def _outcome(reply: Reply) -> str:
    if 200 <= reply.status < 300:
        return "delivered"
    return "refused" if reply.status in _REFUSED else "failed"
