"""One experiment on live traffic: takes evidence, decides, and advances the rollout."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Annotated

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.config.rules import rules_of
from understudy.monitor.evidence.arms import Arms
from understudy.monitor.evidence.batch import ColumnBatch, merge
from understudy.monitor.evidence.columns import Floats, listed
from understudy.monitor.evidence.layout import (
    ASSIGNED,
    FACTS,
    LABELS,
    NOTES,
    PAIRS,
    EvidenceLayout,
)
from understudy.monitor.evidence.observe import Codes, numbered
from understudy.monitor.experiments.contestant import ChallengerState
from understudy.monitor.experiments.history import UnitHistory
from understudy.monitor.experiments.pending_pairs import PendingPairs
from understudy.monitor.experiments.timeline import point_of
from understudy.monitor.routing.assignments import Assignments
from understudy.monitor.routing.routes import Assignment
from understudy.shadow import comparison, rollout
from understudy.shadow.assignment import Allocation
from understudy.shadow.experiment import (
    Decision,
    Experiment,
    OpenPairs,
    Pairs,
    Split,
    Unanswered,
)
from understudy.shadow.experiment.decision import HARM, OPERATOR
from understudy.shadow.experiment.fates import (
    ANSWERED,
    BREAKER_OPEN,
    DIVERTED,
    OUTSIDE,
    OVERDUE,
    PENDING,
    REPORTED,
    TALLIES,
    UNREADABLE,
    counted,
    ends,
    pair_ends,
    tallies,
    unit_ends,
)
from understudy.shadow.experiment.units import Observed, UnitTable
from understudy.shadow.state import Config, Count, Key, Saved, Stateful


class LiveExperiment(Stateful):
    """One experiment on live traffic.

    ``declared`` is its configuration, ``arms`` are its arm names, ``now`` is unix time in seconds:
    the clock is always passed in.
    """

    declared: Config[Declared]
    arms: Config[Arms]
    started: Config[float]
    layout: Config[EvidenceLayout]
    by_unit: Config[bool]
    order: Config[tuple[str, ...]]
    allocation: Config[Allocation]
    divided_at: Config[float]
    carried_over: Saved[Count]
    _weights: Saved[tuple[float, ...]]
    _epoch: Saved[float]
    _counts_from: Saved[float]
    experiment: Saved[Annotated[Experiment, Key("evidence")]]
    units: Saved[UnitTable]
    _codes: Saved[Codes]
    history: Saved[UnitHistory]
    _assigned: Saved[Assignments]
    _pending: Saved[dict[str, PendingPairs]]
    contestants: Saved[dict[str, ChallengerState]]
    _columns: Config[tuple[str, ...]]

    def __init__(self, declared: Declared, arms: Arms, now: float) -> None:
        self.declared = declared
        self.arms = arms
        self.started = now
        self.layout = EvidenceLayout(declared, arms)
        self.by_unit = self.layout.by_unit
        self.order = self.layout.order
        rules = rules_of(declared)
        self.experiment = Experiment(
            declared.name, declared.challengers, rules, by_unit=self.by_unit
        )
        self.contestants = {
            name: ChallengerState(name, declared, now) for name in declared.challengers
        }
        self.allocation = Allocation()
        self.divided_at = now
        """Unix time at which the current allocation was decided."""
        self.carried_over = 0
        """Records excluded because they started before or just after a change of weights; reports
        of unfinished requests do not count."""
        self._columns = self.layout.columns
        self._codes = Codes()
        self.units = UnitTable((*self._columns, *TALLIES), declared.name.encode()[:64])
        self.history = UnitHistory(self._columns, declared.name.encode()[:64])
        self._assigned = Assignments(len(self.order))
        wait = arms.wait(declared.challengers)
        self._pending = {name: PendingPairs(wait) for name in declared.challengers}
        self._weights = ()
        """Of :attr:`order`, under which the records of this epoch were assigned."""
        self._epoch = 0.0
        self._counts_from = 0.0
        """Unix time; requests that started before it are excluded, pairs by their end."""

    # Evidence -----------------------------------------------------------------------------------

    def feed(self, batches: Sequence[ColumnBatch]) -> None:
        """Pass rows to the statistics, sorted by time."""
        for batch in merge(batches):
            row_type = batch.kind[0]
            if row_type == ASSIGNED:
                self._feed_assigned(batch)
            elif row_type == PAIRS:
                self._feed_pairs(batch)
            elif row_type == LABELS:
                self._feed_labels(batch)
            elif row_type == NOTES:
                self._feed_notes(batch)

    def _feed_assigned(self, batch: ColumnBatch) -> None:
        """Requests of a split, epoch by epoch.

        Workers switch to new weights one after another, so for a moment records of both interleave:
        those of the older weights are excluded.
        """
        width = len(batch.names) - len(FACTS) - 1 - len(self._columns)
        if width != len(self.order):
            return
        epochs = batch.floats("epoch")
        present = np.maximum.accumulate(np.maximum(epochs, self._epoch))
        begins = np.flatnonzero(np.diff(present, prepend=self._epoch if self._weights else -np.inf))
        for begin, end in pairwise([0, *(b for b in begins.tolist() if b), len(batch)]):
            part = batch.rows(slice(begin, end))
            epoch = float(present[begin])
            if (epoch != self._epoch or not self._weights) and epochs[begin] == epoch:
                self._begin_epoch(
                    epoch, tuple(float(part.floats(f"w{n}")[0]) for n in range(width))
                )
            of_epoch = epochs[begin:end] == epoch
            since = np.maximum(part.floats("settled"), self._counts_from)
            settled = of_epoch & (part.floats("started") >= since)
            self.carried_over += int((~settled & (part.floats("open") == 0.0)).sum())
            if settled.any():
                self._take_assigned(part.rows(np.flatnonzero(settled)))

    def _begin_epoch(self, epoch: float, weights: tuple[float, ...]) -> None:
        self._check_split()
        if self._weights:
            self._observe(self.units.close())
            self._assigned.clear()
            self.experiment.begin_epoch()
            for contestant in self.contestants.values():
                contestant.outage.clear()
        self._weights, self._epoch = weights, epoch

    def _take_assigned(self, batch: ColumnBatch) -> None:
        """Take requests that were assigned under the current weights."""
        sides, unfinished = batch.side, batch.floats("open") > 0.0
        fate = self._fates(batch, "fate")
        limit = self.arms.serving_limits.total
        values = {c: self._numbers(batch, "v.", c) for c in self._columns}
        known, low, high = {}, {}, {}
        for column, cells in values.items():
            known[column], *of_column = ends(column, cells, fate, limit, paired=False)
            if _any_unknown(known[column], of_column[0]):
                low[column], high[column] = of_column
        requests = (batch.floats("started"), batch.floats("seconds"), unfinished, batch.ids)
        self._expect_labels(batch, batch.floats("answered") > 0.0)
        if self.by_unit:
            units = listed(batch.column("unit"))
            known |= self.history.adjust(units, known, any(self._weights[1:]))
            new, begun, observed = self.units.take(
                units,
                sides,
                batch.at,
                {**known, **tallies(fate, batch.floats("seconds"))},
            )
            self._assigned.add(sides, *requests, new)
            self._begin_units(np.bincount(sides[begun], minlength=len(self.order)))
            self._observe(observed)
        else:
            self._assigned.add(sides, *requests)
        there = fate != OUTSIDE
        for number, name in enumerate(self.contestants, start=1):
            mine = there & (sides == number)
            self.contestants[name].traffic.add(batch.floats("started")[mine])
            self.contestants[name].diverted += int((fate[mine] == DIVERTED).sum())
            share = self._share(number)
            mine |= there & (sides == 0)
            if share is None or not mine.any():
                continue
            self.contestants[name].outage.add(
                sides[mine] > 0, fate[mine], batch.floats("started")[mine]
            )
            evaluated, left_out = fate[mine] < DIVERTED, counted(fate[mine])
            contest = self.experiment.contests[name]
            if self.by_unit:
                contest.account_for("split", int(evaluated.sum()), left_out)
                continue
            arms = (sides[mine] > 0).astype(np.float64)
            contest.update_split(
                Split(
                    arms,
                    np.full(arms.size, share),
                    _rows(known, mine),
                    evaluated,
                    low=_rows(low, mine),
                    high=_rows(high, mine),
                    left_out=left_out,
                    skipped=_skipped(fate[mine], arms),
                )
            )

    def _begin_units(self, begun: NDArray[np.intp]) -> None:
        """Count units by arm that have had their first request under the current weights."""
        for number, name in enumerate(self.contestants, start=1):
            if self._share(number) is not None:
                self.experiment.contests[name].begin_units(int(begun[0]), int(begun[number]))

    def _observe(self, observed: Sequence[Observed]) -> None:
        """Take units that have reached an age."""
        limit = self.arms.serving_limits.total
        for one in observed:
            for number, name in enumerate(self.contestants, start=1):
                share = self._share(number)
                units = one.units(number, share) if share is not None else None
                if units is not None:
                    columns, low, high = unit_ends(units.columns, limit)
                    self.experiment.contests[name].update_units(
                        replace(units, columns=columns, low=low, high=high)
                    )

    def _expect_labels(self, batch: ColumnBatch, answered: NDArray[np.bool_]) -> None:
        if not self.layout.wants_labels:
            return
        started = batch.floats("started")
        for number, name in enumerate(self.contestants, start=1):
            mine = answered & ((batch.side == 0) | (batch.side == number))
            if self._share(number) is not None and mine.any():
                arms = (batch.side[mine] > 0).astype(np.float64)
                self.experiment.contests[name].expect_labels(arms, started[mine])

    def _fates(self, batch: ColumnBatch, name: str) -> NDArray[np.int64]:
        """What became of each request; an answer that is never read is one like others."""
        fates = batch.floats(name).astype(np.int64)
        if self.declared.opaque_answers:
            fates[fates == UNREADABLE] = ANSWERED
        return fates

    def _numbers(self, batch: ColumnBatch, prefix: str, column: str) -> Floats:
        return numbered(
            batch.column(prefix + column), lambda cells: self._codes.mean(column, cells)
        )

    def _feed_pairs(self, batch: ColumnBatch) -> None:
        contest = self.experiment.contests.get(batch.kind[2])
        if contest is None or batch.names != self.layout.pairs_names():
            return
        pending = batch.floats("b.fate") == PENDING
        counts = batch.at >= self._counts_from
        self._pending[contest.challenger].take(batch, pending & counts)
        counts &= ~pending
        if not counts.all():
            batch = batch.rows(np.flatnonzero(counts))
        limit = self.arms.limits_of(batch.kind[2]).total
        fates = self._fates(batch, "a.fate"), self._fates(batch, "b.fate")
        known, low, high = {}, {}, {}
        for column in self._columns:
            values = (self._numbers(batch, "a.", column), self._numbers(batch, "b.", column))
            known[column], *of_column = pair_ends(
                column, values, fates, limit, noisy=bool(self.arms.repeat)
            )
            if any(map(_any_unknown, known[column], of_column[0])):
                low[column], high[column] = of_column
        # A request counts under one reason: the challenger's, or else the champion's.
        reasons = np.where(fates[1] >= UNREADABLE, fates[1], fates[0])
        is_fresh = batch.floats("fresh") > 0.0
        fresh = int(is_fresh.sum())
        self.contestants[contest.challenger].traffic.add(batch.at[is_fresh])
        skipped = fates[1] == BREAKER_OPEN
        contest.update_pairs(
            Pairs(known, fresh, low, high, counted(reasons), skipped if skipped.any() else None)
        )

    def _feed_labels(self, batch: ColumnBatch) -> None:
        """Take labels of split traffic.

        Labels of a champion with several challengers get the current share of requests.
        """
        name = batch.kind[2]
        if name not in self.contestants:
            return
        share = batch.floats("share").copy()
        several = np.isnan(share)
        if several.any():
            number = self.order.index(name)
            share[several] = self._share(number) or np.nan
        here = np.flatnonzero(~np.isnan(share))
        if here.size:
            columns = {column: batch.floats(f"v.{column}")[here] for column in self._columns}
            arms = (batch.side[here] > 0).astype(np.float64)
            fresh = np.zeros(here.size, np.bool_)
            first = np.array([batch.ids[row].endswith(b"/0") for row in here.tolist()], np.bool_)
            started = batch.floats("started")[here]
            unit = batch.floats("unit")[here] if self.by_unit else None
            self.experiment.contests[name].update_labels(
                Split(arms, share[here], columns, fresh, started, batch.at[here], first, unit=unit)
            )

    def _feed_notes(self, batch: ColumnBatch) -> None:
        contestant = self.contestants.get(batch.kind[2])
        if contestant is None:
            return
        for note in batch.column("note"):
            if "noise" in note:
                differs, own = note["noise"]
                contestant.noise.update(_differing(differs), _differing(own))
            if "worst" in note:
                contestant.worst.offer(*note["worst"])

    def _share(self, number: int) -> float | None:
        """The challenger's share of the traffic of itself and the champion, in this epoch."""
        if len(self._weights) <= number or not (self._weights[0] and self._weights[number]):
            return None
        return self._weights[number] / (self._weights[0] + self._weights[number])

    # Rollout ------------------------------------------------------------------------------------

    def _check_split(self, everything: bool = False) -> None:
        """Add the requests whose assignment is settled to the test for sample ratio mismatch."""
        given = self._assigned.settled(everything)
        if any(given) and self._weights:
            total = sum(self._weights)
            self.experiment.assigned(given, [w / total for w in self._weights])

    def unanswered(self, share: float = 1.0) -> Unanswered | None:
        """The assigned requests that should have finished by now; None without a split.

        A smaller ``share`` of the age at which they are missing finds those that may be soon.
        """
        if not self._weights:
            return None
        age = share * self._assigned.patience
        return Unanswered(tuple(self._assigned.unfinished(age)), self._weights, age)

    def open_pairs(self) -> OpenPairs:
        """The mirrored requests that should have finished by now, by challenger.

        In its first seconds an experiment has no request of that age: then it is half the time that
        there was traffic.
        """
        lasted = min(c.traffic.seconds for c in self.contestants.values())
        age = min(OVERDUE, max(REPORTED, lasted / 2.0))
        return OpenPairs(
            tuple(self._pending[name].missing(age) for name in self.contestants),
            tuple(self.experiment.contests[name].requests("shadow") for name in self.contestants),
            age,
        )

    def overdue(self) -> list[int]:
        """Requests that should have finished by now, by arm, the champion first: those assigned to
        it, or of a challenger in a shadow stage those mirrored to it."""
        assigned = self.unanswered()
        found = list(assigned.counts) if assigned is not None else [0] * len(self.order)
        mirrored = self.open_pairs().counts
        for number, contestant in enumerate(self.contestants.values(), start=1):
            if contestant.mode == "shadow":
                found[number] = mirrored[number - 1]
        return found

    @property
    def assignments(self) -> Assignments:
        """The requests of the current weights, for display."""
        return self._assigned

    def finish(self) -> None:
        """The traffic has ended, as at the end of a file: take in all that waits for more."""
        self._observe(self.units.close())
        for contest in self.experiment.contests.values():
            contest.finish()
        self._check_split(everything=True)

    def look(self, mode: str, now: float) -> dict[str, Decision]:
        """The decisions on all evidence of ``mode`` so far, at unix time ``now``; final verdicts
        stay. It does not advance the rollout."""
        self._check_split()
        unanswered = self.unanswered() if mode == "split" else self.open_pairs()
        lasted = {name: c.traffic.seconds for name, c in self.contestants.items()}
        decisions = self.experiment.decide(mode, now - self.started, unanswered, lasted)
        for name, contestant in self.contestants.items():
            down = contestant.outage.describe(name) if mode == "split" else ""
            if down and decisions[name].verdict != "rollback":
                decisions[name] = replace(
                    decisions[name], verdict="rollback", reasons=(down,), cause=HARM
                )
        return decisions

    def tick(self, now: float) -> list[rollout.Event]:
        """Decide and advance the rollout; returns the events for the audit log."""
        events: list[rollout.Event] = []
        for mode in {c.mode for c in self.contestants.values()}:
            decisions = self.look(mode, now)
            for name, contestant in self.contestants.items():
                if contestant.mode != mode:
                    continue
                if not contestant.rollout.live:
                    # Keep showing the evidence that ended the rollout.
                    if not contestant.decision.evidence:
                        shown = decisions[name].evidence
                        contestant.decision = replace(contestant.decision, evidence=shown)
                    continue
                decision = contestant.decision = decisions[name]
                requests = self.experiment.contests[name].requests(mode)
                if decision.evidence:
                    contestant.timeline.add(point_of(now, mode, requests, decision.evidence))
                contestant.rollout, happened = rollout.step(
                    contestant.rollout,
                    now,
                    decision.verdict,
                    decision.reasons,
                    requests,
                    decision.cause,
                    self.experiment.contests[name].counted_in(mode),
                )
                events += happened
        winner = next(
            (n for n, c in self.contestants.items() if c.rollout.phase == "promoted"), None
        )
        if winner is not None and self.contestants[winner].rollout.weight == 1.0:
            for name, contestant in self.contestants.items():
                if name != winner and contestant.rollout.live:
                    contestant.rollout, happened = rollout.abort(
                        contestant.rollout, now, rollout.SELF, f"{winner} was promoted"
                    )
                    events += happened
        return events

    def recall(self, now: float) -> None:
        """Recompute the decisions after a restore, without advancing the rollout."""
        for mode in {c.mode for c in self.contestants.values()}:
            decisions = self.look(mode, now)
            for name, contestant in self.contestants.items():
                if contestant.mode == mode and contestant.rollout.live:
                    contestant.decision = decisions[name]

    def prepare_resume(self, contestant: ChallengerState, now: float) -> None:
        """Before a paused rollout is resumed: traffic that was split wrongly is no evidence."""
        if contestant.rollout.phase == "paused" and not self.experiment.split_honoured:
            self.experiment.restart_split()
            self.units.forget()
            self._assigned.settled(everything=True)
            self._counts_from = now

    def weights(self) -> tuple[float, ...]:
        """The shares of the champion and of each challenger in the current stages; they sum to
        1."""
        challengers = [c.rollout.weight for c in self.contestants.values()]
        return (max(0.0, 1.0 - sum(challengers)), *challengers)

    def reallocate(self, now: float) -> bool:
        """Change the allocation to the current weights; True when units have to move."""
        weights = dict(enumerate(self.weights()[1:], start=1))
        wanted = rollout.allocation(self.allocation, weights, len(self.contestants) + 1)
        if wanted == self.allocation:
            return False
        self.allocation = wanted
        # Epochs are identified by their time, so it must increase even if the clock was set back.
        self.divided_at = max(now, self.divided_at + 1e-3)
        return True

    def resume(self, assignment: Assignment, why: Mapping[str, str]) -> None:
        """Resume the assignment and the rollouts of before a restart.

        ``why`` is the last reason in the audit log, by challenger.

        Raises ValueError, KeyError or TypeError when ``assignment`` is malformed.
        """
        if assignment.names != self.order:
            return
        self.started = assignment.started
        self.allocation = assignment.allocation
        self.divided_at = assignment.divided_at
        for name, saved in assignment.rollouts.items():
            contestant = self.contestants[name]
            known = rollout.Rollout.from_state(saved)
            if known.stages == contestant.rollout.stages:
                contestant.rollout = known
                if not known.live:
                    verdict = "promote" if known.phase == "promoted" else "rollback"
                    cause = OPERATOR if known.phase == "aborted" else known.cause
                    reasons = (why.get(name, known.phase),)
                    contestant.decision = Decision(verdict, reasons, cause=cause)

    def restart(self, now: float) -> None:
        """Exclude requests from before the unix time ``now``: other model servers answered them."""
        self._counts_from = now
        for pending in self._pending.values():
            pending.clear()

    def could_serve(self) -> bool:
        """Whether a challenger serves clients, or may without a person's force."""
        return self.declared.mode != "shadow" or self.allocation.splits

    def assignment(self) -> Assignment:
        """What has to be in force after a restart."""
        rollouts = {name: c.rollout.dump_state() for name, c in self.contestants.items()}
        return Assignment(
            self.order,
            self.allocation,
            self.started,
            self.divided_at,
            rollouts,
            self.arms.servers,
        )

    # State --------------------------------------------------------------------------------------

    def _before_dump(self) -> None:
        self._check_split()


def _any_unknown(known: Floats, low: Floats) -> bool:
    """Whether a value exists and is not known."""
    return bool((np.isnan(known) & ~np.isnan(low)).any())


def _rows(columns: Mapping[str, Floats], rows: NDArray[np.bool_]) -> dict[str, Floats]:
    return {name: cells[rows] for name, cells in columns.items()}


def _differing(names: Sequence[str]) -> comparison.Comparison:
    """A comparison that only lists which outputs differ."""
    return comparison.Comparison(0, {name: comparison.FieldDifference(name) for name in names})


def _skipped(fate: NDArray[np.int64], arms: Floats) -> NDArray[np.bool_] | None:
    """Rows from while the challenger's breaker was open, in order of time; None without any.

    Those of the champion too: among the rest each arm must still have its share."""
    diverted = fate == DIVERTED
    if not diverted.any():
        return None
    own = np.where(arms > 0.0, np.arange(len(fate)), -1)
    last = np.maximum.accumulate(own)
    skipped: NDArray[np.bool_] = np.where(arms > 0.0, diverted, (last >= 0) & diverted[last])
    return skipped
