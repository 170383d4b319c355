"""The clock of silent failure: once in a while everything is looked at, and findings follow."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from understudy.monitor.config.model import Config as Configuration
from understudy.monitor.findings.changes import Change
from understudy.monitor.findings.finding import Finding
from understudy.monitor.findings.limits import Limits
from understudy.monitor.findings.service import FindingsService
from understudy.monitor.health.validation.rehearsal import ROOM as VALIDATION
from understudy.monitor.health.validation.rehearsal import Validation
from understudy.monitor.health.watches import Watches
from understudy.shadow.state import Config, Key, Saved, Stateful

ROOM = "watch"


class FindingsLoop(Stateful):
    """``watches`` say what is wrong, ``room`` keeps the story of it and tells people. The time is
    passed in, so that a replay judges as the live service does; without a ``folder`` the story is
    in memory only, and nobody is told."""

    watches: Saved[Watches]
    validation: Config[Validation | None]
    service: Saved[Annotated[FindingsService, Key("room")]]

    def __init__(
        self, config: Configuration, folder: Path | None, clock: Callable[[], float] = time.time
    ) -> None:
        self.watches = Watches(config)
        self.validation = Validation(config) if folder is not None else None
        channels = config.notify if folder is not None else []
        self.service = FindingsService(folder, _limits(config), channels, self._accept, clock)

    def configure(self, config: Configuration) -> None:
        """Go on under another configuration."""
        self.watches.configure(config)
        if self.validation is not None:
            self.validation.configure(config)
        self.service.configure(_limits(config), config.notify)

    def tick(self, now: float) -> list[Change]:
        """Look at ``now``, unix seconds; what has changed."""
        self.watches.flush()
        changes = self.service.findings.report(ROOM, self.watches.signals(now), now)
        if self.validation is not None and self.validation.rounds:
            # A round may be long ago: what it found holds until the next one.
            hold = 0.0
            found = self.validation.signals()
            changes += self.service.findings.report(VALIDATION, found, now, hold)
        return changes

    def _accept(self, finding: Finding) -> None:
        """Somebody has said that this is the new normal."""
        if finding.room == ROOM:
            self.watches.relearn((finding.signal.model, finding.signal.version))

    def load_state(self, state: Any) -> None:
        """Take over a saved state, also an empty one; what cannot be used is left out, and said."""
        super().load_state(state or {"watches": {}, "room": None})


def _limits(config: Configuration) -> Limits:
    return Limits(hold=config.monitoring.hold)
