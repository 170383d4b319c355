"""Whether what is declared arrives: rows, predictions, features, labels.

Monitoring that gets nothing finds nothing, which looks like health. What has not come with the last
:data:`FEWEST` requests is a problem by itself, or with the last :data:`MANY` if it may be rare.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from understudy.monitor.evidence.batch import ColumnBatch
from understudy.monitor.evidence.columns import Column, listed
from understudy.monitor.evidence.rows import parts_of
from understudy.monitor.health.untested import Untested

FEWEST = 100
"""Requests without something, one after another, that are a problem."""
MANY = 100 * FEWEST
"""The same of a feature or output that has come before."""
_UNSERVED = 10 * FEWEST
"""The same of predictions of the champion, while another arm serves clients."""
_FEWEST_LABELS = 10
_SHARE = 0.5
"""Share of the last labels without a prediction that is a problem."""
_MOST_ARMS = 16
_MOST_NAMES = 5


class Arrivals:
    """What has come with the last requests of one model.

    ``features`` and ``outputs`` are names that the configuration declares for the model, and
    ``segments`` are features that it declares for all models together. Only counts are kept,
    and not saved: after a restart, another :data:`FEWEST` requests show what is missing.
    """

    def __init__(self) -> None:
        self.champion = ""
        self.requests = 0
        """Requests since one with rows; why they have none is known by what cannot be read."""
        self.unanswered = 0
        """Requests with rows since one with predictions of the champion."""
        self._arms: Counter[str] = Counter()
        """Arms that answered since then."""
        self._answers = True
        self._segments: tuple[str, ...] = ()
        self._features: dict[str, int] = {}
        self._outputs: dict[str, int] = {}
        """By name, requests with rows since one with a value."""
        self._came: set[tuple[str, str]] = set()
        """Features ("inputs") and outputs ("predictions") that have had a value."""

    def configure(
        self,
        champion: str,
        features: Iterable[str],
        segments: Iterable[str],
        outputs: Iterable[str],
        answers: bool,
    ) -> None:
        """Apply another configuration; what is declared as before keeps its count. ``answers`` is
        whether answers are to be read."""
        self._answers = answers
        if champion != self.champion:
            self.unanswered = 0
            self._arms.clear()
        self.champion = champion
        own = tuple(features)
        self._segments = tuple(name for name in segments if name not in own)
        self._features = {name: self._features.get(name, 0) for name in (*own, *self._segments)}
        self._outputs = {name: self._outputs.get(name, 0) for name in outputs}
        declared = {("inputs", name) for name in self._features}
        self._came &= declared | {("predictions", name) for name in self._outputs}

    def take_requests(self, batch: ColumnBatch) -> None:
        """Take rows of the type ``REQUESTS``."""
        requests = ~np.isnan(batch.floats("request"))  # and not answers to mirrored requests
        self.requests += int(requests.sum())
        arms = listed(batch.column("arm"))
        for arm, count in Counter(arms[row] for row in np.flatnonzero(requests).tolist()).items():
            if arm in self._arms or len(self._arms) < _MOST_ARMS:
                self._arms[str(arm)] += count

    def take_rows(self, batch: ColumnBatch) -> None:
        """Take rows of the type ``ROWS``."""
        if not len(batch):
            return
        # The rows of a request are next to each other, and have the same time.
        requests = 1 + int(np.count_nonzero(np.diff(batch.at)))
        features, inputs, names, answers = parts_of(batch)
        self.requests = 0
        self._count("inputs", self._features, features, inputs, requests)
        if names:
            self.unanswered = 0
            self._arms.clear()
            self._count("predictions", self._outputs, names, answers, requests)
        else:
            self.unanswered += requests

    @property
    def starved(self) -> bool:
        """Whether no rows with predictions come, as a baseline is learned from."""
        return self.requests >= FEWEST or self._unpredicted

    @property
    def _unpredicted(self) -> bool:
        others = bool(self._arms) and self.champion not in self._arms
        return self._answers and self.unanswered >= (_UNSERVED if others else FEWEST)

    def has(self, segment: str) -> bool:
        """Whether a segment's feature has come."""
        return ("inputs", segment) in self._came

    def untested(self, others: Sequence[Arrivals] = ()) -> Iterator[Untested]:
        """What has not come. ``others`` are those of all models: a segment that comes to one of
        them is not missing."""
        if self._unpredicted:
            words = f"predictions: none for the last {self.unanswered:,} requests, {self._why()}"
            yield Untested("predictions", "no_predictions", words)
        for check, reason, counts in (
            ("inputs", "no_feature", self._features),
            ("predictions", "no_output", self._outputs if self._answers else {}),
        ):
            gone = [
                name
                for name, requests in counts.items()
                if requests >= (MANY if (check, name) in self._came else FEWEST)
                and not (name in self._segments and any(one.has(name) for one in others))
            ]
            if gone:
                requests = min(counts[name] for name in gone)
                words = f"{check}: no value of {_named(gone)} in the last {requests:,} requests"
                yield Untested(check, reason, words)

    def _count(
        self,
        check: str,
        counts: dict[str, int],
        names: Sequence[str],
        columns: Sequence[Column],
        requests: int,
    ) -> None:
        for name in counts:
            if name in names and _has_value(columns[names.index(name)]):
                counts[name] = 0
                self._came.add((check, name))
            else:
                counts[name] += requests

    def _why(self) -> str:
        if self.champion in self._arms or not self._arms:
            return f"{self.champion!r} gave none that could be used"
        return f"since {self._arms.most_common(1)[0][0]!r} answers, and not {self.champion!r}"


def _has_value(column: Column) -> bool:
    if isinstance(column, np.ndarray):
        return not bool(np.isnan(column).all())
    return any(cell is not None and cell == cell for cell in column)


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:_MOST_NAMES]))
    more = len(names) - _MOST_NAMES
    return f"{shown} and {more} more" if more > 0 else shown


def unmatched_labels(figures: Mapping[str, Any]) -> Iterator[Untested]:
    """The last labels, if most of them match no prediction; ``figures`` are those of a feedback
    store."""
    last, orphans, late = (figures["unmatched"][name] for name in ("last", "orphan", "late"))
    count = orphans + late
    if count < _FEWEST_LABELS or count < _SHARE * last:
        return
    words = f"labels: {count} of the last {last} match no prediction"
    if orphans:
        words += (
            f"; {orphans} have an unknown request_id (it is the x-request-id of the response, of a "
            "model with `performance` or an experiment with labels)"
        )
    if late:
        words += f"; {late} came after `feedback.horizon`"
    yield Untested("labels", "unmatched", words, last - count, last)
