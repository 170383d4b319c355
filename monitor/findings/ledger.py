"""The life of findings: they open once, are updated while they last, and close.

Pure: the time is passed in, nothing is written and nobody is called but the two listeners. What a
ledger promises, whatever is reported and however the clock jumps:

* at no time are there two open findings with one key;
* the changes of one finding are opened, any number of updates, closed, and then, when it comes
  back, reopened and so on: it is never opened or closed twice in a row;
* of each model at most ``max_open`` findings are open, besides one that sums up the others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from typing import Annotated, Any, Self

from understudy.monitor.errors import FindingError, FindingStateError
from understudy.monitor.findings.changes import Change, news, urgent
from understudy.monitor.findings.finding import Finding, Note, Signal, rank
from understudy.monitor.findings.finding_store import FindingStore
from understudy.monitor.findings.limits import Hidden, Limits, Openings
from understudy.monitor.findings.silences import Silence, Silences
from understudy.shadow.state import Config, Count, Key, Saved, Stateful, Transient

MORE = "findings"
"""The room of findings that sum up others."""
_MAX_TOTALS = 1000
_LATEST = 253402300799.0  # the end of the year 9999


class Findings(Stateful):
    """All findings of a service.

    ``listen`` hears of every list of changes before the call that made them returns.
    ``accept`` hears of a finding that a person closed as the new normal, so that its room can take
    another baseline.
    """

    state_version = 2

    limits: Config[Limits]
    listen: Config[Callable[[list[Change]], None] | None]
    accept: Config[Callable[[Finding], None] | None]
    silences: Saved[Silences]
    totals: Saved[Counter[tuple[str, str]]]
    """Findings opened, by (model, kind)."""
    number: Saved[Count]
    reopened: Saved[Count]
    _shelf: Saved[Annotated[FindingStore, Key("findings")]]
    _openings: Saved[Openings]
    revision: Transient[int]
    """Changes of this object's own."""
    _hidden: Transient[dict[str, dict[str, Hidden]]]
    """By room and model; what rooms say next fills it again."""

    def __init__(
        self,
        limits: Limits | None = None,
        listen: Callable[[list[Change]], None] | None = None,
        accept: Callable[[Finding], None] | None = None,
    ) -> None:
        self.limits = limits or Limits()
        self.listen = listen
        self.accept = accept
        self._begin_anew()

    def _begin_anew(self) -> None:
        self.silences = Silences()
        self.totals = Counter()
        self.reopened = 0
        self.number = 0
        self.revision = 0
        self._shelf = FindingStore(self.limits.history)
        self._hidden = {}
        self._openings = Openings()

    # To look at ---------------------------------------------------------------------------------

    def open(self) -> list[Finding]:
        """Those that are open: the worst first, then the newest."""
        return self._shelf.open()

    def closed(self) -> list[Finding]:
        """Those that are closed and still kept, the last one first."""
        return list(self._shelf.closed())

    def all(self) -> list[Finding]:
        """Open ones, then closed ones."""
        return self.open() + self.closed()

    def find(self, id_: str) -> Finding:
        """Raises UnknownFindingError."""
        return self._shelf.find(id_)

    @property
    def forgotten(self) -> int:
        """Closed findings that the history had no room for any more."""
        return self._shelf.forgotten

    def configure(self, limits: Limits) -> None:
        """Go on within other limits."""
        self.limits = limits
        self._shelf.history = limits.history
        self._shelf.tidy()

    # What rooms say -----------------------------------------------------------------------------

    def report(
        self, room: str, signals: Iterable[Signal], now: float, hold: float | None = None
    ) -> list[Change]:
        """Everything that ``room`` says is wrong at ``now``, unix seconds.

        What it does not name any more closes after ``hold`` seconds, by default those of the
        limits; only times at which the room did report count. Of two signals with one key the worse
        one counts. Returns what has changed. Raises FindingError when ``now`` is no time.
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
            if key in self._shelf:
                changes += self._refresh(room, signal, now)
        changes += self._absentees(room, present, now, hold)
        hidden: dict[str, Hidden] = {}
        for signal in sorted(present.values(), key=lambda s: -rank(s.severity)):
            if signal.key in self._shelf or self._is_dismissed(signal):
                continue
            opened = self._enter(room, signal, now)
            changes += opened
            if not opened:
                hidden.setdefault(signal.model, Hidden()).add(signal)
        self._hidden[room] = hidden
        changes += self._sum_up(now)
        return self._tell(changes)

    def _refresh(self, room: str, signal: Signal, now: float) -> list[Change]:
        finding = self._shelf[signal.key]
        fresh = replace(
            finding,
            room=room,
            signal=signal,
            seen=now,
            absent=None,
            silenced_until=self.silences.until(signal.key, now),
        )
        told = news(finding.told, signal)
        age = now - finding.changed
        calm = rank(signal.severity) < rank(finding.told.severity)
        wait = self.limits.hold if calm else self.limits.settle
        # An age below zero: the clock was set back, and nobody knows how long ago it was.
        if not told or not (urgent(finding.told, signal) or age >= wait or age < 0.0):
            self._shelf.set(fresh)
            return []
        detail = "; ".join(told)
        acknowledged = finding.acknowledged and not urgent(finding.told, signal)
        fresh = replace(fresh, told=signal, updates=fresh.updates + 1, acknowledged=acknowledged)
        return [self._shelf.change(fresh, "updated", now, detail)]

    def _absentees(
        self, room: str, present: Mapping[str, Signal], now: float, hold: float
    ) -> list[Change]:
        changes: list[Change] = []
        for finding in self._shelf.open():
            if finding.room != room or finding.key in present:
                continue
            since = now if finding.absent is None else min(finding.absent, now)
            if now - since >= hold:
                changes.append(self._close(finding, now, "recovered"))
            else:
                self._shelf.set(replace(finding, absent=since))
        for finding in self._shelf.dismissed():
            if finding.room != room:
                continue
            if finding.key in present:
                self._shelf.set_closed(replace(finding, absent=None))
                continue
            since = now if finding.absent is None else min(finding.absent, now)
            lasts = now - since < hold
            self._shelf.set_closed(replace(finding, absent=since, dismissed=lasts))
        return changes

    def _is_dismissed(self, signal: Signal) -> bool:
        """Whether a person has closed it, nothing has become worse and it never went away."""
        last = self._shelf.last(signal.key)
        return last is not None and last.dismissed and rank(signal.severity) <= last.severity

    def _enter(self, room: str, signal: Signal, now: float) -> list[Change]:
        """Open or reopen; empty when there is no room for it."""
        severity = rank(signal.severity)
        model = signal.model
        if room != MORE:
            most = self.limits.max_openings
            if not self._openings.allow(model, severity, most, now):
                return []
        made_room = self._make_room(model, severity, now) if room != MORE else []
        if made_room is None:
            return []
        if room != MORE:
            self._openings.took(model, now)
        return [*made_room, self._begin(room, signal, now)]

    def _make_room(self, model: str, severity: int, now: float) -> list[Change] | None:
        """Let a milder finding make way for a worse one; None when there is no room."""
        have = [f for f in self._shelf if f.signal.model == model and f.room != MORE]
        if len(have) < self.limits.max_open:
            return []
        mildest = min(have, key=lambda f: (f.severity, not f.acknowledged, -f.opened, f.id))
        if mildest.severity >= severity:
            return None
        return [self._close(mildest, now, "summarised: replaced by a more severe finding")]

    def _begin(self, room: str, signal: Signal, now: float) -> Change:
        until = self.silences.until(signal.key, now)
        last = self._shelf.last(signal.key)
        # A closing in the future: the clock was set back.
        if last is not None and now - (last.closed or 0.0) < self.limits.grace:
            self.reopened += 1
            again = replace(
                last,
                room=room,
                signal=signal,
                told=signal,
                seen=now,
                closed=None,
                reason="",
                reopened=last.reopened + 1,
                dismissed=False,
                acknowledged=last.acknowledged and not urgent(last.told, signal),
                absent=None,
                silenced_until=until,
            )
            return self._shelf.change(again, "reopened", now, "returned")
        if last is not None and last.dismissed:
            self._shelf.set_closed(replace(last, dismissed=False))
        self.number += 1
        stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S")
        key = signal.model, signal.kind
        # Models are those of the configuration; in case a room takes them from elsewhere.
        known = key in self.totals or len(self.totals) < _MAX_TOTALS
        self.totals[key if known else ("other", signal.kind)] += 1
        new = Finding(
            f"{stamp}-{self.number}", room, signal, signal, now, now, now, silenced_until=until
        )
        return self._shelf.change(replace(new, revision=0), "opened", now, "")

    def _sum_up(self, now: float) -> list[Change]:
        """One finding per model for all that had no room."""
        together: dict[str, Hidden] = {}
        for hidden in self._hidden.values():
            for model, part in hidden.items():
                together[model] = together.get(model, Hidden()).merge(part)
        signals = {f"more/{model}": part.signal(model) for model, part in together.items()}
        changes: list[Change] = []
        for key, signal in signals.items():
            if key in self._shelf:
                changes += self._refresh(MORE, signal, now)
            elif not self._is_dismissed(signal):
                changes += self._enter(MORE, signal, now)
        return changes + self._absentees(MORE, signals, now, self.limits.hold)

    # What people do -----------------------------------------------------------------------------

    def acknowledge(self, id_: str, who: str, why: str, now: float) -> Change:
        """Somebody has seen it: no reminders any more, until it gets worse.

        Raises UnknownFindingError, or FindingStateError when it is closed.
        """
        now = _time(now)
        finding = self._need_open(id_)
        finding = replace(finding, acknowledged=True)
        finding = finding.with_note(Note("acknowledge", who, why, now))
        change = self._shelf.change(finding, "acknowledged", now, _by(who, why))
        self._tell([change])
        return change

    def close(self, id_: str, who: str, why: str, now: float, new_normal: bool = False) -> Change:
        """Close it although it lasts. It stays closed until it has gone away or has become worse.

        ``new_normal``: it will be like this from now on, and the room may take another baseline.
        Raises UnknownFindingError, or FindingStateError when it is closed already.
        """
        now = _time(now)
        finding = self._need_open(id_)
        finding = finding.with_note(Note("close", who, why, now))
        reason = f"closed by {_by(who, why)}" + (", as the new normal" if new_normal else "")
        change = self._close(replace(finding, dismissed=True), now, reason)
        self._tell([change])
        if new_normal and self.accept is not None:
            self.accept(change.finding)
        return change

    def silence(self, pattern: str, until: float, who: str, why: str, now: float) -> Silence:
        """Tell nobody of findings whose key fits ``pattern`` before ``until``, unix seconds.

        They open and close all the same. Raises FindingError, FindingStateError.
        """
        now = _time(now)
        silence = self.silences.add(pattern, until, who, why, now)
        self.revision += 1
        self.hush(now)
        return silence

    def end_silence(self, id_: str, now: float) -> Silence:
        """Raises UnknownFindingError."""
        silence = self.silences.end(id_)
        self.revision += 1
        self.hush(_time(now))
        return silence

    def retire(self, room: str, now: float) -> list[Change]:
        """A room is no more: what it reported closes at once."""
        now = _time(now)
        self._hidden.pop(room, None)
        changes = [
            self._close(finding, now, f"{room} is no longer monitored")
            for finding in self._shelf.open()
            if finding.room == room
        ]
        for finding in self._shelf.dismissed():
            if finding.room == room:
                self._shelf.set_closed(replace(finding, dismissed=False))
        return self._tell(changes + self._sum_up(now))

    def _need_open(self, id_: str) -> Finding:
        finding = self.find(id_)
        if not finding.open:
            raise FindingStateError(f"finding {id_} is already closed ({finding.reason})")
        return finding

    def hush(self, now: float) -> None:
        """Let findings know which silences there are: after these were restored."""
        for finding in self._shelf:
            until = self.silences.until(finding.key, now)
            self._shelf.set(replace(finding, silenced_until=until))

    def _close(self, finding: Finding, now: float, reason: str) -> Change:
        finding = replace(finding, closed=now, reason=reason, absent=None)
        return self._shelf.change(finding, "closed", now, reason)

    def _tell(self, changes: list[Change]) -> list[Change]:
        self.revision += len(changes)
        if changes and self.listen is not None:
            self.listen(changes)
        return changes

    # Keeping ------------------------------------------------------------------------------------

    def load_state(self, state: Any) -> None:
        """Become what :meth:`dump_state` gave. Raises FindingError, and is as new then."""
        try:
            super().load_state(state)
        except (FindingError, KeyError, TypeError, ValueError, AttributeError) as error:
            self._begin_anew()
            raise FindingError(f"no saved findings: {error}") from error

    @classmethod
    def from_state(cls, state: Any, limits: Limits | None = None) -> Self:
        """What :meth:`dump_state` gave. Raises FindingError."""
        findings = cls(limits)
        findings.load_state(state)
        return findings

    def replay(self, kind: str, finding: Finding) -> None:
        """Take in a change that the history knows of and the saved state does not."""
        self._shelf.take(finding)
        number = finding.id.rpartition("-")[2]
        self.number = max(self.number, int(number) if number.isdecimal() else 0)
        if kind == "opened":
            self.totals[finding.signal.model, finding.signal.kind] += 1
        elif kind == "reopened":
            self.reopened += 1

    def remember(self, finding: Finding) -> None:
        """Take in a closed finding of the history; call it with those closed last first."""
        self._shelf.remember(finding)


def _time(now: float) -> float:
    if not math.isfinite(now):
        raise FindingError(f"{now!r} is no time")
    return min(max(float(now), 0.0), _LATEST)


def _by(who: str, why: str) -> str:
    return f"{who}: {why}" if why else who
