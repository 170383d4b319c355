"""Predictions of the champion that may get a label, and the columns kept of them until then."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from understudy.monitor.config.model import Config
from understudy.monitor.evidence.block_columns import BlockColumns
from understudy.monitor.evidence.mirrored import columns_of
from understudy.monitor.evidence.redaction import redaction_of
from understudy.monitor.labels.store import Prediction
from understudy.monitor.records.record import OK, ROLE_MIRROR, ROLE_PRIMARY
from understudy.monitor.records.redaction import Redaction

PREFIX = "@"
"""Prefix of a feature's name among the outputs of a pending prediction: the feedback store keeps
outputs only, and the label's segment is computed from features."""


TRACE = "trace:of the answer"
"""Name, among the outputs of a pending prediction, of the trace and span of the answer, for what is
sent about it when its label comes."""


class PendingPredictions:
    """Selects the predictions of models with a ``performance`` section."""

    def __init__(self, config: Config) -> None:
        self.champion = config.champion.name
        self._redaction = redaction_of(config)
        self._segments = tuple(config.monitoring.segments)
        declared = {(m.name, m.version): m.performance for m in config.models if m.performance}
        self._performance = declared if config.monitoring.enabled else {}
        self._traced = "labels" in config.telemetry.events.evaluations

    def take(self, block: BlockColumns, offer: Callable[[Prediction], None]) -> None:
        """Pass the predictions of a block whose labels are wanted to ``offer``."""
        performance = self._performance.get(block.key)
        if performance is None:
            return
        request, response = block.request, block.response
        mine = (block.role == ROLE_PRIMARY) & (block.outcome == OK)
        mine &= block.arm == block.arm_index(self.champion)
        mine &= (request.grid >= 0) & (response.grid >= 0)
        records = np.flatnonzero(mine)
        for record, inputs, answer in zip(
            records.tolist(), request.decoded(records), response.decoded(records), strict=True
        ):
            if (
                inputs is None
                or answer is None
                or answer.rows != inputs.rows
                or performance.prediction not in answer.names
            ):
                continue
            columns = kept_outputs(columns_of(answer), (performance.prediction,), self._redaction)
            wanted = inputs.names if performance.slices else self._segments
            visible = tuple(name for name in wanted if not self._redaction.hides(name))
            columns |= segment_columns(visible, inputs.names, inputs.values)
            if self._traced:
                columns |= trace_columns(block, record, answer.rows)
            request_id = block.ids[record].decode("latin-1")
            started = float(block.started[record])
            offer(Prediction(request_id, self.champion, False, block.key[0], 0.0, started, columns))


def kept_outputs(
    outputs: dict[str, list[object]], needed: Iterable[str], redaction: Redaction
) -> dict[str, list[object]]:
    """The outputs that wait for a label; of hidden ones only those ``needed`` to compare it."""
    names = frozenset(needed)
    return {
        name: cells for name, cells in outputs.items() if name in names or not redaction.hides(name)
    }


def trace_columns(block: BlockColumns, record: int, rows: int) -> dict[str, list[object]]:
    """The trace and the span of an answer, for each of its rows; nothing if it was not traced."""
    of = block.records[record]
    ids = of.span.split(b" ", 3)
    if len(ids) < 4:
        return {}
    span = ids[2 if of.role == ROLE_MIRROR else 1]
    return {TRACE: [f"{of.trace_id.decode('latin-1')}-{span.decode('latin-1')}"] * rows}


def segment_columns(
    features: Sequence[str], names: Sequence[str], values: Sequence[Any]
) -> dict[str, list[object]]:
    """The cells of ``features`` by prefixed name, kept with a prediction to compute its segments.

    ``values`` are the cells of a request row by row, in the order of ``names``.
    """
    width = len(names)
    return {
        f"{PREFIX}{feature}": list(values[list(names).index(feature) :: width])
        for feature in features
        if feature in names
    }
