"""The first stage of an experiment: from records to rows that its statistics take.

Everything here needs only what meets by request id: observed values, champion and challengers on
the same request, labels of the same prediction. So it may run in many places at once, each with a
part of the requests; what is put on sheets in all of them is what one place would have put there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.config.rules import rules_of
from understudy.monitor.evidence.arms import Arms, SplitShares
from understudy.monitor.evidence.batch import Column, ColumnBatch, Floats, column_of
from understudy.monitor.evidence.joiner import PairJoiner
from understudy.monitor.evidence.mirrored import MirrorComparison, Redact
from understudy.monitor.evidence.observe import NAN, Observer, correct, counts
from understudy.monitor.labels.store import Joined
from understudy.monitor.records import record as records
from understudy.monitor.records.record import Record

_MOST_WAITING = 20_000
ASSIGNED, PAIRS, LABELS, NOTES = "assigned", "pairs", "labels", "notes"
"""Sorts of rows: requests that were assigned to an arm, pairs, labels of split traffic, and what is
to be remembered of single comparisons."""
FACTS = ("started", "seconds", "served", "counted", "epoch", "settled")
"""Columns of assigned requests, besides their values, their unit and the weights."""
_SIDES = ("a.", "b.")


class EvidenceCollector:
    """``arms`` tells whose records they are; ``redact`` takes out what nobody may read."""

    def __init__(self, declared: Declared, arms: Arms, redact: Redact) -> None:
        self.declared = declared
        self.arms = arms
        self.by_unit = declared.unit.by != "request"
        self.order = (arms.champion, *declared.challengers)
        hypotheses = rules_of(declared).hypotheses
        fields = frozenset(h.field for h in hypotheses if h.field)
        self.columns = tuple(sorted({h.column for h in hypotheses}))
        self.wants_labels = any(h.metric.needs == "labels" for h in hypotheses)
        self._observer = Observer(fields, declared.cost)
        self.copies = MirrorComparison(
            declared.compare, arms, declared.challengers, self._observer, redact
        )
        self._labels: dict[str, PairJoiner[tuple[float, float]]] = {
            name: PairJoiner(_MOST_WAITING) for name in declared.challengers
        }
        self._assigned: dict[int, list[tuple[Any, ...]]] = {}
        self._split_labels: dict[str, list[tuple[Any, ...]]] = {}
        self._ready: list[ColumnBatch] = []

    # In -----------------------------------------------------------------------------------------

    def take(
        self,
        record: Record,
        arm: str,
        division: SplitShares | None,
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
            self.copies.take_copy(record, arm, answer)
        elif arm == self.arms.champion:
            self.copies.take_champion(record, of_request, answer)

    def _take_assigned(
        self, record: Record, arm: str, division: SplitShares, answer: object
    ) -> None:
        assigned = (
            division.arms[record.assigned - 1] if record.assigned <= len(division.arms) else ""
        )
        if assigned not in self.order:
            return
        served = arm == assigned
        counted = served and counts(record)
        values = self._observer.observe(record, arm, answer).values if counted else {}
        seconds = record.duration_ns * 1e-9
        self._assigned.setdefault(len(division.weights), []).append(
            (
                record.started + seconds,
                record.request_id,
                self.order.index(assigned),
                record.started,
                seconds,
                float(served),
                float(counted),
                division.epoch,
                max(division.since, division.epoch + self.declared.settle),
                record.unit.decode("latin-1") if self.by_unit else "",
                division.weights,
                values,
            )
        )

    def concerns(self, arm: str) -> bool:
        """Whether an arm is one of those that are compared."""
        return arm in self.order

    def share_of(self, record: Record, arm: str, division: SplitShares | None) -> float:
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
        at = max(joined.received, joined.started)
        for name, value in values.items():
            for challenger in self.declared.challengers:
                side = int(joined.arm == challenger)
                if value != value or (not side and joined.arm != self.arms.champion):
                    continue
                if joined.mirrored or not side:
                    waiting = self._labels[challenger]
                    halves = waiting.add(key + name.encode(), side, (value, at), 2)
                    if halves is not None:
                        ended = max(moment for _, moment in halves.values())
                        both = {name: halves[0][0]}, {name: halves[1][0]}
                        self.copies.pairs[challenger].append((ended, key, *both))
                if joined.share > 0.0:
                    several = len(self.declared.challengers) > 1 and not side
                    share = NAN if several else joined.share
                    rows = self._split_labels.setdefault(challenger, [])
                    rows.append((at, key, side, share, {name: value}))

    def add(self, sheet: ColumnBatch) -> None:
        """Rows that were gathered as columns."""
        self._ready.append(sheet)

    # Out ----------------------------------------------------------------------------------------

    def drain(self) -> list[ColumnBatch]:
        """What was gathered since the last time."""
        found, self._ready = self._ready, []
        name = self.declared.name
        for width, rows in self._assigned.items():
            found.append(self._assigned_sheet(name, width, rows))
        self._assigned = {}
        for challenger, pairs in self.copies.pairs.items():
            if pairs:
                found.append(self._pairs_sheet(name, challenger, pairs))
                self.copies.pairs[challenger] = []
        for challenger, rows in self._split_labels.items():
            found.append(self._labels_sheet(name, challenger, rows))
        self._split_labels = {}
        self.copies.drain_lost()
        for challenger, notes in self.copies.notes.items():
            if notes:
                at, ids, cells = zip(*notes, strict=True)
                kind = (NOTES, name, challenger)
                found.append(_sheet(kind, ("note",), at, ids, [0] * len(ids), [list(cells)]))
                self.copies.notes[challenger] = []
        return found

    def _assigned_sheet(self, name: str, width: int, rows: list[tuple[Any, ...]]) -> ColumnBatch:
        at, ids, side, *facts, units, weights, values = zip(*rows, strict=True)
        columns: list[Column] = [np.array(fact, np.float64) for fact in facts]
        columns.append(list(units))
        columns += [np.array([w[place] for w in weights], np.float64) for place in range(width)]
        columns += [_cells(values, column) for column in self.columns]
        return _sheet((ASSIGNED, name), self.assigned_names(width), at, ids, side, columns)

    def assigned_names(self, width: int) -> tuple[str, ...]:
        """Columns of assigned requests under ``width`` weights."""
        weights = (f"w{place}" for place in range(width))
        return (*FACTS, "unit", *weights, *(f"v.{column}" for column in self.columns))

    def pairs_names(self) -> tuple[str, ...]:
        """Columns of pairs."""
        return ("fresh", *(side + column for side in _SIDES for column in self.columns))

    def _pairs_sheet(self, name: str, challenger: str, pairs: list[tuple[Any, ...]]) -> ColumnBatch:
        at, ids, *halves = zip(*pairs, strict=True)
        fresh = np.array([float("error" in half) for half in halves[0]])
        columns: list[Column] = [fresh]
        columns += [_cells(values, column) for values in halves for column in self.columns]
        kind = (PAIRS, name, challenger)
        return _sheet(kind, self.pairs_names(), at, ids, (1.0 - fresh).astype(int), columns)

    def _labels_sheet(self, name: str, challenger: str, rows: list[tuple[Any, ...]]) -> ColumnBatch:
        at, ids, side, share, values = zip(*rows, strict=True)
        names = tuple(f"v.{column}" for column in self.columns)
        columns: list[Column] = [np.array(share, np.float64)]
        columns += [_cells(values, column) for column in self.columns]
        return _sheet((LABELS, name, challenger), ("share", *names), at, ids, side, columns)


def _cells(values: Any, column: str) -> Column:
    """A column of values by name; NaN where there is none. Texts stay what they are."""
    return column_of([row.get(column, NAN) for row in values])


def _sheet(
    kind: tuple[str, ...],
    names: tuple[str, ...],
    at: Any,
    ids: Any,
    side: Any,
    columns: list[Column],
) -> ColumnBatch:
    return ColumnBatch(
        kind, names, np.array(at, np.float64), list(ids), np.array(side, np.int16), columns
    )


def numbered(column: Column, code: Callable[[object], float]) -> Floats:
    """A column as numbers, where ``code`` gives those of what is none."""
    if isinstance(column, np.ndarray):
        return column.astype(np.float64, copy=False)
    return np.array(
        [cell if isinstance(cell, (int, float)) else code(cell) for cell in column], np.float64
    )
