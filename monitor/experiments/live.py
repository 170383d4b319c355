"""One experiment on live traffic: records in, evidence and rollout out."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from monitor import record as records
from monitor.config.experiment import Experiment as Declared
from monitor.experiments.assignments import Assignments
from monitor.experiments.contestant import Arms, Contestant, Division
from monitor.experiments.copies import Copies, Redact
from monitor.experiments.observe import Observer, correct, counts
from monitor.experiments.routes import Assignment
from monitor.experiments.rules import rules_of
from monitor.experiments.timeline import point_of
from monitor.experiments.units import OpenUnit, OpenUnits, batch
from monitor.feedback.store import Joined
from monitor.record import Record
from shadow import comparison, rollout
from shadow.assignment import Allocation
from shadow.experiment import Decision, Experiment


class LiveExperiment:
    """``arms`` tells whose records they are; ``redact`` takes out what nobody may read.

    The clock is passed in, as unix time in seconds.
    """

    def __init__(self, declared: Declared, arms: Arms, redact: Redact, now: float) -> None:
        self.declared = declared
        self.arms = arms
        self.started = now
        self.by_unit = declared.unit.by != "request"
        rules = rules_of(declared)
        self.experiment = Experiment(
            declared.name, declared.challengers, rules, by_unit=self.by_unit
        )
        self.contestants = {name: Contestant(name, declared, now) for name in declared.challengers}
        self.order = (arms.champion, *declared.challengers)
        self.allocation = Allocation()
        self.divided_at = now
        """When the present allocation was decided."""
        self.carried_over = 0
        """Records left out because they began before the weights changed, or while they settled."""
        fields = frozenset(h.field for h in rules.hypotheses if h.field)
        self._columns = sorted({h.column for h in rules.hypotheses})
        self.wants_labels = any(h.metric.needs == "labels" for h in rules.hypotheses)
        self._observer = Observer(fields, declared.cost)
        self._copies = Copies(declared.compare, arms, self.contestants, self._observer, redact)
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
        division: Division | None,
        of_request: object,
        answer: object,
    ) -> None:
        """Take one record of the experiment's model.

        ``division`` is how its requests were divided where it was served, or None.
        """
        if record.role == records.ROLE_PRIMARY and record.assigned and division is not None:
            self._take_assigned(record, arm, division, answer)
        if not counts(record):
            return
        if record.role == records.ROLE_MIRROR:
            self._copies.take_copy(record, arm, answer)
        elif arm == self.arms.champion:
            self._copies.take_champion(record, of_request, answer)

    def _take_assigned(self, record: Record, arm: str, division: Division, answer: object) -> None:
        order = self.order
        assigned = (
            division.arms[record.assigned - 1] if record.assigned <= len(division.arms) else ""
        )
        if assigned not in order:
            return
        settled = max(division.since, division.epoch + self.declared.settle)
        if not self._in_epoch(division) or record.started < settled:
            self.carried_over += 1
            return
        side = order.index(assigned)
        if not self.by_unit:
            self._assigned.add(side, record.started, record.duration_ns * 1e-9)
        if arm != assigned:
            if side:
                self.contestants[assigned].diverted += 1
            return
        if not counts(record):
            return
        values = self._observer.observe(record, arm, answer).values
        if self.by_unit:
            unit = record.unit.decode("latin-1")
            self._close(self._units.add(unit, side, record.started, values))
            return
        self._gather(side, values)

    def _in_epoch(self, division: Division) -> bool:
        """Whether a record belongs to the present weights; new weights begin a new epoch.

        Workers change over one after another, so for a moment records of both come in turns: those
        of the older weights are left out.
        """
        if division.epoch == self._epoch and self._weights:
            return True
        if division.epoch < self._epoch:
            return False
        if self._weights:
            self._close(self._units.all())
        self.flush()  # units that were open count by the weights that they were assigned by
        if self._weights:
            self._assigned.clear()
            self.experiment.begin_epoch()
        self._weights = division.weights
        self._epoch = division.epoch
        return True

    def _gather(self, side: int, values: dict[str, float]) -> None:
        """Put values of the champion (0) or a challenger on the contests that they are about."""
        for number, contestant in enumerate(self.contestants.values(), start=1):
            share = self._share(number)
            if side in (0, number) and share is not None:
                contestant.gathered.arms.append(float(side > 0))
                contestant.gathered.shares.append(share)
                contestant.gathered.split.append(values)

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

    # Labels -------------------------------------------------------------------------------------

    def concerns(self, arm: str) -> bool:
        """Whether an arm is one of those that are compared."""
        return arm in self.order

    def share_of(self, record: Record, arm: str, division: Division | None) -> float:
        """The challenger's part of what it and the champion got when a request was assigned; 0 for
        what is no part of a split. With several challengers the champion's requests have no single
        one: that of the present epoch is used then, when the label comes."""
        if division is None or not record.assigned or record.role != records.ROLE_PRIMARY:
            return 0.0
        if record.assigned > len(division.arms) or division.arms[record.assigned - 1] != arm:
            return 0.0
        number = self.order.index(arm) or 1
        both = division.weights[0] + division.weights[number]
        share = division.weights[number] / both if both else 0.0
        return share if 0.0 < share < 1.0 else 0.0

    def take_label(self, joined: Joined) -> None:
        """A label or reward has come for a prediction."""
        how = self.declared.label
        values: dict[str, float] = {}
        if how is not None and joined.label is not None:
            values["correct"] = correct(joined.outputs, joined.label, how)
        if joined.reward is not None:
            values["reward"] = joined.reward
        key = f"{joined.request_id}/{joined.row}".encode()
        for name, value in values.items():
            for number, contestant in enumerate(self.contestants.values(), start=1):
                side = int(joined.arm == contestant.name)
                if value != value or (not side and joined.arm != self.arms.champion):
                    continue
                if joined.mirrored or not side:
                    halves = contestant.labels.add(key + name.encode(), side, value, 2)
                    if halves is not None:
                        contestant.gathered.pairs.append(({name: halves[0]}, {name: halves[1]}))
                if joined.share > 0.0:
                    several = len(self.contestants) > 1 and not side
                    share = self._share(number) if several else joined.share
                    if share is not None:
                        contestant.gathered.arms.append(float(side))
                        contestant.gathered.shares.append(share)
                        contestant.gathered.split.append({name: value})

    # Evidence and rollout -----------------------------------------------------------------------

    def flush(self, now: float = 0.0) -> None:
        """Hand what was gathered to the statistics, in batches, at unix time ``now``."""
        for name, contestant in self.contestants.items():
            contestant.flush(self.experiment.contests[name], self._columns)
        closed, self._closed = self._closed, [0] * len(self.order)
        given = [a + b for a, b in zip(self._assigned.settled(now), closed, strict=True)]
        if any(given) and self._weights:
            total = sum(self._weights)
            self.experiment.assigned(given, [w / total for w in self._weights])

    def tick(self, now: float) -> list[rollout.Event]:
        """Judge, and move the rollout on. What happened, for the audit log."""
        self._close(self._units.expired(now))
        self.flush(now)
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
            "contestants": {
                name: {
                    "noise": c.noise.to_dict(),
                    "worst": c.worst.to_dict(),
                    "timeline": c.timeline.to_dict(),
                    "diverted": c.diverted,
                    "lost": c.pairing.lost,
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
        for name, contestant in self.contestants.items():
            saved = state["contestants"].get(name)
            if saved is None:
                continue
            contestant.noise = comparison.NoiseCancelling.from_dict(saved["noise"])
            contestant.worst = comparison.Worst.from_dict(saved["worst"])
            contestant.timeline.restore(saved["timeline"])
            contestant.diverted = int(saved["diverted"])
            contestant.pairing.lost = int(saved["lost"])
