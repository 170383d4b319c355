"""Incidents: findings of one model that open close together, with one headline.

One fault shows in many places: a column is missing, its neighbours drift, the predictions move.
Each cause is a separate finding, which people acknowledge and close one by one; what they are
notified of is the incident.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from understudy.monitor.findings.finding import Finding, Signal

GATHER_SECONDS = 600.0
"""A finding joins an incident that opened, or whose cause began, at most that long before or
after."""
MAX_FINDINGS = 50
"""Findings of one incident; the next one starts another."""
_NAMED = 3


@dataclass(frozen=True, slots=True)
class Incident:
    """``findings`` are all that are stored, the most severe open one first. Times are unix
    seconds."""

    id: str
    findings: tuple[Finding, ...]

    @property
    def lead(self) -> Finding:
        """The finding that the headline begins with."""
        return self.findings[0]

    @property
    def open_findings(self) -> tuple[Finding, ...]:
        """Those that have not closed."""
        return tuple(finding for finding in self.findings if finding.open)

    @property
    def open(self) -> bool:
        """Whether any finding is open."""
        return bool(self.open_findings)

    @property
    def opened(self) -> float:
        """When the first finding opened."""
        return min(finding.opened for finding in self.findings)

    @property
    def since(self) -> float | None:
        """The earliest change point of a finding; None if none has one."""
        known = [f.signal.since for f in self.findings if f.signal.since is not None]
        return min(known, default=None)

    @property
    def closed(self) -> float | None:
        """When the last finding closed; None while one is open."""
        return None if self.open else max(f.closed or 0.0 for f in self.findings)

    @property
    def severity(self) -> int:
        """Rank of the most severe open finding; of all findings, when none is open."""
        return max(finding.severity for finding in self.open_findings or self.findings)

    @property
    def acknowledged(self) -> bool:
        """Whether every open finding is acknowledged: a new one makes it unacknowledged."""
        return self.open and all(finding.acknowledged for finding in self.open_findings)

    @property
    def headline(self) -> str:
        """One line: the leading finding, and what the others are about."""
        current = self.open_findings or self.findings
        first, rest = current[0], current[1:]
        if not rest:
            return first.signal.title
        names = list(dict.fromkeys(_about(finding.signal) for finding in rest))
        more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
        count = f"{len(rest)} more finding{'' if len(rest) == 1 else 's'}"
        return f"{first.signal.title}; {count}: {', '.join(names[:_NAMED])}{more}"

    def accepts(self, signal: Signal, now: float) -> bool:
        """Whether a new finding of ``signal`` at ``now`` belongs to it."""
        if not self.open or len(self.findings) >= MAX_FINDINGS:
            return False
        if 0.0 <= now - self.opened <= GATHER_SECONDS:
            return True
        since = self.since
        if since is None or signal.since is None:
            return False
        return abs(signal.since - since) <= GATHER_SECONDS

    def only(self, ids: Iterable[str]) -> Incident:
        """With these findings alone."""
        chosen = set(ids)
        return Incident(self.id, tuple(f for f in self.findings if f.id in chosen))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able, without the findings."""
        signal = self.lead.signal
        return {
            "id": self.id,
            "state": "open" if self.open else "closed",
            "headline": self.headline,
            "severity": _severity(self),
            "model": signal.model,
            "version": signal.version,
            "opened": self.opened,
            "since": self.since,
            "closed": self.closed,
            "acknowledged": self.acknowledged,
            "finding_ids": [finding.id for finding in self.findings],
        }


def incidents_of(findings: Iterable[Finding]) -> list[Incident]:
    """All incidents of these findings: open ones first, the most severe first, then the newest."""
    by_id: dict[str, list[Finding]] = {}
    for finding in findings:
        by_id.setdefault(finding.incident, []).append(finding)
    made = [
        Incident(id_, tuple(sorted(group, key=_order))) for id_, group in by_id.items()
    ]  # fmt: skip
    return sorted(
        made,
        key=lambda one: (not one.open, -one.severity if one.open else 0, -_newest(one), one.id),
    )


def _order(finding: Finding) -> tuple[bool, int, float, str]:
    return not finding.open, -finding.severity, finding.opened, _numbered(finding.id)


def _numbered(id_: str) -> str:
    """Orders ids of the same second by their number."""
    return id_.rpartition("-")[2].zfill(12)


def _newest(incident: Incident) -> float:
    return incident.opened if incident.open else incident.closed or 0.0


def _severity(incident: Incident) -> str:
    current = incident.open_findings or incident.findings
    return max(current, key=lambda finding: finding.severity).signal.severity


def _about(signal: Signal) -> str:
    """What a finding is about, in a word or two."""
    if signal.segment:
        return signal.segment
    if signal.features:
        return signal.features[0].name
    return signal.title
