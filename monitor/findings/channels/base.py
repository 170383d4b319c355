"""The base of all channels: what was sent, and what has to be sent.

A channel compares what it has sent with the present findings, so it needs no queue: many changes
during an outage of the receiver become one message, the newest, and after a restart it resumes
where it stopped. If the process is killed after a message was sent and before the state was saved,
the message is sent once more, with the same delivery id.
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
from dataclasses import dataclass
from typing import Any, Protocol

from understudy.monitor.config.notify import Notification
from understudy.monitor.config.runbooks import PUBLIC, alert_name, runbook_url
from understudy.monitor.errors import DeliveryError, UnknownFindingError
from understudy.monitor.findings.backoff import Backoff
from understudy.monitor.findings.finding import Finding, rank
from understudy.monitor.findings.incident import Incident
from understudy.monitor.findings.post import Reply, context, post

log = logging.getLogger(__name__)

OUTCOMES = ("delivered", "failed", "refused", "dropped")
"""failed: will be retried; refused: the receiver rejects this message; dropped: the closing was not
delivered within a day, or the incident is no longer known."""
_REFUSED = frozenset((400, 405, 406, 413, 415, 422))
"""Statuses that are faults of the message. Other errors (a wrong token, a missing page) can be
fixed on the receiver's side, so they are retried."""
MAX_NOTIFIED = 1000
"""Incidents or findings that a receiver knows of at a time; others wait for a free slot."""
GIVE_UP_SECONDS = 86_400.0


@dataclass(frozen=True, slots=True)
class Probe:
    """A request that a receiver answers without showing a message to a person.

    It goes to the channel's address plus ``suffix``. ``accepts`` is whether a receiver that gave
    this answer would accept messages; None: an answer shows only that it can be reached.
    """

    method: str
    suffix: str = ""
    body: bytes = b""
    accepts: Callable[[Reply], bool] | None = None


class Source(Protocol):
    """What a channel reads of a ledger."""

    def open(self) -> list[Finding]:
        """Open findings, the most severe first."""

    def incidents(self) -> list[Incident]:
        """Open incidents, the most severe first."""

    def incident(self, id_: str) -> Incident:
        """The incident with that id. Raises UnknownFindingError."""


class Channel(ABC):
    """One receiver. ``notified`` is what was sent to it, by id of the incident or the finding; its
    JSON-able values depend on the kind of channel."""

    spacing_seconds = 0.0
    """Shortest time between two requests."""

    probe = Probe("HEAD")
    """How to check address and credentials; ``understudy doctor`` does."""

    runbooks = PUBLIC
    """URL of the pages about alerts; see :class:`understudy.monitor.config.runbooks.Runbooks`."""

    def __init__(self, config: Notification, rng: random.Random | None = None) -> None:
        self.config = config
        self.name = config.label
        self.min_severity = rank(config.severity)
        self.notified: dict[str, dict[str, Any]] = {}
        self.outcomes: Counter[str] = Counter()
        self.error: str | None = None
        """Why the last delivery failed; None when it succeeded."""
        self.backoff = Backoff(rng=rng)
        self._tls: ssl.SSLContext | None = None

    def runbook(self, finding: Finding) -> str:
        """URL of the page about the alert of a finding."""
        return runbook_url(self.runbooks, alert_name(finding.signal.kind))

    def page(self, finding: Finding) -> str | None:
        """URL of the finding's page in the console, if the public address is known."""
        link = self.config.link
        return f"{link.rstrip('/')}/?finding={finding.id}" if link else None

    @abstractmethod
    def pending(self, source: Source, now: float) -> int:
        """How much has changed that was not sent yet."""

    @abstractmethod
    async def step(self, source: Source, now: float) -> bool:
        """Send what is due next, if anything is; True when a message was delivered or refused.
        Never raises DeliveryError."""

    def wants(self, finding: Finding, now: float) -> bool:
        """Whether an open finding is to be sent to this receiver."""
        return finding.severity >= self.min_severity and not finding.silent(now)

    def newly_closed(self, source: Source, now: float) -> list[Incident]:
        """Incidents that were sent and have closed since. Drops those that the ledger has
        deleted."""
        closed = []
        open_ = {incident.id for incident in source.incidents()}
        for id_ in [id_ for id_ in self.notified if id_ not in open_]:
            try:
                incident = source.incident(id_)
            except UnknownFindingError:
                self.drop(id_)
                continue
            if incident.closed is not None and now - incident.closed > GIVE_UP_SECONDS:
                self.drop(id_)
            else:
                closed.append(incident)
        return closed

    def free_slots(self) -> int:
        """How many more incidents or findings the receiver can be notified of."""
        return max(0, MAX_NOTIFIED - len(self.notified))

    def drop(self, id_: str) -> None:
        """Give up sending that an incident has closed."""
        del self.notified[id_]
        self.outcomes["dropped"] += 1

    async def send(
        self, suffix: str, make: Callable[[], tuple[bytes, dict[str, str]]], now: float
    ) -> str:
        """POST to the receiver's address plus ``suffix``; ``make`` returns body and headers.
        Returns one of ``OUTCOMES``, and counts it."""
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
                    "notify: %s: delivery failed: %s; retrying in %.0f s, then less often",
                    self.name,
                    reason,
                    wait,
                )
            self.error = reason
            return outcome
        if outcome == "refused":
            log.error("notify: %s rejected a message: %s", self.name, reason)
        elif self.error is not None:
            log.info("notify: %s recovered", self.name)
        self.backoff.succeeded()
        self.error = reason or None
        return outcome

    async def send_probe(self) -> Reply:
        """The answer to :attr:`probe`. Raises DeliveryError when there is none."""
        probe = self.probe
        return await self._post(probe.suffix, lambda: (probe.body, {}), probe.method)

    async def _post(
        self, suffix: str, make: Callable[[], tuple[bytes, dict[str, str]]], method: str = "POST"
    ) -> Reply:
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
        return await post(address, body, headers, self.config.timeout, self._tls, method)

    def variable(self, name: str | None) -> str:
        """A secret from the environment. Raises DeliveryError."""
        value = os.environ.get(name or "", "").strip()
        if not value:
            raise DeliveryError(f"the environment variable {name} is not set")
        return value

    @abstractmethod
    def is_valid_entry(self, known: object) -> bool:
        """Whether a saved value of ``notified`` is valid."""

    def dump_state(self) -> dict[str, Any]:
        """JSON-able: what was sent, and the outcomes."""
        return {"told": dict(self.notified), "outcomes": dict(self.outcomes)}

    def load_state(self, data: Mapping[str, Any]) -> None:
        """Load the result of :meth:`dump_state`; invalid parts are ignored."""
        notified, outcomes = data.get("told"), data.get("outcomes")
        if isinstance(notified, Mapping):
            usable = {str(k): dict(v) for k, v in notified.items() if self.is_valid_entry(v)}
            self.notified = dict(list(usable.items())[:MAX_NOTIFIED])
        if isinstance(outcomes, Mapping):
            self.outcomes = Counter({k: int(outcomes[k]) for k in OUTCOMES if k in outcomes})


def _outcome(reply: Reply) -> str:
    if 200 <= reply.status < 300:
        return "delivered"
    return "refused" if reply.status in _REFUSED else "failed"
