"""What happened lately, in order: findings, decisions, and arms that changed their state.

An event names what it is about and holds no values of requests: texts of findings are looked up
when they are shown, so that they follow the rules of redaction of that moment.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from understudy.monitor.findings.changes import Change
from understudy.monitor.pipeline.served import VersionChange
from understudy.monitor.routing.serving import Service

MOST = 1000
"""Events that are kept; the oldest are dropped first."""


class Events:
    """The last events. Each has an ``id`` that grows: its time in microseconds, or one more than
    the id before, so that a reader who comes back after a restart goes on where it was."""

    def __init__(self, most: int = MOST) -> None:
        self._events: deque[dict[str, Any]] = deque(maxlen=most)
        self._states: dict[str, str] = {}
        self._problems: frozenset[str] | None = None

    @property
    def last(self) -> int:
        """Id of the newest event; 0 without one."""
        return int(self._events[-1]["id"]) if self._events else 0

    def add(self, at: float, kind: str, **about: Any) -> None:
        """One more event, at unix time ``at``."""
        id_ = max(self.last + 1, int(at * 1e6))
        self._events.append({"id": id_, "at": at, "kind": kind, **about})

    def after(self, id_: int, limit: int = MOST) -> list[dict[str, Any]]:
        """Events with a larger id, the newest ``limit`` of them, oldest first."""
        found: list[dict[str, Any]] = []
        for event in reversed(self._events):
            if event["id"] <= id_ or len(found) >= limit:
                break
            found.append(event)
        return found[::-1]

    # Sources ------------------------------------------------------------------------------------

    def seed(
        self, changes: Iterable[Mapping[str, Any]], audit: Iterable[Mapping[str, Any]]
    ) -> None:
        """Begin with what is on disk of the time before the start: pages of the history of
        findings, and entries of the audit log."""
        found: list[tuple[Any, dict[str, Any]]] = [
            (one["at"], _of_finding(one["event"], one["finding"]))
            for one in reversed(list(changes))
        ]
        found += [(one["at"], _of_rollout(one)) for one in audit]
        mine = list(self._events)
        self._events.clear()
        for at, about in sorted(found, key=lambda pair: float(pair[0] or 0.0)):
            if at is not None:
                self.add(float(at), **about)
        for event in mine:
            self.add(event["at"], **{k: v for k, v in event.items() if k not in ("id", "at")})

    def findings(self, changes: Sequence[Change]) -> None:
        """Take changes of findings."""
        for change in changes:
            self.add(change.at, **_of_finding(change.kind, change.finding.to_dict()))

    def rollouts(self, entries: Sequence[Mapping[str, Any]]) -> None:
        """Take what the audit log got."""
        for entry in entries:
            self.add(float(entry["at"]), **_of_rollout(entry))

    def version_changed(self, change: VersionChange) -> None:
        """Take a change of the version that answers say."""
        self.add(
            change.at,
            "version",
            event=change.after,
            before=change.before,
            model=change.model,
            arm=change.arm,
        )

    def service(self, service: Service, now: float) -> None:
        """Note which arms have changed their state since the last call."""
        states = {arm.arm: arm.state for arm in service.arms}
        for arm, state in states.items():
            before = self._states.get(arm)
            if before is not None and before != state and "no_traffic" not in (before, state):
                self.add(now, "arm", arm=arm, event=state, before=before)
        # Without traffic nothing is known: what was known before is compared with what comes.
        self._states.update({arm: s for arm, s in states.items() if s != "no_traffic"})
        self._states = {arm: s for arm, s in self._states.items() if arm in states}
        problems = frozenset(service.problems)
        if self._problems is not None and bool(problems) != bool(self._problems):
            self.add(now, "service", event="not_ready" if problems else "ready")
        self._problems = problems


def _of_finding(event: str, finding: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": "finding",
        "event": event,
        "finding": finding.get("id"),
        "severity": finding.get("severity"),
        "model": finding.get("model"),
    }


def _of_rollout(entry: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "kind": "experiment",
        "event": entry.get("kind"),
        "experiment": entry.get("experiment"),
        "challenger": entry.get("challenger"),
        "who": entry.get("who"),
        "stage": entry.get("stage"),
        "weight": entry.get("weight"),
    }
