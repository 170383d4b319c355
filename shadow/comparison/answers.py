"""Comparison of two responses, aligned by the names of their outputs, cell by cell.

A cell is a JSON value. Numbers are compared with tolerance; texts and truth values are labels;
lists of numbers are vectors of scores, whose best entry is the label; other lists and mappings are
compared inside, under dotted names.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from understudy.shadow.comparison.rules import Rules

Cells = Sequence[object]
_LONGEST = 60


@dataclass(slots=True)
class FieldDifference:
    """How one output differs.

    ``rows`` rows differ, ``flips`` of them in the label. ``largest`` is the
    largest difference of two numbers, ``relative`` the same against the larger magnitude. Of
    vectors of scores: ``top_k`` is the smallest shared part of the best k, ``rank_correlation`` the
    smallest Spearman correlation, ``distance`` the largest Jensen-Shannon distance (base 2) where
    they are distributions. ``kind`` is "value", "missing", "extra", "rows" or "type".
    """

    name: str
    kind: str = "value"
    rows: int = 0
    flips: int = 0
    largest: float = 0.0
    relative: float = 0.0
    top_k: float | None = None
    rank_correlation: float | None = None
    distance: float | None = None
    example: tuple[object, object] | None = None

    @property
    def severity(self) -> float:
        """Rank for sorting, the worst highest: different form, then different label, then
        numbers."""
        if self.kind != "value":
            return 3.0
        if self.flips:
            return 2.0 + min(1.0, self.relative) / 2.0
        return min(1.0, self.relative) + (self.distance or 0.0) / 2.0

    def explain(self, rows: int) -> str:
        """The difference as text, for a response of ``rows`` rows."""
        if self.kind == "missing":
            return f"{self.name}: missing in the challenger's response"
        if self.kind == "extra":
            return f"{self.name}: only in the challenger's response"
        if self.kind == "rows":
            return f"{self.name}: different number of rows"
        where = "" if rows == 1 else f" in {self.rows} of {rows} rows"
        text = f"{self.name}: "
        if self.example is not None:
            text += f"{_short(self.example[0])} against {_short(self.example[1])}"
        if self.kind == "type":
            return f"{text}, different type{where}"
        return f"{text}{', different label' if self.flips else ''}{where}"


@dataclass(slots=True)
class Comparison:
    """The result: ``rows`` of the champion's response; ``fields`` are the outputs that differ."""

    rows: int
    fields: dict[str, FieldDifference]

    @property
    def agree(self) -> bool:
        """Whether no difference exceeds the rules."""
        return not self.fields

    @property
    def severity(self) -> float:
        """Severity of the worst output; 0 without differences."""
        return max((f.severity for f in self.fields.values()), default=0.0)

    def explain(self) -> str:
        """The differences as text, the worst first."""
        worst = sorted(self.fields.values(), key=lambda f: -f.severity)
        return "; ".join(f.explain(self.rows) for f in worst[:8])


def compare(
    champion: Mapping[str, Cells], challenger: Mapping[str, Cells], rules: Rules
) -> Comparison:
    """Compare two responses, each columns of cells by the name of the output, under ``rules``."""
    rows = len(next(iter(champion.values()), ()))
    fields: dict[str, FieldDifference] = {}
    for name, first in champion.items():
        if rules.ignores(name):
            continue
        second = challenger.get(name)
        if second is None:
            fields[name] = FieldDifference(name, "missing", len(first))
        elif first is not second and not _same(first, second):
            difference = _column(name, first, second, rules)
            if difference is not None:
                fields[name] = difference
    if challenger.keys() != champion.keys():
        for name, cells in challenger.items():
            if name not in champion and not rules.ignores(name):
                fields[name] = FieldDifference(name, "extra", len(cells))
    return Comparison(rows, fields)


def _same(first: Cells, second: Cells) -> bool:
    """Equal in value and in type, as most responses are."""
    return first == second and list(map(type, first)) == list(map(type, second))


def _column(name: str, first: Cells, second: Cells, rules: Rules) -> FieldDifference | None:
    if len(first) != len(second):
        return FieldDifference(name, "rows", abs(len(first) - len(second)))
    difference = FieldDifference(name)
    if not rules.orders(name):
        first, second = _sorted(first), _sorted(second)
    for a, b in zip(first, second, strict=True):
        _cell(difference, name, a, b, rules)
    return difference if difference.rows else None


def _cell(difference: FieldDifference, name: str, a: object, b: object, rules: Rules) -> None:
    if _is_number(a) and _is_number(b):
        assert isinstance(a, (int, float))
        assert isinstance(b, (int, float))
        if not rules.close(a, b):
            _differs(difference, a, b)
            _numbers(difference, float(a), float(b))
            # Whole numbers that differ are classes as often as counts.
            difference.flips += isinstance(a, int) and isinstance(b, int)
    elif isinstance(a, list) and isinstance(b, list):
        if not rules.orders(name):
            a, b = _sorted(a), _sorted(b)
        if a and len(a) == len(b) and all(map(_is_number, a)) and all(map(_is_number, b)):
            _vector(difference, a, b, rules)
        elif not _inside_agrees(a, b, name, rules):
            _differs(difference, a, b)
    elif isinstance(a, dict) and isinstance(b, dict):
        if not _inside_agrees(a, b, name, rules):
            _differs(difference, a, b)
    elif type(a) is not type(b):
        _differs(difference, a, b)
        difference.kind = "type"
    elif a != b:
        _differs(difference, a, b)
        difference.flips += 1


def _vector(difference: FieldDifference, a: list[object], b: list[object], rules: Rules) -> None:
    """Two vectors of scores of equal length."""
    x, y = np.array(a, dtype=np.float64), np.array(b, dtype=np.float64)
    if all(map(rules.close, x.tolist(), y.tolist())):
        return
    _differs(difference, a, b)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return
    gap = np.abs(x - y)
    worst = int(np.argmax(gap))
    _numbers(difference, float(x[worst]), float(y[worst]))
    difference.flips += x.size > 1 and int(x.argmax()) != int(y.argmax())
    if rules.top_k and x.size > rules.top_k:
        best = (set(np.argsort(-v, kind="stable")[: rules.top_k].tolist()) for v in (x, y))
        shared = len(set.intersection(*best)) / rules.top_k
        difference.top_k = shared if difference.top_k is None else min(difference.top_k, shared)
    if x.size >= 3:
        r = _spearman(x, y)
        if r is not None:
            known = difference.rank_correlation
            difference.rank_correlation = r if known is None else min(known, r)
    if (
        x.size > 1
        and min(x.min(), y.min()) >= 0.0
        and max(abs(x.sum() - 1), abs(y.sum() - 1)) < 1e-3
    ):
        difference.distance = max(difference.distance or 0.0, jensen_shannon(x, y))


def jensen_shannon(p: np.ndarray, q: np.ndarray) -> float:
    """Jensen-Shannon distance of two distributions, base 2, in [0, 1] (Endres & Schindelin)."""
    p, q = p / p.sum(), q / q.sum()
    middle = 0.5 * (p + q)
    total = 0.0
    for v in (p, q):
        there = v > 0.0
        total += 0.5 * float(np.sum(v[there] * np.log2(v[there] / middle[there])))
    return math.sqrt(max(0.0, total))


def _spearman(x: np.ndarray, y: np.ndarray) -> float | None:
    """Rank correlation with ties at their mean rank; None when one is constant."""
    rx, ry = _ranks(x), _ranks(y)
    spread = float(rx.std() * ry.std())
    return float(np.mean((rx - rx.mean()) * (ry - ry.mean())) / spread) if spread > 0.0 else None


def _ranks(x: np.ndarray) -> np.ndarray:
    _, inverse, counts = np.unique(x, return_inverse=True, return_counts=True)
    ends = np.cumsum(counts)
    ranks: np.ndarray = (ends - 0.5 * (counts - 1))[inverse]
    return ranks


def _inside_agrees(a: object, b: object, path: str, rules: Rules) -> bool:
    if rules.ignores(path):
        return True
    if _is_number(a) and _is_number(b):
        return rules.close(a, b)  # type: ignore[arg-type]
    if isinstance(a, dict) and isinstance(b, dict):
        return all(
            _inside_agrees(a.get(key, _ABSENT), b.get(key, _ABSENT), f"{path}.{key}", rules)
            for key in {*a, *b}
        )
    if isinstance(a, list) and isinstance(b, list):
        if not rules.orders(path):
            a, b = _sorted(a), _sorted(b)
        return len(a) == len(b) and all(
            _inside_agrees(x, y, path, rules) for x, y in zip(a, b, strict=True)
        )
    return type(a) is type(b) and a == b


_ABSENT = object()


def _is_number(cell: object) -> bool:
    return type(cell) is float or type(cell) is int


def _differs(difference: FieldDifference, a: object, b: object) -> None:
    difference.rows += 1
    if difference.example is None:
        difference.example = (a, b)


def _numbers(difference: FieldDifference, a: float, b: float) -> None:
    gap, largest = abs(a - b), max(abs(a), abs(b))
    if gap < math.inf:
        difference.largest = max(difference.largest, gap)
        difference.relative = max(difference.relative, gap / largest if largest > 0.0 else 0.0)
    else:
        difference.relative = 1.0


def _sorted(cells: Cells) -> list[object]:
    return sorted(cells, key=lambda cell: (str(type(cell)), _key(cell)))


def _key(cell: object) -> str:
    if _is_number(cell):
        return f"{cell:+030.12f}"
    return json.dumps(cell, sort_keys=True, default=str)


def _short(cell: object) -> str:
    text = f"{cell:.6g}" if isinstance(cell, float) else json.dumps(cell, default=str)
    return text if len(text) <= _LONGEST else text[: _LONGEST - 1] + "…"
