"""Storage of findings: open ones by key, closed ones up to a limit."""

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
    """Dismissed findings and the last few; the others are in the history on disk."""
    latest = set(list(closed)[-_SAVED_CLOSED:])
    return [f.dump() for id_, f in closed.items() if f.dismissed or id_ in latest]


def _load_findings(name: str, value: Any, _: Any) -> dict[str, Finding]:
    findings = map(Finding.from_dict, value)
    return {finding.id: finding for finding in findings}


class FindingStore(Stateful):
    """At most one open finding per key, and ``history`` closed ones; older ones are deleted.

    A closed finding may be *dismissed*: a person closed it while its source still reports it.
    """

    history: Config[int]
    forgotten: Saved[Count]
    _open: Saved[Annotated[dict[str, Finding], Converter(_dump_findings, _load_findings)]]
    _closed: Saved[Annotated[dict[str, Finding], Converter(_dump_closed, _load_findings)]]
    """By id, in the order of closing."""
    _last: Derived[dict[str, str]]
    """By key, the id of the finding that was closed last."""
    _dismissed: Derived[set[str]]

    def __init__(self, history: int) -> None:
        self.history = history
        self.forgotten = 0
        self._open = {}
        self._closed = {}
        self._last = {}
        self._dismissed = set()

    def _restored(self) -> None:
        # What sources would have reported during the downtime is unknown, so absence restarts.
        findings = [*self._closed.values(), *self._open.values()]
        forgotten = self.forgotten
        self._open, self._closed, self._last, self._dismissed = {}, {}, {}, set()
        for finding in findings:
            self.put(replace(finding, absent=None))
        self.forgotten = forgotten

    def __contains__(self, key: str) -> bool:
        """Whether a finding with that key is open."""
        return key in self._open

    def __getitem__(self, key: str) -> Finding:
        """The open finding with that key. Raises KeyError."""
        return self._open[key]

    def __iter__(self) -> Iterator[Finding]:
        """Open findings, in any order; the store may be changed during the iteration."""
        return iter(list(self._open.values()))

    def open(self) -> list[Finding]:
        """Open findings: the most severe first, then the newest."""
        return sorted(self._open.values(), key=lambda f: (-f.severity, -f.opened, f.id))

    def closed(self) -> Iterator[Finding]:
        """Closed findings, the last closed first."""
        return reversed(self._closed.values())

    def find(self, id_: str) -> Finding:
        """The finding with that id, open or closed. Raises UnknownFindingError."""
        found = self._closed.get(id_) or next((f for f in self._open.values() if f.id == id_), None)
        if found is None:
            raise UnknownFindingError(f"no finding {id_!r}, or it was deleted")
        return found

    def last(self, key: str) -> Finding | None:
        """The finding with that key that was closed last; None if there is none."""
        return self._closed.get(self._last.get(key, ""))

    def dismissed(self) -> list[Finding]:
        """Findings that a person closed and that their sources still report."""
        return [self._closed[id_] for id_ in self._dismissed]

    def set(self, finding: Finding) -> None:
        """Replace the open finding with the same key, without recording a change."""
        self._open[finding.key] = finding

    def set_closed(self, finding: Finding) -> None:
        """Replace a closed finding, without recording a change."""
        self._closed[finding.id] = finding
        if not finding.dismissed:
            self._dismissed.discard(finding.id)

    def change(self, finding: Finding, kind: str, now: float, detail: str) -> Change:
        """Store ``finding`` with one more change, which is returned. ``kind`` and ``detail`` are
        those of the :class:`Change`, ``now`` is unix seconds."""
        finding = replace(
            finding, revision=finding.revision + 1, event=kind, change=detail, changed=now
        )
        self.put(finding)
        return Change(kind, finding, now, detail)

    def put(self, finding: Finding) -> None:
        """Store ``finding`` as open or closed, and remove its former entry."""
        self._remove(finding.id)
        former = self._open.get(finding.key)
        if former is not None and former.id == finding.id:
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
        """Delete the oldest closed findings over the limit; dismissed ones last, because without
        their entry they would open again."""
        while len(self._closed) > self.history:
            oldest = next((id_ for id_ in self._closed if id_ not in self._dismissed), None)
            self._remove(oldest or next(iter(self._closed)))
            self.forgotten += 1

    def _remove(self, id_: str) -> None:
        removed = self._closed.pop(id_, None)
        self._dismissed.discard(id_)
        if removed is not None and self._last.get(removed.key) == id_:
            del self._last[removed.key]

    def prepend(self, finding: Finding) -> None:
        """Add a finding that was closed before all others, if the limit allows."""
        if finding.open or finding.id in self._closed or len(self._closed) >= self.history:
            return
        self._closed = {finding.id: replace(finding, dismissed=False), **self._closed}
        self._last.setdefault(finding.key, finding.id)
