"""Predictions of the champion that may get a label: what is kept of them until then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from understudy.monitor.config.model import Config
from understudy.monitor.evidence.block_columns import BlockColumns
from understudy.monitor.evidence.mirrored import columns_of
from understudy.monitor.evidence.redaction import redaction_of
from understudy.monitor.labels.store import Prediction
from understudy.monitor.records.record import OK, ROLE_PRIMARY

PREFIX = "@"
"""Before the name of a feature among the outputs of a prediction that waits for its label: the
feedback store keeps outputs only, and a label has to find its segment."""


class PendingPredictions:
    """Of the models whose performance is declared."""

    def __init__(self, config: Config) -> None:
        self.champion = config.champion.name
        self._redaction = redaction_of(config)
        self._segments = tuple(config.monitoring.segments)
        judged = {(m.name, m.version): m.performance for m in config.models if m.performance}
        self._judged = judged if config.monitoring.enabled else {}

    def take(self, block: BlockColumns, offer: Callable[[Prediction], None]) -> None:
        """Hand on the predictions of a block whose labels are wanted."""
        judged = self._judged.get(block.key)
        if judged is None:
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
                or judged.prediction not in answer.names
            ):
                continue
            columns = columns_of(answer)
            every = inputs.names if judged.slices else self._segments
            shown = tuple(name for name in every if not self._redaction.hides(name))
            columns |= kept_with(shown, inputs.names, inputs.values)
            request_id = block.ids[record].decode("latin-1")
            started = float(block.started[record])
            offer(Prediction(request_id, self.champion, False, block.key[0], 0.0, started, columns))


def kept_with(
    features: Sequence[str], names: Sequence[str], values: Sequence[Any]
) -> dict[str, list[object]]:
    """What has to be kept with predictions so that their labels find their segments: the cells of
    the declared ``features``, by name with a prefix. ``values`` are the rows of a request, row by
    row, in the order of ``names``."""
    width = len(names)
    return {
        f"{PREFIX}{feature}": list(values[list(names).index(feature) :: width])
        for feature in features
        if feature in names
    }
