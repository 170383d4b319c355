"""The first stage of the evaluation: from decoded records and labels to rows of evidence.

It needs of a request only what has the same request id. Many of them may therefore run beside each
other, each with a part of the requests, and one second stage takes the rows of all.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

import numpy as np

from understudy.monitor.evidence.batch import ColumnBatch
from understudy.monitor.evidence.collectors import EvidenceCollectors, View
from understudy.monitor.evidence.pending import PendingPredictions
from understudy.monitor.evidence.rows import RowCollector
from understudy.monitor.labels.store import Joined
from understudy.monitor.records.record import Record

JOINED = "told"
"""The sort of rows that are labels with their predictions; by its name it follows other rows."""
Fault = Callable[[str, str, str, str], None]
"""Called within an exception with model, version, arm and the room that failed."""


class StageOne:
    """``champion`` is the arm whose answers are judged; ``fault`` hears of faults of ours."""

    def __init__(self, champion: str, fault: Fault) -> None:
        self.rows = RowCollector(champion)
        self.collectors: EvidenceCollectors | None = None
        self.offers: PendingPredictions | None = None
        self._fault = fault
        self._joined: list[Joined] = []

    def take(
        self,
        view: View | None,
        key: tuple[str, str],
        record: Record,
        arm: str,
        of_request: object,
        of_response: object,
    ) -> None:
        """Take one record of the model ``key``, (name, version)."""
        if view and self.collectors is not None:
            try:
                self.collectors.take(view, key[0], record, arm, of_request, of_response)
            except Exception:
                # It costs a room this record, and nobody else anything.
                self._fault(*key, arm, "experiment")
        if self.offers is not None:
            try:
                self.offers.take(key, record, arm, of_request, of_response)
            except Exception:
                self._fault(*key, arm, "watch")
        self.rows.take(key, record, arm, of_request, of_response)

    def take_label(self, joined: Joined) -> None:
        """A label that was joined to a prediction."""
        if self.collectors is not None:
            self.collectors.take_label(joined)
        if self.offers is not None and not joined.mirrored and joined.arm == self.offers.champion:
            self._joined.append(joined)

    def drain(self) -> list[ColumnBatch]:
        """Everything that was gathered since the last time."""
        found = self.rows.drain()
        if self.collectors is not None:
            for gathering in self.collectors.by_name.values():
                found += gathering.drain()
        joined, self._joined = self._joined, []
        by_model: dict[str, list[Joined]] = {}
        for one in joined:
            by_model.setdefault(one.model, []).append(one)
        for model, of_model in by_model.items():
            found.append(_joined_sheet(model, of_model))
        return found


_JOINED = tuple(field.name for field in fields(Joined))


def _joined_sheet(model: str, joined: list[Joined]) -> ColumnBatch:
    # Not asdict(), which copies the outputs, and takes ten times as long.
    cells: list[Any] = [{n: getattr(one, n) for n in _JOINED} | {"seq": 0} for one in joined]
    return ColumnBatch(
        (JOINED, model),
        ("joined",),
        np.array([max(one.received, one.started) for one in joined], np.float64),
        [f"{one.request_id}/{one.row}".encode() for one in joined],
        np.zeros(len(joined), np.int16),
        [cells],
    )


def joined_of(sheet: ColumnBatch) -> list[Joined]:
    """The labels of a sheet."""
    return [Joined(**cell) for cell in sheet.columns[0]]
