"""Where findings are kept: open ones by key, closed ones up to a limit."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Annotated, Any

from understudy.monitor.errors import UnknownFindingError
from understudy.monitor.findings.changes import Change
from understudy.monitor.findings.finding import Finding
from understudy.shadow.state import Config, Converter, Count, Derived, Saved, Stateful

_SAVED_CLOSED = 50


def _dump_findings(findings: dict[str, Finding]) -> list[dict[str, Any]]:
    return [finding.dump() for finding in findings.values()]


def _dump_closed(closed: dict[str, Finding]) -> list[dict[str, Any]]:
    """What was dismissed, and the last few; the others are in the history on disk."""
    latest = set(list(closed)[-_SAVED_CLOSED:])
    return [f.dump() for id_, f in closed.items() if f.dismissed or id_ in latest]


def _load_findings(name: str, value: Any, _: Any) -> dict[str, Finding]:
    found = map(Finding.from_dict, value)
    return {finding.id: finding for finding in found}


class FindingStore(Stateful):
    """At most one open finding per key, and ``history`` closed ones; older ones are forgotten.

    A closed finding may be *dismissed*: a person closed it, and its room goes on reporting.
    """

    history: Config[int]
    forgotten: Saved[Count]
    _open: Saved[Annotated[dict[str, Finding], Converter(_dump_findings, _load_findings)]]
    _closed: Saved[Annotated[dict[str, Finding], Converter(_dump_closed, _load_findings)]]
    """By id, the one closed first in front."""
    _last: Derived[dict[str, str]]
    """Id of the finding of a key that was closed last."""
    _dismissed: Derived[set[str]]

    def __init__(self, history: int) -> None:
        self.history = history
        self.forgotten = 0
        self._open = {}
        self._closed = {}
        self._last = {}
        self._dismissed = set()

    def _restored(self) -> None:
        # Nobody knows what rooms would have said while nothing ran, so no time of theirs counts.
        found = [*self._closed.values(), *self._open.values()]
        forgotten = self.forgotten
        self._open, self._closed, self._last, self._dismissed = {}, {}, {}, set()
        for finding in found:
            self.take(replace(finding, absent=None))
        self.forgotten = forgotten

    def __contains__(self, key: str) -> bool:
        """Whether a finding of that key is open."""
        return key in self._open

    def __getitem__(self, key: str) -> Finding:
        """The open finding of a key."""
        return self._open[key]

    def __iter__(self) -> Iterator[Finding]:
        """Open findings, in any order; they may be changed meanwhile."""
        return iter(list(self._open.values()))

    def open(self) -> list[Finding]:
        """The worst first, then the newest."""
        return sorted(self._open.values(), key=lambda f: (-f.severity, -f.opened, f.id))

    def closed(self) -> Iterator[Finding]:
        """The one closed last first."""
        return reversed(self._closed.values())

    def find(self, id_: str) -> Finding:
        """Raises UnknownFindingError."""
        found = self._closed.get(id_) or next((f for f in self._open.values() if f.id == id_), None)
        if found is None:
            raise UnknownFindingError(f"no finding {id_!r}, or it was deleted")
        return found

    def last(self, key: str) -> Finding | None:
        """The finding of a key that was closed last."""
        return self._closed.get(self._last.get(key, ""))

    def dismissed(self) -> list[Finding]:
        """Those that a person closed and that have not gone away since."""
        return [self._closed[id_] for id_ in self._dismissed]

    def set(self, finding: Finding) -> None:
        """Put an open finding in the place of that of the same key, without a change to tell."""
        self._open[finding.key] = finding

    def set_closed(self, finding: Finding) -> None:
        """The same for one that is closed."""
        self._closed[finding.id] = finding
        if not finding.dismissed:
            self._dismissed.discard(finding.id)

    def change(self, finding: Finding, kind: str, now: float, detail: str) -> Change:
        """Put ``finding`` where it belongs, with one more change; that one."""
        finding = replace(
            finding, revision=finding.revision + 1, event=kind, change=detail, changed=now
        )
        self.take(finding)
        return Change(kind, finding, now, detail)

    def take(self, finding: Finding) -> None:
        """Put ``finding`` where it belongs, and out of where it was."""
        self._forget(finding.id)
        have = self._open.get(finding.key)
        if have is not None and have.id == finding.id:
            del self._open[finding.key]
        if finding.open:
            self._open[finding.key] = finding
            return
        self._closed[finding.id] = finding
        self._last[finding.key] = finding.id
        if finding.dismissed:
            self._dismissed.add(finding.id)
        self.tidy()

    def tidy(self) -> None:
        """Keep to the limit; what a person closed and what lasts goes last, or it would open
        anew."""
        while len(self._closed) > self.history:
            oldest = next((id_ for id_ in self._closed if id_ not in self._dismissed), None)
            self._forget(oldest or next(iter(self._closed)))
            self.forgotten += 1

    def _forget(self, id_: str) -> None:
        gone = self._closed.pop(id_, None)
        self._dismissed.discard(id_)
        if gone is not None and self._last.get(gone.key) == id_:
            del self._last[gone.key]

    def remember(self, finding: Finding) -> None:
        """Put a finding closed long ago behind the others, where there is a place left for it."""
        if finding.open or finding.id in self._closed or len(self._closed) >= self.history:
            return
        self._closed = {finding.id: replace(finding, dismissed=False), **self._closed}
        self._last.setdefault(finding.key, finding.id)
