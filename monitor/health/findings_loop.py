"""The loop that turns what the watches see into findings."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from understudy.monitor.config.model import Config as Configuration
from understudy.monitor.findings.changes import Change
from understudy.monitor.findings.finding import Finding
from understudy.monitor.findings.history import Retention
from understudy.monitor.findings.limits import Limits
from understudy.monitor.findings.service import FindingsService
from understudy.monitor.health.validation.rehearsal import SOURCE as VALIDATION
from understudy.monitor.health.validation.rehearsal import Validation
from understudy.monitor.health.watches import Watches
from understudy.shadow.state import Config, Key, Saved, Stateful

SOURCE = "watch"
"""The source of the watches' findings."""


class FindingsLoop(Stateful):
    """Reports the problems that ``watches`` and ``validation`` see to ``service``, the findings.

    The time is passed in, so that a replay gives the same findings as the live service. ``folder``
    is where the history of findings is written; without one it is in memory only, nothing is
    validated, and no notifications are sent.
    """

    watches: Saved[Watches]
    validation: Config[Validation | None]
    service: Saved[Annotated[FindingsService, Key("room")]]

    def __init__(
        self, config: Configuration, folder: Path | None, clock: Callable[[], float] = time.time
    ) -> None:
        self.watches = Watches(config)
        self.validation = Validation(config) if folder is not None else None
        channels = config.notify if folder is not None else []
        self.service = FindingsService(
            folder,
            _limits(config),
            channels,
            self._accept,
            clock,
            _retention(config),
            config.runbooks.url,
        )

    def configure(self, config: Configuration) -> None:
        """Apply another configuration."""
        self.watches.configure(config)
        if self.validation is not None:
            self.validation.configure(config)
        self.service.configure(
            _limits(config), config.notify, _retention(config), config.runbooks.url
        )

    def tick(self, now: float) -> list[Change]:
        """Report all present problems at ``now``, unix seconds; returns the changes of findings."""
        self.watches.flush()
        changes = self.service.ledger.report(SOURCE, self.watches.signals(now), now)
        if self.validation is not None and self.validation.rounds:
            # A round may be long ago: its results hold until the next one.
            hold = 0.0
            signals = self.validation.signals()
            changes += self.service.ledger.report(VALIDATION, signals, now, hold)
        return changes

    def _accept(self, finding: Finding) -> None:
        """Learn a new baseline, or reference of labels: a person accepted the finding as the new
        normal."""
        if finding.source == SOURCE:
            signal = finding.signal
            self.watches.relearn((signal.model, signal.version), signal.kind == "performance")

    def load_state(self, state: Any) -> None:
        """Load a saved state, also an empty one; invalid parts are ignored and logged."""
        super().load_state(state or {"watches": {}, "room": None})


def _retention(config: Configuration) -> Retention:
    return Retention(config.monitoring.history_size, config.monitoring.history_days)


def _limits(config: Configuration) -> Limits:
    return Limits(hold=config.monitoring.hold)
