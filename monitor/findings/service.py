"""The findings of the running service, with their history on disk and notifications."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.monitor.config.notify import Notification
from understudy.monitor.config.runbooks import PUBLIC
from understudy.monitor.errors import FindingError, UnknownFindingError
from understudy.monitor.findings.changes import Change
from understudy.monitor.findings.finding import Finding
from understudy.monitor.findings.history import History, Retention
from understudy.monitor.findings.incident import Incident
from understudy.monitor.findings.ledger import Findings
from understudy.monitor.findings.limits import Limits
from understudy.monitor.findings.notify import Notifier
from understudy.monitor.findings.silences import Silence

log = logging.getLogger(__name__)


class FindingsService:
    """The ledger, to which sources report, its history on disk, and the notifier.

    ``folder`` is where the history is written; None keeps it in memory only. ``on_accepted`` is
    called with findings that a person closed as the new normal. ``clock`` returns unix seconds;
    ``retention`` says how much of the history is kept. Call :meth:`load_state` before the first
    report, also when there is no saved state.
    """

    def __init__(
        self,
        folder: Path | None,
        limits: Limits | None = None,
        channels: Sequence[Notification] = (),
        on_accepted: Callable[[Finding], None] | None = None,
        clock: Callable[[], float] = time.time,
        retention: Retention | None = None,
        runbooks: str = PUBLIC,
    ) -> None:
        self.ledger = Findings(limits, self._on_changes, on_accepted)
        self.notifier = Notifier(channels, self.ledger, clock, runbooks=runbooks)
        self.history = History(folder, retention) if folder is not None else None
        self.restored = False
        """Whether :meth:`load_state` has been called."""
        self.listeners: list[Callable[[list[Change]], None]] = []
        """Called with all changes, once they are in the history."""
        self._clock = clock

    def configure(
        self,
        limits: Limits,
        channels: Sequence[Notification],
        retention: Retention | None = None,
        runbooks: str = PUBLIC,
    ) -> None:
        """Apply another configuration."""
        self.ledger.configure(limits)
        if self.history is not None:
            self.history.configure(retention or Retention())
        self.notifier.configure(channels, runbooks)

    async def run(self) -> None:
        """Send notifications until it is cancelled."""
        await self.notifier.run()

    def _on_changes(self, changes: list[Change]) -> None:
        if self.history is not None:
            self.history.append(changes, None, changes[-1].at)
        self.notifier.wake()
        for listener in self.listeners:
            listener(changes)

    # Actions of people --------------------------------------------------------------------------

    def acknowledge(self, id_: str, who: str, why: str) -> Finding:
        """As :meth:`Findings.acknowledge`, at the present time."""
        return self.ledger.acknowledge(id_, who, why, self._clock()).finding

    def acknowledge_incident(self, id_: str, who: str, why: str) -> Incident:
        """As :meth:`Findings.acknowledge_incident`, at the present time."""
        self.ledger.acknowledge_incident(id_, who, why, self._clock())
        return self.ledger.incident(id_)

    def find(self, id_: str) -> Finding:
        """The finding with that id, from memory or from the history on disk. Raises
        UnknownFindingError."""
        try:
            return self.ledger.find(id_)
        except UnknownFindingError:
            old = self.history.find(id_) if self.history is not None else None
            if old is None:
                raise
            return old

    def close(self, id_: str, who: str, why: str, new_normal: bool = False) -> Finding:
        """As :meth:`Findings.close`, at the present time."""
        return self.ledger.close(id_, who, why, self._clock(), new_normal).finding

    def silence(self, pattern: str, seconds: float, who: str, why: str) -> Silence:
        """As :meth:`Findings.silence`, from now on for ``seconds``; written to the history."""
        now = self._clock()
        silence = self.ledger.silence(pattern, now + seconds, who, why, now)
        self._log_silences(now)
        return silence

    def end_silence(self, id_: str) -> Silence:
        """As :meth:`Findings.end_silence`, at the present time; written to the history."""
        now = self._clock()
        silence = self.ledger.end_silence(id_, now)
        self._log_silences(now)
        return silence

    def silences(self) -> list[Silence]:
        """The silences in force."""
        return self.ledger.silences.all(self._clock())

    def _log_silences(self, now: float) -> None:
        if self.history is not None:
            self.history.append([], self.ledger.silences.dump_state(), now)
        self.notifier.wake()

    # State --------------------------------------------------------------------------------------

    @property
    def version(self) -> tuple[int, int]:
        """Changes whenever the saved state is out of date."""
        sent = sum(sum(one.outcomes.values()) for one in self.notifier.channels.values())
        return self.ledger.revision, sent

    def dump_state(self) -> dict[str, Any]:
        """JSON-able, for the saved state of the service."""
        return {
            "findings": self.ledger.dump_state(),
            "notifier": self.notifier.dump_state(),
            "history": self.history.last if self.history is not None else 0,
        }

    def load_state(self, state: Mapping[str, Any] | None) -> None:
        """Load ``state``, then the history on disk. Never raises: an invalid state is logged, and
        the history alone is enough."""
        self.restored = True
        saved = 0
        if state:
            try:
                self.ledger.load_state(state["findings"])
                self.notifier.load_state(state["notifier"])
                saved = int(state["history"])
            except (FindingError, KeyError, TypeError, ValueError) as error:
                log.error(
                    "findings: the saved state is not valid; using the history only: %s", error
                )
        if self.history is not None:
            self.history.catch_up(self.ledger, saved)
        self.ledger.apply_silences(self._clock())
