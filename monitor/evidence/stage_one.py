"""The first stage of the evaluation: from blocks of records and labels to rows of evidence.

It joins by request id only. Many instances can therefore run in parallel, each with a part of the
requests, and one second stage consumes the rows of all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.config.model import Config
from understudy.monitor.evidence.arms import SplitShares, arms_of
from understudy.monitor.evidence.batch import ColumnBatch, batch_of
from understudy.monitor.evidence.block_columns import BlockColumns
from understudy.monitor.evidence.blocks import RecordBlock
from understudy.monitor.evidence.collector import EvidenceCollector
from understudy.monitor.evidence.columns import Column, column_of, listed
from understudy.monitor.evidence.mirrored import Compared, columns_of
from understudy.monitor.evidence.pending import (
    PendingPredictions,
    kept_outputs,
    trace_columns,
)
from understudy.monitor.evidence.redaction import redaction_of
from understudy.monitor.evidence.rows import rows_of
from understudy.monitor.labels.store import Joined, Prediction
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import ROLE_PRIMARY
from understudy.monitor.records.redaction import Redaction

JOINED = "told"
"""Type of rows that are labels with their predictions. Its value makes it sort after other rows."""
Fault = Callable[[str, str, str, str, int], None]
"""Called in an exception handler with model, version, arm, the stage that failed, and the number
of records that it lost."""
_View = dict[str, list[tuple[EvidenceCollector, SplitShares | None]]]
"""By model: its experiments, each with how requests were divided."""
_JOINED = tuple(field.name for field in fields(Joined))
_ANY_CELLS = frozenset(("outputs", "label", "reward"))
"""None is not the same as NaN there."""


class StageOne:
    """Turns blocks of records and labels into rows of evidence.

    ``champion`` is the arm whose answers are evaluated; ``fault`` is called for internal errors.
    Before :meth:`configure` it produces rows about models only.
    """

    def __init__(self, champion: str, fault: Fault) -> None:
        self.champion = champion
        self.config: Config | None = None
        """The configuration in use; None before :meth:`configure`."""
        self.collectors: dict[str, EvidenceCollector] = {}
        """By experiment."""
        self.offer: Callable[[Prediction], None] | None = None
        """Called with predictions that may get a label."""
        self.compared: Callable[[Compared], None] | None = None
        """Called with comparisons of mirrored answers: of those that differ, and with
        ``pass_equal`` with all."""
        self.pass_equal = False
        self.labelled: Callable[[Sequence[Joined]], None] | None = None
        """Called with labels that were joined to their predictions."""
        self._pending: PendingPredictions | None = None
        self._redaction = Redaction(())
        self._first_model = ""
        self._fault = fault
        self._rows: list[ColumnBatch] = []
        self._joined: list[Joined] = []
        self._names: Names | None = None
        self._view: _View = {}

    def configure(self, config: Config) -> None:
        """Apply another configuration; unchanged experiments keep their waiting answers."""
        self.config = config
        self.champion = config.champion.name
        self._redaction = redaction_of(config)
        self._first_model = config.models[0].name if config.models else ""
        self._pending = PendingPredictions(config)
        collectors: dict[str, EvidenceCollector] = {}
        for declared in config.experiments:
            arms = arms_of(config, declared)
            collector = self.collectors.get(declared.name)
            if collector is None or collector.declared != declared or collector.arms != arms:
                collector = EvidenceCollector(declared, arms, self._redacted)
            collectors[declared.name] = collector
        self.collectors = collectors
        self._names = None

    def _redacted(self, columns: Any) -> dict[str, object]:
        return self._redaction.columns(columns)

    # In -----------------------------------------------------------------------------------------

    def take(self, block: RecordBlock, offset: int = 0) -> None:
        """Take the block at ``offset`` of its input."""
        columns = BlockColumns(block, offset, self.champion)
        model, version = columns.key
        try:
            experiments = self._experiments(block.names).get(model, ())
            for collector, shares in experiments:
                mirrored = collector.mirrored
                mirrored.compared, mirrored.pass_equal = self.compared, self.pass_equal
                collector.take(columns, shares)
            if self.offer is not None:
                self._offer(columns, experiments, self.offer)
        except Exception:
            # One stage loses this block; the other stages still take it.
            self._fault(model, version, "", "experiment", block.count)
        if self._pending is not None and self.offer is not None:
            try:
                self._pending.take(columns, self.offer)
            except Exception:
                self._fault(model, version, "", "watch", block.count)
        try:
            self._rows += list(rows_of(columns))
        except Exception:
            self._fault(model, version, "", "record", block.count)

    def _experiments(self, names: Names) -> _View:
        """The experiments that the records of a block belong to."""
        if names is self._names:
            return self._view
        view: _View = {}
        divided = {split.experiment: split for split in names.splits}
        for name, collector in self.collectors.items():
            split = divided.get(name)
            shares = None
            if split is not None and all(arm in names.arms for arm in collector.order):
                weights = tuple(split.weights[names.arms.index(arm)] for arm in collector.order)
                shares = SplitShares(names.arms, weights, split.since, split.epoch, split.first)
            view.setdefault(self._model_of(collector), []).append((collector, shares))
        self._names, self._view = names, view
        return view

    def _model_of(self, collector: EvidenceCollector) -> str:
        return collector.declared.model or self._first_model

    def _offer(
        self,
        block: BlockColumns,
        experiments: Sequence[tuple[EvidenceCollector, SplitShares | None]],
        offer: Callable[[Prediction], None],
    ) -> None:
        """Pass each prediction on once: for the experiment that assigned its request, otherwise for
        any that wants its label."""
        left: NDArray[np.bool_] = np.ones(block.count, np.bool_)
        traced = self.config is not None and "labels" in self.config.telemetry.events.evaluations
        many = block.response.many
        wanting = [(one, shares) for one, shares in experiments if one.layout.wants_labels]
        for assigned in (True, False):
            for collector, shares in wanting:
                arms = [block.arm_index(arm) for arm in collector.order]
                left_of_arms = left & np.isin(block.arm, arms)
                records = np.flatnonzero(left_of_arms & collector.answered(block))
                known = np.zeros(len(records))
                if assigned:
                    known = np.array(collector.shares_of(block, shares, records))
                    records, known = records[known > 0.0], known[known > 0.0]
                left[records] = False
                for record, answer, share, given in zip(
                    records.tolist(),
                    block.response.decoded(records),
                    known.tolist(),
                    collector.covariates_of(block, records),
                    strict=True,
                ):
                    outputs = columns_of(answer) if answer is not None else {}
                    outputs = kept_outputs(outputs, collector.label_outputs, self._redaction)
                    if traced:
                        rows = 1 if many is None else max(1, int(many[record]))
                        given |= trace_columns(block, record, rows)
                    offer(
                        Prediction(
                            block.ids[record].decode("latin-1"),
                            block.names.arm(int(block.arm[record])),
                            bool(block.role[record] != ROLE_PRIMARY),
                            block.key[0],
                            share,
                            float(block.started[record]),
                            outputs | given,
                            collector.declared.name if assigned else "",
                        )
                    )

    def take_labels(self, joined: Sequence[Joined]) -> None:
        """Take labels that were joined to their predictions."""
        if self.labelled is not None:
            self.labelled(joined)
        for collector in self.collectors.values():
            model = self._model_of(collector)
            collector.take_labels(one for one in joined if one.model == model)
        self._joined += (one for one in joined if not one.mirrored and one.arm == self.champion)

    # Out ----------------------------------------------------------------------------------------

    def drain_rows(self) -> list[ColumnBatch]:
        """Evidence about models since the last call."""
        batches, self._rows = self._rows, []
        joined, self._joined = self._joined, []
        by_model: dict[str, list[Joined]] = {}
        for one in joined:
            by_model.setdefault(one.model, []).append(one)
        return batches + [_joined_batch(model, labels) for model, labels in by_model.items()]

    def drain(self) -> list[ColumnBatch]:
        """All evidence since the last call."""
        batches = self.drain_rows()
        for collector in self.collectors.values():
            batches += collector.drain()
        return batches


def _joined_batch(model: str, joined: Sequence[Joined]) -> ColumnBatch:
    columns: list[Column] = []
    for name in _JOINED:
        # Sequence numbers are local to one feedback store.
        cells = [0 if name == "seq" else getattr(one, name) for one in joined]
        columns.append(cells if name in _ANY_CELLS else column_of(cells))
    return batch_of(
        (JOINED, model),
        _JOINED,
        [max(one.received, one.started) for one in joined],
        (f"{one.request_id}/{one.row}".encode() for one in joined),
        np.zeros(len(joined), np.int16),
        columns,
    )


def joined_of(batch: ColumnBatch) -> list[Joined]:
    """The labels in a batch made by :func:`_joined_batch`."""
    return [Joined(*row) for row in zip(*map(listed, batch.columns), strict=True)]
