"""What language models did in the last minute: times, tokens, finish reasons.

The statistics of predictions grow since the start; people who look at a running service ask how it
is now. Rows are kept as counts, in slots of a few seconds of the records' own time, so memory is
bounded by the number of models and arms.
"""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import distinct
from understudy.monitor.evidence.columns import Column, Floats, floats_of
from understudy.monitor.stats.buckets import BUCKETS
from understudy.monitor.stats.distribution import UPPER_EDGES, Distribution

SECONDS = 60.0
"""Length of the window."""
SLOT_SECONDS = 5.0
MARKS = frozenset(("finish_reason", "tokens_source"))
"""Columns that only answers of language models have."""
TIMES = ("ttft_seconds", "tpot_seconds")
QUANTILES = (0.5, 0.99)
_COUNTED = ("prompt_tokens", "output_tokens", "is_good", "token_cost")
_MOST_REASONS = 20
_OTHER = "other"
_AHEAD_SECONDS = 5.0
"""How much later than now a record may be: clocks of pods differ."""


@dataclass(slots=True)
class _Slot:
    answers: int = 0
    sums: defaultdict[str, float] = field(default_factory=lambda: defaultdict(float))
    known: Counter[str] = field(default_factory=Counter)
    """By column, answers that have a value."""
    times: dict[str, Counter[int]] = field(
        default_factory=lambda: {name: Counter() for name in TIMES}
    )
    """By column, numbers of values by bucket of a latency sketch."""
    reasons: Counter[str] = field(default_factory=Counter)


@dataclass(frozen=True, slots=True)
class TokenFigures:
    """Of the answers of one arm that were read in the window; None where no answer tells it.

    ``ttft`` and ``tpot`` are p50 and p99 in seconds, tokens are sums, ``good`` are answers within
    all limits of `goodput`, ``cost`` is
    that of all their tokens, and ``seconds`` is the length of the window.
    """

    seconds: float
    answers: int
    ttft: tuple[float, float] | None
    tpot: tuple[float, float] | None
    prompt_tokens: float | None
    output_tokens: float | None
    good: int | None
    cost: float | None
    finish_reasons: dict[str, int]


class TokenWindow:
    """Answers of language models in the last minute, by a key; ``clock`` gives unix seconds."""

    def __init__(self, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._begun = clock()
        self._slots: dict[tuple[str, str, str], dict[int, _Slot]] = {}

    def add(
        self,
        key: tuple[str, str, str],
        names: tuple[str, ...],
        columns: Sequence[Column],
        at: Floats,
    ) -> None:
        """Add rows that ended at ``at`` (unix seconds), with a column for each of the names. Rows
        of other models, and those outside of the window, are left out."""
        if not names or not MARKS.issubset(names):
            return
        now = self._clock()
        fresh = np.flatnonzero((at > now - SECONDS) & (at <= now + _AHEAD_SECONDS))
        if not len(fresh):
            return
        mine = self._slots.setdefault(key, {})
        self._forget(mine, now)
        by_name = dict(zip(names, columns, strict=True))
        values = {name: _numbers(by_name[name]) for name in (*TIMES, *_COUNTED) if name in by_name}
        reasons = by_name["finish_reason"]
        numbers = (at[fresh] // SLOT_SECONDS).astype(np.int64)
        for number in distinct(numbers).tolist():
            rows = fresh[numbers == number]
            slot = mine.setdefault(number, _Slot())
            slot.answers += len(rows)
            for row in rows.tolist():
                reason = str(reasons[row])
                known = reason in slot.reasons or len(slot.reasons) < _MOST_REASONS
                slot.reasons[reason if known else _OTHER] += 1
            for name, column in values.items():
                found = column[rows]
                found = found[np.isfinite(found)]
                if not len(found):
                    continue
                if name in TIMES:
                    places = np.minimum(np.searchsorted(UPPER_EDGES, found), BUCKETS - 1)
                    slot.times[name].update(places.tolist())
                else:
                    slot.sums[name] += float(found.sum())
                    slot.known[name] += len(found)

    def figures(self) -> dict[tuple[str, str, str], TokenFigures]:
        """Of each key with answers in the window."""
        now = self._clock()
        found = {}
        for key, slots in list(self._slots.items()):
            self._forget(slots, now)
            if slots:
                found[key] = self._of(list(slots.values()), now)
            else:
                del self._slots[key]
        return found

    def _of(self, slots: Sequence[_Slot], now: float) -> TokenFigures:
        sums: defaultdict[str, float] = defaultdict(float)
        known: Counter[str] = Counter()
        reasons: Counter[str] = Counter()
        for slot in slots:
            for name, total in slot.sums.items():
                sums[name] += total
            known.update(slot.known)
            reasons.update(slot.reasons)
        told = {name: sums[name] if known[name] else None for name in _COUNTED}
        good = told["is_good"]
        return TokenFigures(
            seconds=max(1.0, min(SECONDS, now - self._begun)),
            answers=sum(slot.answers for slot in slots),
            ttft=_quantiles(slots, "ttft_seconds"),
            tpot=_quantiles(slots, "tpot_seconds"),
            prompt_tokens=told["prompt_tokens"],
            output_tokens=told["output_tokens"],
            good=None if good is None else round(good),
            cost=told["token_cost"],
            finish_reasons=dict(reasons.most_common()),
        )

    def _forget(self, slots: dict[int, _Slot], now: float) -> None:
        oldest = (now - SECONDS) // SLOT_SECONDS
        for number in [number for number in slots if number <= oldest]:
            del slots[number]


def _numbers(column: Column) -> NDArray[np.float64]:
    if isinstance(column, np.ndarray):
        return column.astype(np.float64, copy=False)
    return floats_of(column)[0]


def _quantiles(slots: Sequence[_Slot], name: str) -> tuple[float, float] | None:
    counts = np.zeros(BUCKETS, np.int64)
    for slot in slots:
        for place, count in slot.times[name].items():
            counts[place] += count
    found: Any = Distribution(counts).quantiles(QUANTILES)
    return None if found is None else tuple(found)
