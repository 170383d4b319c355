"""Findings as the running service has them: kept on disk, and told."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.monitor.config.notify import Notification
from understudy.monitor.errors import FindingError
from understudy.monitor.findings.changes import Change
from understudy.monitor.findings.finding import Finding
from understudy.monitor.findings.history import History
from understudy.monitor.findings.ledger import Findings
from understudy.monitor.findings.limits import Limits
from understudy.monitor.findings.notify import Notifier
from understudy.monitor.findings.silences import Silence

log = logging.getLogger(__name__)


class FindingsService:
    """The ledger (``findings``, to which rooms report), its history on disk, and the notifier.

    ``folder`` is where the history is written; None keeps it in memory only. ``accept`` hears of
    findings that a person closed as the new normal. Call :meth:`load_state` before anything is
    reported, also when there is no saved state.
    """

    def __init__(
        self,
        folder: Path | None,
        limits: Limits | None = None,
        channels: Sequence[Notification] = (),
        accept: Callable[[Finding], None] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.findings = Findings(limits, self._take, accept)
        self.notifier = Notifier(channels, self.findings, clock)
        self.history = History(folder) if folder is not None else None
        self.restored = False
        """Whether :meth:`load_state` has been called."""
        self._clock = clock

    def configure(self, limits: Limits, channels: Sequence[Notification]) -> None:
        """Go on under another configuration."""
        self.findings.configure(limits)
        self.notifier.configure(channels)

    async def run(self) -> None:
        """Tell the channels, until it is cancelled."""
        await self.notifier.run()

    def _take(self, changes: list[Change]) -> None:
        if self.history is not None:
            self.history.append(changes, None, changes[-1].at)
        self.notifier.wake()

    # What people do -----------------------------------------------------------------------------

    def acknowledge(self, id_: str, who: str, why: str) -> Finding:
        """As :meth:`Findings.acknowledge`, now, and on disk."""
        return self.findings.acknowledge(id_, who, why, self._clock()).finding

    def close(self, id_: str, who: str, why: str, new_normal: bool = False) -> Finding:
        """As :meth:`Findings.close`, now, and on disk."""
        return self.findings.close(id_, who, why, self._clock(), new_normal).finding

    def silence(self, pattern: str, seconds: float, who: str, why: str) -> Silence:
        """As :meth:`Findings.silence`, from now on for ``seconds``, and on disk."""
        now = self._clock()
        silence = self.findings.silence(pattern, now + seconds, who, why, now)
        self._keep_silences(now)
        return silence

    def end_silence(self, id_: str) -> Silence:
        """As :meth:`Findings.end_silence`, now, and on disk."""
        now = self._clock()
        silence = self.findings.end_silence(id_, now)
        self._keep_silences(now)
        return silence

    def silences(self) -> list[Silence]:
        """Those in force."""
        return self.findings.silences.all(self._clock())

    def _keep_silences(self, now: float) -> None:
        if self.history is not None:
            self.history.append([], self.findings.silences.dump_state(), now)
        self.notifier.wake()

    # Keeping ------------------------------------------------------------------------------------

    @property
    def version(self) -> tuple[int, int]:
        """Another one as soon as something has happened that the saved state should know of."""
        told = sum(sum(one.outcomes.values()) for one in self.notifier.channels.values())
        return self.findings.revision, told

    def dump_state(self) -> dict[str, Any]:
        """JSON-able, for the saved state of the service."""
        return {
            "findings": self.findings.dump_state(),
            "notifier": self.notifier.dump_state(),
            "history": self.history.last if self.history is not None else 0,
        }

    def load_state(self, state: Mapping[str, Any] | None) -> None:
        """Go on where ``state`` and the history on disk end. Never raises: what cannot be used is
        logged, and the history alone is enough."""
        self.restored = True
        saved = 0
        if state:
            try:
                self.findings.load_state(state["findings"])
                self.notifier.load_state(state["notifier"])
                saved = int(state["history"])
            except (FindingError, KeyError, TypeError, ValueError) as error:
                log.error("findings: the saved state cannot be used: %s", error)
        if self.history is not None:
            self.history.catch_up(self.findings, saved)
        self.findings.hush(self._clock())
