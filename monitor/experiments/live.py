"""One experiment on live traffic: records in, evidence and rollout out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.config.rules import rules_of
from understudy.monitor.evidence.arms import Arms, SplitShares
from understudy.monitor.evidence.batch import ColumnBatch, Floats, together
from understudy.monitor.evidence.collector import (
    ASSIGNED,
    FACTS,
    LABELS,
    NOTES,
    PAIRS,
    EvidenceCollector,
    numbered,
)
from understudy.monitor.evidence.mirrored import Redact
from understudy.monitor.evidence.observe import Codes
from understudy.monitor.experiments.contestant import ChallengerState
from understudy.monitor.experiments.timeline import point_of
from understudy.monitor.experiments.units import OpenUnit, OpenUnits, batch
from understudy.monitor.labels.store import Joined
from understudy.monitor.records.record import Record
from understudy.monitor.routing.assignments import Assignments
from understudy.monitor.routing.routes import Assignment
from understudy.shadow import comparison, rollout
from understudy.shadow.assignment import Allocation
from understudy.shadow.experiment import Decision, Experiment, Pairs, Split


class LiveExperiment:
    """``arms`` tells whose records they are; ``redact`` takes out what nobody may read.

    Records go to :attr:`gathering`; what it gathers is evidence as soon as it is fed. The clock is
    passed in, as unix time in seconds.
    """

    def __init__(self, declared: Declared, arms: Arms, redact: Redact, now: float) -> None:
        self.declared = declared
        self.arms = arms
        self.started = now
        self.gathering = EvidenceCollector(declared, arms, redact)
        self.by_unit = self.gathering.by_unit
        self.order = self.gathering.order
        self.wants_labels = self.gathering.wants_labels
        rules = rules_of(declared)
        self.experiment = Experiment(
            declared.name, declared.challengers, rules, by_unit=self.by_unit
        )
        self.contestants = {
            name: ChallengerState(name, declared, now) for name in declared.challengers
        }
        self.allocation = Allocation()
        self.divided_at = now
        """When the present allocation was decided."""
        self.carried_over = 0
        """Records left out because they began before the weights changed, or while they settled."""
        self._columns = self.gathering.columns
        self._codes = Codes()
        self._units = OpenUnits()
        self._assigned = Assignments(len(self.order))
        self._closed = [0] * len(self.order)
        """Units of each arm that have ended since the last look."""
        self._weights: tuple[float, ...] = ()
        """Of :attr:`order`, under which the records of this epoch were assigned."""
        self._epoch = 0.0

    # Records ------------------------------------------------------------------------------------

    def take(
        self,
        record: Record,
        arm: str,
        division: SplitShares | None,
        of_request: object,
        answer: object,
    ) -> None:
        """Take one record of the experiment's model; see :meth:`EvidenceCollector.take`."""
        self.gathering.take(record, arm, division, of_request, answer)

    def take_label(self, joined: Joined) -> None:
        """A label or reward has come for a prediction."""
        self.gathering.take_label(joined)

    # Evidence -----------------------------------------------------------------------------------

    def feed(self, sheets: Sequence[ColumnBatch]) -> None:
        """Hand rows to the statistics, in their order."""
        for sheet in together(sheets):
            sort = sheet.kind[0]
            if sort == ASSIGNED:
                self._feed_assigned(sheet)
            elif sort == PAIRS:
                self._feed_pairs(sheet)
            elif sort == LABELS:
                self._feed_labels(sheet)
            elif sort == NOTES:
                self._feed_notes(sheet)

    def _feed_assigned(self, sheet: ColumnBatch) -> None:
        """Requests of a split, epoch by epoch.

        Workers change over to new weights one after another, so for a moment records of both come
        in turns: those of the older weights are left out.
        """
        width = len(sheet.names) - len(FACTS) - 1 - len(self._columns)
        if width != len(self.order):
            return
        epochs = sheet.floats("epoch")
        present = np.maximum.accumulate(np.maximum(epochs, self._epoch))
        begins = np.flatnonzero(np.diff(present, prepend=self._epoch if self._weights else -np.inf))
        for begin, end in pairwise([0, *(b for b in begins.tolist() if b), len(sheet)]):
            part = sheet.rows(slice(begin, end))
            epoch = float(present[begin])
            if (epoch != self._epoch or not self._weights) and epochs[begin] == epoch:
                self._begin_epoch(
                    epoch, tuple(float(part.floats(f"w{n}")[0]) for n in range(width))
                )
            of_epoch = epochs[begin:end] == epoch
            settled = of_epoch & (part.floats("started") >= part.floats("settled"))
            self.carried_over += int((~settled).sum())
            if settled.any():
                self._take_assigned(part.rows(np.flatnonzero(settled)))

    def _begin_epoch(self, epoch: float, weights: tuple[float, ...]) -> None:
        self._check_split(0.0)
        if self._weights:
            self._close(self._units.all())
            self._check_split(0.0)
            self._assigned.clear()
            self.experiment.begin_epoch()
        self._weights, self._epoch = weights, epoch

    def _take_assigned(self, sheet: ColumnBatch) -> None:
        """Requests under the present weights."""
        sides = sheet.side
        if not self.by_unit:
            self._assigned.add_all(sides, sheet.floats("started"), sheet.floats("seconds"))
        diverted = (sheet.floats("served") == 0.0) & (sides > 0)
        counted = sheet.floats("counted") > 0.0
        for number, contestant in enumerate(self.contestants.values(), start=1):
            contestant.diverted += int((diverted & (sides == number)).sum())
        values = {c: self._numbers(sheet, "v.", c) for c in self._columns}
        if self.by_unit:
            self._take_units(sheet, np.flatnonzero(counted), values)
            return
        for number, name in enumerate(self.contestants, start=1):
            share = self._share(number)
            mine = counted & ((sides == 0) | (sides == number))
            if share is not None and mine.any():
                arms = (sides[mine] > 0).astype(np.float64)
                columns = {column: cells[mine] for column, cells in values.items()}
                self.experiment.contests[name].update_split(
                    Split(arms, np.full(arms.size, share), columns)
                )

    def _take_units(
        self, sheet: ColumnBatch, rows: NDArray[np.intp], values: Mapping[str, Floats]
    ) -> None:
        units, started = sheet.column("unit"), sheet.floats("started")
        for row in rows.tolist():
            of_row = {column: float(cells[row]) for column, cells in values.items()}
            closed = self._units.add(units[row], int(sheet.side[row]), float(started[row]), of_row)
            self._close(closed)

    def _numbers(self, sheet: ColumnBatch, prefix: str, column: str) -> Floats:
        return numbered(sheet.column(prefix + column), lambda cells: self._codes.of(column, cells))

    def _feed_pairs(self, sheet: ColumnBatch) -> None:
        contest = self.experiment.contests.get(sheet.kind[2])
        if contest is not None and sheet.names == self.gathering.pairs_names():
            columns = {
                column: (self._numbers(sheet, "a.", column), self._numbers(sheet, "b.", column))
                for column in self._columns
            }
            contest.update_pairs(Pairs(columns, int(sheet.floats("fresh").sum())))

    def _feed_labels(self, sheet: ColumnBatch) -> None:
        """Labels of split traffic; those of a champion with several challengers are shared as
        requests are now."""
        name = sheet.kind[2]
        if name not in self.contestants:
            return
        share = sheet.floats("share").copy()
        several = np.isnan(share)
        if several.any():
            number = self.order.index(name)
            share[several] = self._share(number) or np.nan
        here = np.flatnonzero(~np.isnan(share))
        if here.size:
            columns = {
                name_[2:]: sheet.floats(name_)[here] for name_ in sheet.names if name_ != "share"
            }
            arms = (sheet.side[here] > 0).astype(np.float64)
            fresh = np.zeros(here.size, np.bool_)
            self.experiment.contests[name].update_split(Split(arms, share[here], columns, fresh))

    def _feed_notes(self, sheet: ColumnBatch) -> None:
        contestant = self.contestants.get(sheet.kind[2])
        if contestant is None:
            return
        for note in sheet.column("note"):
            contestant.lost += note.get("lost", 0)
            if "noise" in note:
                differs, own = note["noise"]
                contestant.noise.update(_differing(differs), _differing(own))
            if "worst" in note:
                contestant.worst.offer(*note["worst"])

    def _share(self, number: int) -> float | None:
        """The challenger's part of what it and the champion get, in this epoch."""
        if len(self._weights) <= number or not (self._weights[0] and self._weights[number]):
            return None
        return self._weights[number] / (self._weights[0] + self._weights[number])

    def _close(self, closed: list[OpenUnit]) -> None:
        for item in closed:
            self._closed[item.arm] += 1
        for number, name in enumerate(self.contestants, start=1):
            share = self._share(number)
            mine = [item for item in closed if item.arm in (0, number)]
            if mine and share is not None:
                contest = self.experiment.contests[name]
                contest.served[1] += sum(item.arm == number for item in mine)
                contest.served[0] += sum(item.arm == 0 for item in mine)
                contest.update_units(batch(mine, share))

    def concerns(self, arm: str) -> bool:
        """Whether an arm is one of those that are compared."""
        return arm in self.order

    def share_of(self, record: Record, arm: str, division: SplitShares | None) -> float:
        """As :meth:`EvidenceCollector.share_of`."""
        return self.gathering.share_of(record, arm, division)

    # Rollout ------------------------------------------------------------------------------------

    def flush(self, now: float = 0.0) -> None:
        """Hand what was gathered to the statistics, at unix time ``now``."""
        self.feed(self.gathering.drain())
        self._check_split(now)

    def _check_split(self, now: float) -> None:
        """Let what the arms were given by ``now`` speak of whether the split is honoured."""
        closed, self._closed = self._closed, [0] * len(self.order)
        given = [a + b for a, b in zip(self._assigned.settled(now), closed, strict=True)]
        if any(given) and self._weights:
            total = sum(self._weights)
            self.experiment.assigned(given, [w / total for w in self._weights])

    def tick(self, now: float) -> list[rollout.Event]:
        """Judge, and move the rollout on. What happened, for the audit log."""
        self.feed(self.gathering.drain())
        self._close(self._units.expired(now))
        self._check_split(now)
        events: list[rollout.Event] = []
        for mode in {c.mode for c in self.contestants.values()}:
            decisions = self.experiment.decide(mode, now - self.started)
            for name, contestant in self.contestants.items():
                if contestant.mode != mode:
                    continue
                if not contestant.rollout.live:
                    # What led to the end stays to be seen.
                    if not contestant.decision.evidence:
                        shown = decisions[name].evidence
                        contestant.decision = replace(contestant.decision, evidence=shown)
                    continue
                decision = contestant.decision = decisions[name]
                requests = self.experiment.contests[name].requests(mode)
                if decision.evidence:
                    contestant.timeline.add(
                        point_of(now, mode, requests, [e.to_dict() for e in decision.evidence])
                    )
                contestant.rollout, happened = rollout.step(
                    contestant.rollout, now, decision.verdict, decision.reasons, requests
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
        """Show again what was decided last, after a state was restored; nothing moves."""
        for mode in {c.mode for c in self.contestants.values()}:
            decisions = self.experiment.decide(mode, now - self.started)
            for name, contestant in self.contestants.items():
                if contestant.mode == mode and contestant.rollout.live:
                    contestant.decision = decisions[name]

    def weights(self) -> tuple[float, ...]:
        """Shares of the champion and of each challenger that the rollouts want."""
        challengers = [c.rollout.weight for c in self.contestants.values()]
        return (max(0.0, 1.0 - sum(challengers)), *challengers)

    def reallocate(self, now: float) -> bool:
        """Bring the assignment to the weights wanted; True when units have to move."""
        weights = dict(enumerate(self.weights()[1:], start=1))
        wanted = rollout.allocation(self.allocation, weights, len(self.contestants) + 1)
        if wanted == self.allocation:
            return False
        self.allocation = wanted
        # Epochs are told apart by their time, also when a clock was set back.
        self.divided_at = max(now, self.divided_at + 1e-3)
        return True

    def resume(self, assignment: Assignment, why: Mapping[str, str]) -> None:
        """Go on with the assignment and the rollouts that were in force before a restart.

        ``why`` is the last reason in the audit log, by challenger.

        Raises ValueError, KeyError or TypeError for another shape.
        """
        if assignment.names != self.order:
            return
        self.started = assignment.started
        self.allocation = assignment.allocation
        self.divided_at = assignment.divided_at
        for name, saved in assignment.rollouts.items():
            contestant = self.contestants[name]
            known = rollout.Rollout.from_dict(saved)
            if known.stages == contestant.rollout.stages:
                contestant.rollout = known
                if not known.live:
                    verdict = "promote" if known.phase == "promoted" else "rollback"
                    contestant.decision = Decision(verdict, (why.get(name, known.phase),))

    def assignment(self) -> Assignment:
        """What has to be in force after a restart."""
        rollouts = {name: c.rollout.to_dict() for name, c in self.contestants.items()}
        return Assignment(self.order, self.allocation, self.started, self.divided_at, rollouts)

    # State --------------------------------------------------------------------------------------

    def to_dict(self) -> dict[str, Any]:
        """As JSON. Pairs of which one half is there are not part of it."""
        self.flush()
        return {
            "carried_over": self.carried_over,
            "weights": list(self._weights),
            "epoch": self._epoch,
            "evidence": self.experiment.to_dict(),
            "units": self._units.to_dict(),
            "codes": self._codes.to_dict(),
            "assigned": self._assigned.to_dict(),
            "contestants": {
                name: {
                    "noise": c.noise.to_dict(),
                    "worst": c.worst.to_dict(),
                    "timeline": c.timeline.to_dict(),
                    "diverted": c.diverted,
                    "lost": c.lost,
                }
                for name, c in self.contestants.items()
            },
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state of this experiment.

        Raises ValueError, KeyError or TypeError for another shape.
        """
        self.carried_over = int(state["carried_over"])
        self._weights = tuple(float(w) for w in state["weights"])
        self._epoch = float(state["epoch"])
        self.experiment.restore(state["evidence"])
        self._units.restore(state["units"])
        self._codes.restore(state.get("codes", {}))
        if "assigned" in state:
            self._assigned.restore(state["assigned"])
        for name, contestant in self.contestants.items():
            saved = state["contestants"].get(name)
            if saved is None:
                continue
            contestant.noise = comparison.NoiseCancelling.from_dict(saved["noise"])
            contestant.worst = comparison.Worst.from_dict(saved["worst"])
            contestant.timeline.restore(saved["timeline"])
            contestant.diverted = int(saved["diverted"])
            contestant.lost = int(saved["lost"])


def _differing(names: Sequence[str]) -> comparison.Comparison:
    """A comparison of which only is known which outputs differ."""
    return comparison.Comparison(0, {name: comparison.FieldDifference(name) for name in names})
