"""The first stage of an experiment: from blocks to rows for its statistics.

It joins observed values, champion and challengers on the same request (by the proxy's id), and
labels of the same prediction (by request id). So it can run in many processes, each with a part of
the requests; together they produce the rows that one process would have produced.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.evidence.arms import Arms, SplitShares
from understudy.monitor.evidence.batch import ColumnBatch, batch_of
from understudy.monitor.evidence.block_columns import BlockColumns, Indices, Mask
from understudy.monitor.evidence.columns import Column, column_of
from understudy.monitor.evidence.joiner import PairJoiner
from understudy.monitor.evidence.layout import (
    ASSIGNED,
    LABELS,
    NOTES,
    PAIRS,
    UNIT,
    EvidenceLayout,
    unit_number,
)
from understudy.monitor.evidence.mirrored import MirrorComparison, Redact, columns_of
from understudy.monitor.evidence.observe import NAN, Censored, Observer, number_of, of_label
from understudy.monitor.labels.store import Joined
from understudy.monitor.records.record import OK, ROLE_PRIMARY
from understudy.shadow.experiment.fates import DIVERTED, FAILED, LATE, OUTSIDE
from understudy.shadow.experiment.hypothesis import COVARIATE, uncapped

_MOST_WAITING = 20_000


class EvidenceCollector:
    """Collects the evidence of one experiment.

    ``declared`` is its configuration, ``arms`` are its arm names; ``redact`` removes the values of
    redacted columns before they are stored or shown.
    """

    def __init__(self, declared: Declared, arms: Arms, redact: Redact) -> None:
        self.declared = declared
        self.arms = arms
        self.layout = EvidenceLayout(declared, arms)
        self.order = self.layout.order
        self.columns = self.layout.columns
        self._observer = Observer(self.columns, declared.cost)
        self.mirrored = MirrorComparison(
            declared.name, declared.compare, arms, declared.challengers, self._observer, redact
        )
        self._labels: dict[str, PairJoiner[tuple[list[float], float]]] = {
            name: PairJoiner(_MOST_WAITING) for name in declared.challengers
        }
        self._split_labels: dict[str, list[tuple[Any, ...]]] = {}
        self._label_pairs: dict[str, list[tuple[Any, ...]]] = {}
        self._ready: list[ColumnBatch] = []

    @property
    def label_outputs(self) -> tuple[str, ...]:
        """The outputs that labels are compared with."""
        how = self.declared.label
        return (how.prediction, how.score) if how is not None else ()

    # In -----------------------------------------------------------------------------------------

    def take(self, block: BlockColumns, shares: SplitShares | None) -> None:
        """Take records of the experiment's model.

        ``shares`` is how the worker that served them divided the requests; None without a split.
        """
        if shares is not None:
            self._take_assigned(block, shares)
        self._ready += (
            batch_of((PAIRS, self.declared.name, challenger), self.layout.pairs_names(), *pairs)
            for challenger, pairs in self.mirrored.take(block)
        )

    def _take_assigned(self, block: BlockColumns, shares: SplitShares) -> None:
        sides, arms = self._arms_of(shares)
        records = np.flatnonzero((block.role == ROLE_PRIMARY) & (sides[block.assigned] >= 0))
        if not records.size:
            return
        assigned = block.assigned[records]
        found = Censored(block, self.arms.serving_limits)
        fate = found.fate[records]
        fate[fate == LATE] = FAILED  # all arms have clients, who are alike
        fate[(block.arm[records] != arms[assigned]) & (fate != OUTSIDE)] = DIVERTED
        counted = (fate != OUTSIDE) & (fate < DIVERTED)
        settled = max(shares.since, shares.epoch + self.declared.settle)
        columns: list[Column] = [
            block.started[records],
            block.seconds[records],
            (~block.finished[records]).astype(np.float64),
            fate.astype(np.float64),
            (counted & self.answered(block)[records]).astype(np.float64),
            np.full(len(records), shares.epoch),
            np.full(len(records), settled),
            self._units(block, records),
        ]
        columns += [np.full(len(records), weight) for weight in shares.weights]
        columns += [_only(column, counted) for column in self._observer.values(found, records)]
        names = self.layout.assigned_names(len(shares.weights))
        kind = (ASSIGNED, self.declared.name)
        self._ready.append(block.batch(kind, names, records, columns, sides[assigned], block.keys))

    def answered(self, block: BlockColumns) -> Mask:
        """Whether a record has a prediction, for which a label or reward may come; of an answer
        that is not to be read it is enough that there is one."""
        found: Mask = (block.outcome == OK) & block.finished
        if not self.declared.opaque_answers:
            here = np.flatnonzero(found)
            found[here] = ~(block.codes(block.response, here) > 0.0)
        return found

    def _arms_of(self, shares: SplitShares) -> tuple[Indices, Indices]:
        """By assigned arm of a record: its side here (-1: none), and its arm index."""
        sides = np.full(256, -1, np.intp)
        arms = np.full(256, -1, np.intp)
        for index, name in enumerate(shares.arms):
            number = shares.first + index
            if name in self.order and number < len(sides):
                sides[number] = self.order.index(name)
                arms[number] = index
        return sides, arms

    def _units(self, block: BlockColumns, records: Indices) -> list[Any]:
        if not self.layout.by_unit:
            return [""] * len(records)
        units = block.block.texts["unit"].values()
        return [units[record].decode("latin-1") for record in records.tolist()]

    def shares_of(
        self, block: BlockColumns, shares: SplitShares | None, records: Indices
    ) -> list[float]:
        """By record, the challenger's share of the traffic of itself and the champion at
        assignment.

        0 for records outside a split. With several challengers the champion's requests have no
        single share: the share of the current epoch is then used, when the label arrives.
        """
        shares_of_records = [0.0] * len(records)
        if shares is None:
            return shares_of_records
        sides, arms = self._arms_of(shares)
        assigned = block.assigned[records]
        mine = (block.role[records] == ROLE_PRIMARY) & (sides[assigned] >= 0)
        mine &= block.arm[records] == arms[assigned]
        for index in np.flatnonzero(mine).tolist():
            number = int(sides[assigned[index]]) or 1
            both = shares.weights[0] + shares.weights[number]
            share = shares.weights[number] / both if both else 0.0
            shares_of_records[index] = share if 0.0 < share < 1.0 else 0.0
        return shares_of_records

    def covariates_of(self, block: BlockColumns, records: Indices) -> list[dict[str, list[object]]]:
        """By record, the fields of the request that the experiment adjusts for, and the number of
        its unit; they are stored with the prediction, since the label comes later."""
        wanted = self.layout.covariates
        found: list[dict[str, list[object]]] = [{} for _ in range(len(records))]
        if self.layout.by_unit:
            units, many = self._units(block, records), block.response.many
            for place, record in enumerate(records.tolist()):
                rows = 1 if many is None else max(1, int(many[record]))
                found[place][UNIT] = [unit_number(units[place].encode("latin-1"))] * rows
        if not wanted:
            return found
        for place, table in enumerate(block.request.decoded(records)):
            columns = columns_of(table) if table is not None else {}
            given = ((name, columns.get(name.removeprefix(COVARIATE))) for name in wanted)
            found[place].update((name, cells) for name, cells in given if cells is not None)
        return found

    def take_labels(self, of_model: Iterable[Joined]) -> None:
        """Take labels or rewards that were joined to predictions of this experiment's model."""
        how = self.declared.label
        for joined in of_model:
            given = {name: number_of(joined.outputs.get(name)) for name in self.layout.covariates}
            if how is not None and joined.label is not None:
                found = of_label(joined.outputs, joined.label, how)
                if found:
                    self._take_label(joined, "label", self._values(found | given))
            if joined.reward is not None:
                values = self._values({"reward": joined.reward} | given)
                self._take_label(joined, "reward", values)

    def _take_label(self, joined: Joined, name: str, values: list[float]) -> None:
        key = f"{joined.request_id}/{joined.row}".encode()
        at = max(joined.received, joined.started)
        for challenger in self.declared.challengers:
            side = int(joined.arm == challenger)
            if not any(v == v for v in values) or (not side and joined.arm != self.arms.champion):
                continue
            if joined.mirrored or not side:
                waiting = self._labels[challenger]
                halves = waiting.add(key + name.encode(), side, (values, at), 2)
                if halves is not None:
                    ended = max(moment for _, moment in halves.values())
                    rows = self._label_pairs.setdefault(challenger, [])
                    outside = (float(OUTSIDE), float(OUTSIDE))
                    rows.append((ended, key, 1, 0.0, *outside, *halves[0][0], *halves[1][0]))
            if joined.share > 0.0 and joined.experiment in ("", self.declared.name):
                several = len(self.declared.challengers) > 1 and not side
                share = NAN if several else joined.share
                rows = self._split_labels.setdefault(challenger, [])
                unit = number_of(joined.outputs.get(UNIT)) if self.layout.by_unit else NAN
                rows.append((at, key, side, share, joined.started, unit, *values))

    def _values(self, found: Mapping[str, float]) -> list[float]:
        """Values in the order of the columns, capped where a column is; NaN where there is none."""
        values = []
        for column in self.columns:
            name, cap = uncapped(column)
            value = found.get(name, NAN)
            values.append(value if cap is None else min(max(value, cap[0]), cap[1]))
        return values

    # Out ----------------------------------------------------------------------------------------

    def drain(self) -> list[ColumnBatch]:
        """The rows collected since the last call."""
        batches, self._ready = self._ready, []
        name = self.declared.name
        for kind, names, by_challenger in (
            (PAIRS, self.layout.pairs_names(), self.mirrored.drain_pairs()),
            (PAIRS, self.layout.pairs_names(), self._label_pairs),
            (LABELS, self.layout.labels_names(), self._split_labels),
            (NOTES, ("note",), self.mirrored.drain_notes()),
        ):
            for challenger, rows in by_challenger.items():
                at, ids, side, *columns = zip(*rows, strict=True)
                cells = [column_of(column) for column in columns]
                batches.append(batch_of((kind, name, challenger), names, at, ids, side, cells))
        self._label_pairs, self._split_labels = {}, {}
        return batches


def _only(column: Column, counted: Any) -> Column:
    """A column with NaN where ``counted`` is false."""
    if isinstance(column, np.ndarray):
        return np.where(counted, column, np.nan)
    told = zip(column, counted.tolist(), strict=True)
    return column_of([cell if counts else np.nan for cell, counts in told])
