"""Which rules the rows of a batch break."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.encoder import Batch, Encoded, Encoder
from understudy.monitor.baseline.repeats import Repeats, keys_of
from understudy.monitor.baseline.rules import RateRule, Rule
from understudy.monitor.detectors import packed
from understudy.shadow.state import Config, Converter, Count, Saved, Stateful

_MOST_WAITING = 65_536
"""Requests that wait for rows."""


def _dump_repeats(repeats: Repeats) -> Any:
    """Saved only with all digits, for a state that moves to another process unchanged."""
    return repeats.dump_state() if packed.exact() else None


def _load_repeats(name: str, value: Any, now: Repeats) -> Repeats:
    return now if value is None else Repeats.from_state(value)


class BrokenRows(Stateful):
    """Which of a model's ``rules`` each row breaks. ``encoder`` encodes rows by the baseline."""

    encoder: Config[Encoder]
    _rules: Config[int]
    _indices: Config[dict[tuple[Rule, str], int]]
    duplicate: Config[int | None]
    """Index of the rule about duplicate rows; None without one."""
    of_answers: Config[list[int]]
    repeats: Saved[Annotated[Repeats, Converter(_dump_repeats, _load_repeats)]]
    added: Saved[dict[str, Count]]
    """Number of rows by name of a column that the baseline does not know."""
    unread: Saved[list[float]]
    """For each request that was not evaluated yet, 1 if it could not be decoded, else 0."""

    def __init__(self, encoder: Encoder, rules: Sequence[RateRule]) -> None:
        self.encoder = encoder
        self._rules = len(rules)
        self._indices = {(rule.rule, rule.feature): n for n, rule in enumerate(rules)}
        self.duplicate = self._indices.get((Rule.DUPLICATE, ""))
        self.of_answers = [
            n
            for n, rule in enumerate(rules)
            if rule.feature and not encoder.is_feature[encoder.names.index(rule.feature)]
        ]
        self.repeats = Repeats()
        self.added = {}
        self.unread = []

    def add_requests(self, unread: Sequence[float]) -> None:
        """Record requests that arrived: 1 for one that could not be decoded, else 0. Without
        rows, the newest are kept."""
        self.unread += unread
        del self.unread[:-_MOST_WAITING]

    def find(self, encoded: Encoded, batch: Batch) -> NDArray[np.float64] | None:
        """Which rules each row breaks, (n, R); NaN where a rule does not apply. None, for most
        batches, when all rules apply and none is broken."""
        repeated = self._repeated(encoded.raw)
        # One value per request, not per row: they are entered in the first rows.
        unread = self.unread[: encoded.rows]
        del self.unread[: len(unread)]
        silent = 0 < len(unread) < encoded.rows or (self.of_answers and not batch.answered)
        quiet = repeated is None or not repeated.any()
        if quiet and not (encoded.broken or encoded.added or silent or any(unread)):
            return None
        broken = np.zeros((encoded.rows, self._rules))
        for rule, mask in encoded.broken.items():
            for column in np.flatnonzero(mask.any(0)):
                of_column = self._indices.get((rule, self.encoder.names[column]))
                if of_column is not None:
                    broken[:, of_column] = mask[:, column]
        if not batch.answered:
            broken[:, self.of_answers] = np.nan
        if repeated is not None:
            broken[:, self.duplicate] = repeated
        if encoded.added:
            broken[:, self._indices[Rule.ADDED, ""]] = 1.0
            for name in encoded.added[:20]:
                if name in self.added or len(self.added) < 100:
                    self.added[name] = self.added.get(name, 0) + encoded.rows
        if unread:
            index = self._indices[Rule.UNDECODABLE, ""]
            broken[:, index] = np.nan
            broken[: len(unread), index] = unread
        return broken

    def _repeated(self, raw: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Which rows repeat a recent one, (n,); None without a rule about duplicates."""
        if self.duplicate is None:
            return None
        cells = raw if self.encoder.is_feature.all() else raw[:, self.encoder.is_feature]
        if not cells.shape[1]:
            return None
        return self.repeats.update(keys_of(cells))
