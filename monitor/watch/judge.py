"""The clock of silent failure: once in a while everything is looked at, and findings follow."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from monitor.config.model import Config
from monitor.errors import FindingError
from monitor.findings.changes import Change
from monitor.findings.finding import Finding
from monitor.findings.ledger import Findings
from monitor.findings.limits import Limits
from monitor.watch.watches import Watches

log = logging.getLogger(__name__)

ROOM = "watch"


class Judge:
    """``watches`` say what is wrong, ``findings`` keep the story of it. The time is passed in, so
    that a replay judges as the live service does."""

    def __init__(self, config: Config) -> None:
        self.watches = Watches(config)
        self.findings = Findings(_limits(config), accept=self._accept)
        self.changes = 0
        """How many changes there have been; what is saved is old when this has grown."""

    def configure(self, config: Config) -> None:
        """Go on under another configuration."""
        self.watches.configure(config)
        self.findings.configure(_limits(config))

    def tick(self, now: float) -> list[Change]:
        """Look at ``now``, unix seconds; what has changed."""
        self.watches.flush()
        changes = self.findings.report(ROOM, self.watches.signals(now), now)
        self.changes += len(changes)
        return changes

    def _accept(self, finding: Finding) -> None:
        """Somebody has said that this is the new normal."""
        if finding.room == ROOM:
            self.watches.relearn((finding.signal.model, finding.signal.version))

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"watches": self.watches.to_dict(), "findings": self.findings.to_dict()}

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state; what cannot be used is left out, and said."""
        self.watches.restore(state.get("watches", {}))
        saved = state.get("findings")
        if saved is not None:
            try:
                self.findings.restore(saved)
            except (FindingError, KeyError, TypeError, ValueError) as error:
                log.error("saved findings cannot be used: %r", error)


def _limits(config: Config) -> Limits:
    return Limits(hold=config.monitoring.hold)
