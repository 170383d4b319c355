"""The life cycle of findings: they open once, are updated while the problem lasts, and close.

Pure: the time is passed in, nothing is written, and only the two callbacks are called. The ledger
guarantees, whatever is reported and however the clock jumps:

* there are never two open findings with the same key;
* the changes of a finding are opened, any number of updates, closed and, when the problem returns,
  reopened and so on: it is never opened or closed twice in a row;
* each model has at most ``max_open`` open findings, besides one that summarises the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from understudy.monitor.errors import FindingError, FindingStateError, UnknownFindingError
from understudy.monitor.findings.changes import Change, describe_changes, is_worse
from understudy.monitor.findings.finding import Finding, Note, Signal, rank
from understudy.monitor.findings.finding_store import FindingStore
from understudy.monitor.findings.incident import Incident, incidents_of
from understudy.monitor.findings.limits import HeldBack, Limits, Openings
from understudy.monitor.findings.silences import Silence, Silences
from understudy.shadow.state import Config, Count, Key, Saved, Stateful, Transient

SUMMARY = "findings"
"""Source of the findings that summarise others."""
_MAX_TOTALS = 1000
_LATEST = 253402300799.0  # the end of the year 9999


class Findings(Stateful):
    """All findings of a service.

    ``on_changes`` is called with every list of changes, before the method that made them returns.
    ``on_accepted`` is called with a finding that a person closed as the new normal, so that its
    source can learn a new baseline.
    """

    state_version = 2

    limits: Config[Limits]
    on_changes: Config[Callable[[list[Change]], None] | None]
    on_accepted: Config[Callable[[Finding], None] | None]
    silences: Saved[Silences]
    totals: Saved[Counter[tuple[str, str]]]
    """Findings opened, by (model, kind)."""
    number: Saved[Count]
    reopened: Saved[Count]
    _store: Saved[Annotated[FindingStore, Key("findings")]]
    _openings: Saved[Openings]
    revision: Transient[int]
    """Number of changes since this object was created."""
    _held_back: Transient[dict[str, dict[str, HeldBack]]]
    """By source and model; the next reports fill it again."""

    def __init__(
        self,
        limits: Limits | None = None,
        on_changes: Callable[[list[Change]], None] | None = None,
        on_accepted: Callable[[Finding], None] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.on_changes = on_changes
        self.on_accepted = on_accepted
        self._reset()

    def _reset(self) -> None:
        self.silences = Silences()
        self.totals = Counter()
        self.reopened = 0
        self.number = 0
        self.revision = 0
        self._store = FindingStore(self.limits.history)
        self._held_back = {}
        self._openings = Openings()

    # Queries ------------------------------------------------------------------------------------

    def open(self) -> list[Finding]:
        """Open findings: the most severe first, then the newest."""
        return self._store.open()

    def closed(self) -> list[Finding]:
        """Closed findings that are still stored, the last closed first."""
        return list(self._store.closed())

    def all(self) -> list[Finding]:
        """Open findings, then closed ones."""
        return self.open() + self.closed()

    def find(self, id_: str) -> Finding:
        """The finding with that id. Raises UnknownFindingError."""
        return self._store.find(id_)

    def incidents(self) -> list[Incident]:
        """Open incidents, with the closed findings of them that are stored: the most severe first,
        then the newest."""
        return [incident for incident in self.all_incidents() if incident.open]

    def all_incidents(self) -> list[Incident]:
        """Open incidents, then closed ones, the last closed first."""
        return incidents_of(self.all())

    def incident(self, id_: str) -> Incident:
        """The incident with that id. Raises UnknownFindingError."""
        members = [finding for finding in self.all() if finding.incident == id_]
        if not members:
            raise UnknownFindingError(f"no incident {id_!r}, or it was deleted")
        return incidents_of(members)[0]

    @property
    def forgotten(self) -> int:
        """Number of closed findings that were deleted because ``history`` was full."""
        return self._store.forgotten

    def configure(self, limits: Limits) -> None:
        """Apply other limits."""
        self.limits = limits
        self._store.history = limits.history
        self._store.tidy()

    # Reports of sources -------------------------------------------------------------------------

    def report(
        self, source: str, signals: Iterable[Signal], now: float, hold: float | None = None
    ) -> list[Change]:
        """Take the complete list of problems that ``source`` sees at ``now``, unix seconds.

        A finding that is no longer in the list closes after ``hold`` seconds, by default those of
        the limits, counted between reports of the source. Of two signals with the same key the more
        severe one counts. Returns the changes. Raises FindingError when ``now`` is not finite.
        """
        now = _time(now)
        hold = self.limits.hold if hold is None else hold
        present: dict[str, Signal] = {}
        for signal in signals:
            known = present.get(signal.key)
            if known is None or rank(signal.severity) > rank(known.severity):
                present[signal.key] = signal
        changes: list[Change] = []
        for key, signal in present.items():
            if key in self._store:
                changes += self._end_other(signal, now)
            if key in self._store:
                changes += self._refresh(source, signal, now)
        changes += self._mark_absent(source, present, now, hold)
        held_back: dict[str, HeldBack] = {}
        for signal in sorted(present.values(), key=lambda s: -rank(s.severity)):
            if signal.key in self._store or self._is_dismissed(signal):
                continue
            opened = self._open(source, signal, now)
            changes += opened
            if not opened:
                held_back.setdefault(signal.model, HeldBack()).add(signal)
        self._held_back[source] = held_back
        changes += self._summarise(now)
        return self._publish(changes)

    def _end_other(self, signal: Signal, now: float) -> list[Change]:
        """Close the open finding with the signal's key if it is about something else: a person's
        acknowledgement of the one is none of the other."""
        finding = self._store[signal.key]
        if finding.identity == (signal.kind, signal.model, signal.version, signal.segment):
            return []
        return [self._close(finding, now, "replaced by a finding about something else")]

    def _refresh(self, source: str, signal: Signal, now: float) -> list[Change]:
        finding = self._store[signal.key]
        fresh = replace(
            finding,
            source=source,
            signal=signal,
            seen=now,
            absent=None,
            silenced_until=self.silences.until(signal.key, now),
        )
        details = describe_changes(finding.notified, signal)
        age = now - finding.changed
        milder = rank(signal.severity) < rank(finding.notified.severity)
        wait = self.limits.hold if milder else self.limits.update_interval
        # An age below zero: the clock was set back, so the true age is unknown.
        if not details or not (is_worse(finding.notified, signal) or age >= wait or age < 0.0):
            self._store.set(fresh)
            return []
        detail = "; ".join(details)
        acknowledged = finding.acknowledged and not is_worse(finding.notified, signal)
        fresh = replace(
            fresh, notified=signal, updates=fresh.updates + 1, acknowledged=acknowledged
        )
        return [self._store.change(fresh, "updated", now, detail)]

    def _mark_absent(
        self, source: str, present: Mapping[str, Signal], now: float, hold: float
    ) -> list[Change]:
        changes: list[Change] = []
        for finding in self._store.open():
            if finding.source != source or finding.key in present:
                continue
            since = now if finding.absent is None else min(finding.absent, now)
            if now - since >= hold:
                changes.append(self._close(finding, now, "recovered"))
            else:
                self._store.set(replace(finding, absent=since))
        for finding in self._store.dismissed():
            if finding.source != source:
                continue
            if finding.key in present:
                self._store.set_closed(replace(finding, absent=None))
                continue
            since = now if finding.absent is None else min(finding.absent, now)
            still_reported = now - since < hold
            self._store.set_closed(replace(finding, absent=since, dismissed=still_reported))
        return changes

    def _is_dismissed(self, signal: Signal) -> bool:
        """Whether a person has closed it, and since then it has neither recovered nor become
        worse."""
        last = self._store.last(signal.key)
        return last is not None and last.dismissed and rank(signal.severity) <= last.severity

    def _open(self, source: str, signal: Signal, now: float) -> list[Change]:
        """Open or reopen a finding; empty when a limit is reached."""
        severity = rank(signal.severity)
        model = signal.model
        if source != SUMMARY:
            most = self.limits.max_openings
            if not self._openings.allow(model, severity, most, now):
                return []
        evicted = self._evict_milder(model, severity, now) if source != SUMMARY else []
        if evicted is None:
            return []
        if source != SUMMARY:
            self._openings.record(model, now)
        return [*evicted, self._open_or_reopen(source, signal, now)]

    def _evict_milder(self, model: str, severity: int, now: float) -> list[Change] | None:
        """Close a milder finding when the limit is reached; None when all are as severe."""
        open_ = [f for f in self._store if f.signal.model == model and f.source != SUMMARY]
        if len(open_) < self.limits.max_open:
            return []
        mildest = min(open_, key=lambda f: (f.severity, not f.acknowledged, -f.opened, f.id))
        if mildest.severity >= severity:
            return None
        return [self._close(mildest, now, "summarised: replaced by a more severe finding")]

    def _open_or_reopen(self, source: str, signal: Signal, now: float) -> Change:
        until = self.silences.until(signal.key, now)
        last = self._store.last(signal.key)
        same = last is not None and last.identity == (
            signal.kind, signal.model, signal.version, signal.segment
        )  # fmt: skip
        # A closing in the future: the clock was set back.
        if last is not None and same and now - (last.closed or 0.0) < self.limits.grace:
            self.reopened += 1
            again = replace(
                last,
                source=source,
                signal=signal,
                notified=signal,
                seen=now,
                closed=None,
                reason="",
                reopened=last.reopened + 1,
                dismissed=False,
                acknowledged=last.acknowledged and not is_worse(last.notified, signal),
                absent=None,
                silenced_until=until,
            )
            return self._store.change(again, "reopened", now, "returned")
        if last is not None and last.dismissed:
            self._store.set_closed(replace(last, dismissed=False))
        self.number += 1
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S")
        key = signal.model, signal.kind
        # Models come from the configuration; this bounds the counter should a source invent them.
        known = key in self.totals or len(self.totals) < _MAX_TOTALS
        self.totals[key if known else ("other", signal.kind)] += 1
        id_ = f"{stamp}-{self.number}"
        new = Finding(
            id_,
            source,
            signal,
            signal,
            now,
            now,
            now,
            silenced_until=until,
            incident=self._incident_for(source, signal, now),
        )
        return self._store.change(replace(new, revision=0), "opened", now, "")

    def _incident_for(self, source: str, signal: Signal, now: float) -> str:
        """The open incident that a new finding joins; empty if it starts one. A summary joins the
        newest one of its model."""
        open_ = {f.incident for f in self._store if f.signal.model == signal.model}
        members = [finding for finding in self.all() if finding.incident in open_]
        fitting = [
            one
            for one in incidents_of(members)
            if one.open
            and (source == SUMMARY or one.lead.signal.version == signal.version)
            and (source == SUMMARY or one.accepts(signal, now))
        ]
        return max(fitting, key=lambda one: one.opened).id if fitting else ""

    def _summarise(self, now: float) -> list[Change]:
        """One finding per model for all signals that are held back."""
        merged: dict[str, HeldBack] = {}
        for held_back in self._held_back.values():
            for model, part in held_back.items():
                merged[model] = merged.get(model, HeldBack()).merge(part)
        signals = {f"more/{model}": part.signal(model) for model, part in merged.items()}
        changes: list[Change] = []
        for key, signal in signals.items():
            if key in self._store:
                changes += self._refresh(SUMMARY, signal, now)
            elif not self._is_dismissed(signal):
                changes += self._open(SUMMARY, signal, now)
        return changes + self._mark_absent(SUMMARY, signals, now, self.limits.hold)

    # Actions of people --------------------------------------------------------------------------

    def acknowledge(self, id_: str, who: str, why: str, now: float) -> Change:
        """Acknowledge a finding: no more reminders until it becomes worse.

        ``who`` and ``why`` are recorded. Raises UnknownFindingError, or FindingStateError when it
        is closed.
        """
        now = _time(now)
        finding = self._need_open(id_)
        finding = replace(finding, acknowledged=True)
        finding = finding.with_note(Note("acknowledge", who, why, now))
        change = self._store.change(finding, "acknowledged", now, _by(who, why))
        self._publish([change])
        return change

    def acknowledge_incident(self, id_: str, who: str, why: str, now: float) -> list[Change]:
        """Acknowledge every open finding of an incident. One that joins it later is not
        acknowledged. Raises UnknownFindingError, or FindingStateError when it is closed."""
        now = _time(now)
        incident = self.incident(id_)
        if not incident.open:
            raise FindingStateError(f"incident {id_} is already closed")
        note = Note("acknowledge", who, why, now)
        changes = []
        for finding in incident.open_findings:
            if not finding.acknowledged:
                fresh = replace(finding, acknowledged=True).with_note(note)
                changes.append(self._store.change(fresh, "acknowledged", now, _by(who, why)))
        return self._publish(changes)

    def close(self, id_: str, who: str, why: str, now: float, new_normal: bool = False) -> Change:
        """Close a finding that is still reported. It stays closed until it has recovered, or has
        become worse.

        ``new_normal``: the present data is the new normal, so the source may learn a new baseline.
        Raises UnknownFindingError, or FindingStateError when it is closed already.
        """
        now = _time(now)
        finding = self._need_open(id_)
        finding = finding.with_note(Note("close", who, why, now))
        reason = f"closed by {_by(who, why)}" + (", as the new normal" if new_normal else "")
        change = self._close(replace(finding, dismissed=True), now, reason)
        self._publish([change])
        if new_normal and self.on_accepted is not None:
            self.on_accepted(change.finding)
        return change

    def silence(self, pattern: str, until: float, who: str, why: str, now: float) -> Silence:
        """Send no notifications of findings whose key matches ``pattern`` until ``until``, unix
        seconds.

        The findings still open and close. Raises FindingError, FindingStateError.
        """
        now = _time(now)
        silence = self.silences.add(pattern, until, who, why, now)
        self.revision += 1
        self.apply_silences(now)
        return silence

    def end_silence(self, id_: str, now: float) -> Silence:
        """End a silence before its time. Raises UnknownFindingError."""
        silence = self.silences.end(id_)
        self.revision += 1
        self.apply_silences(_time(now))
        return silence

    def retire(self, source: str, now: float) -> list[Change]:
        """Close all findings of a source that no longer runs."""
        now = _time(now)
        self._held_back.pop(source, None)
        changes = [
            self._close(finding, now, f"{source} is no longer monitored")
            for finding in self._store.open()
            if finding.source == source
        ]
        for finding in self._store.dismissed():
            if finding.source == source:
                self._store.set_closed(replace(finding, dismissed=False))
        return self._publish(changes + self._summarise(now))

    def _need_open(self, id_: str) -> Finding:
        finding = self.find(id_)
        if not finding.open:
            raise FindingStateError(f"finding {id_} is already closed ({finding.reason})")
        return finding

    def apply_silences(self, now: float) -> None:
        """Set ``silenced_until`` of all open findings from the present silences."""
        for finding in self._store:
            until = self.silences.until(finding.key, now)
            self._store.set(replace(finding, silenced_until=until))

    def _close(self, finding: Finding, now: float, reason: str) -> Change:
        finding = replace(finding, closed=now, reason=reason, absent=None)
        return self._store.change(finding, "closed", now, reason)

    def _publish(self, changes: list[Change]) -> list[Change]:
        self.revision += len(changes)
        if changes and self.on_changes is not None:
            self.on_changes(changes)
        return changes

    # State --------------------------------------------------------------------------------------

    def load_state(self, state: Any) -> None:
        """Load the result of :meth:`dump_state`. Raises FindingError, and is empty then."""
        try:
            super().load_state(state)
        except (FindingError, KeyError, TypeError, ValueError, AttributeError) as error:
            self._reset()
            raise FindingError(f"the saved findings are not valid: {error}") from error

    @classmethod
    def from_state(cls, state: Any, limits: Limits | None = None) -> Self:
        """A ledger from the result of :meth:`dump_state`. Raises FindingError."""
        findings = cls(limits)
        findings.load_state(state)
        return findings

    def replay(self, kind: str, finding: Finding) -> None:
        """Apply a change of the history that the saved state does not contain."""
        self._store.put(finding)
        number = finding.id.rpartition("-")[2]
        self.number = max(self.number, int(number) if number.isdecimal() else 0)
        if kind == "opened":
            self.totals[finding.signal.model, finding.signal.kind] += 1
        elif kind == "reopened":
            self.reopened += 1

    def add_closed(self, finding: Finding) -> None:
        """Add a closed finding of the history; call it with the last closed one first."""
        self._store.prepend(finding)


def _time(now: float) -> float:
    if not math.isfinite(now):
        raise FindingError(f"not a valid time: {now!r} (expected unix seconds)")
    return min(max(float(now), 0.0), _LATEST)


def _by(who: str, why: str) -> str:
    return f"{who}: {why}" if why else who
