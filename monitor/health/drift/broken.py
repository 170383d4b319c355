"""Which rules the rows of a batch break."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import numpy as np
from numpy.typing import NDArray

from understudy.monitor.baseline.encoder import Batch, Encoded, Encoder
from understudy.monitor.baseline.repeats import Repeats, key_of
from understudy.monitor.baseline.rules import RateRule, Rule
from understudy.monitor.detectors import packed
from understudy.shadow.state import Config, Converter, Count, Saved, Stateful


def _dump_repeats(repeats: Repeats) -> Any:
    """Only where all digits are kept, so that who goes on elsewhere goes on as if nothing had
    happened."""
    return repeats.dump_state() if packed.exact() else None


def _load_repeats(name: str, value: Any, now: Repeats) -> Repeats:
    return now if value is None else Repeats.from_state(value)


class BrokenRows(Stateful):
    """Of a model's ``rules``, in their order."""

    encoder: Config[Encoder]
    _rules: Config[int]
    _places: Config[dict[tuple[Rule, str], int]]
    duplicate: Config[int | None]
    """Place of the rule about rows that come again; None where there is none."""
    of_answers: Config[list[int]]
    repeats: Saved[Annotated[Repeats, Converter(_dump_repeats, _load_repeats)]]
    added: Saved[dict[str, Count]]
    """Columns that the baseline does not know, and how many rows had them."""
    unread: Saved[list[float]]
    """Of each request that was not looked at yet, 1 where it could not be read, else 0."""

    def __init__(self, encoder: Encoder, rules: Sequence[RateRule]) -> None:
        self.encoder = encoder
        self._rules = len(rules)
        self._places = {(rule.rule, rule.feature): n for n, rule in enumerate(rules)}
        self.duplicate = self._places.get((Rule.DUPLICATE, ""))
        self.of_answers = [
            n
            for n, rule in enumerate(rules)
            if rule.feature and not encoder.is_feature[encoder.names.index(rule.feature)]
        ]
        self.repeats = Repeats()
        self.added = {}
        self.unread = []

    def find(self, found: Encoded, batch: Batch) -> NDArray[np.float64] | None:
        """Which rules each row breaks: (n, R); NaN where a rule says nothing. None, which is what
        most batches are, where no rule is broken and each says so."""
        repeated = self._repeated(found.raw)
        # Requests, not rows: they take the places of rows while there are any.
        unread = self.unread[: found.rows]
        del self.unread[: len(unread)]
        silent = 0 < len(unread) < found.rows or (self.of_answers and not batch.answered)
        quiet = repeated is None or not repeated.any()
        if quiet and not (found.broken or found.added or silent or any(unread)):
            return None
        broken = np.zeros((found.rows, self._rules))
        for rule, mask in found.broken.items():
            for column in np.flatnonzero(mask.any(0)):
                of_column = self._places.get((rule, self.encoder.names[column]))
                if of_column is not None:
                    broken[:, of_column] = mask[:, column]
        if not batch.answered:
            broken[:, self.of_answers] = np.nan
        if repeated is not None:
            broken[:, self.duplicate] = repeated
        if found.added:
            broken[:, self._places[Rule.ADDED, ""]] = 1.0
            for name in found.added[:20]:
                if name in self.added or len(self.added) < 100:
                    self.added[name] = self.added.get(name, 0) + found.rows
        if unread:
            place = self._places[Rule.UNDECODABLE, ""]
            broken[:, place] = np.nan
            broken[: len(unread), place] = unread
        return broken

    def _repeated(self, raw: NDArray[np.float64]) -> NDArray[np.float64] | None:
        """Which rows were there a moment ago, (n,); None where nothing looks for them."""
        if self.duplicate is None:
            return None
        cells = raw if self.encoder.is_feature.all() else raw[:, self.encoder.is_feature]
        data, size = np.ascontiguousarray(cells).tobytes(), cells.shape[1] * 8
        if not size:
            return None
        keys = [key_of(data[n : n + size]) for n in range(0, len(data), size)]
        return self.repeats.update(keys)
