"""The class that a vector of scores says: the one with the highest score.

A model that answers with a score for each class, such as a softmax, has no class in its answer;
accuracy, the distribution of classes and label flips need one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import chain
from typing import Any

from understudy.common.codecs.spec import Classes
from understudy.common.codecs.table import Table

CLASS, SCORE = "class", "score"
_TRITON = re.compile(r"([^:]+):([0-9]{1,9})(?::(.*))?", re.DOTALL)
"""Triton's classification output: score, index, and the label if the server knows it."""


def with_class(table: Table, classes: Classes) -> Table:
    """The table with the columns ``class`` and ``score``.

    The scores are the elements of one vector or the columns ``of[0]``, ``of[1]`` …; the class is
    its label, or its index as text. Texts of Triton's classification are read as well. Cells are
    None in rows without scores. The table is unchanged where it has no such scores, or has columns
    of these names.

    >>> from understudy.common.codecs.spec import Classes
    >>> found = with_class(Table(("p",), 1, [[0.2, 0.8]]), Classes("p", ("no", "yes")))
    >>> found.row(0)
    {'p': [0.2, 0.8], 'class': 'yes', 'score': 0.8}
    """
    names = table.names
    if CLASS in names or SCORE in names:
        return table
    width = len(names)
    if classes.of in names:
        at = names.index(classes.of)
        found = [_best(cell, classes.labels) for cell in table.values[at::width]]
    else:
        columns = [at for at, name in enumerate(names) if name.startswith(classes.of + "[")]
        if not columns:
            return table
        first, end = columns[0], columns[-1] + 1
        values = table.values
        found = [
            _best(values[row + first : row + end], classes.labels)
            for row in range(0, len(values), width)
        ]
    rows = (table.values[row * width : (row + 1) * width] for row in range(table.rows))
    cells = list(chain.from_iterable((*row, *pair) for row, pair in zip(rows, found, strict=True)))
    return Table((*names, CLASS, SCORE), table.rows, cells, table.lost)


def _best(cell: Any, labels: Sequence[str]) -> tuple[str | None, float | None]:
    scores = cell if isinstance(cell, list) else [cell]
    pairs = [_pair(index, score) for index, score in enumerate(scores)]
    read = [pair for pair in pairs if pair is not None]
    if not read or len(read) < len(pairs):
        return None, None
    score, index, label = max(read, key=lambda pair: pair[0])
    return label or (labels[index] if index < len(labels) else str(index)), score


def _pair(index: int, score: Any) -> tuple[float, int, str] | None:
    """Score, index and label; None if this is no score."""
    if type(score) in (int, float):
        return (float(score), index, "") if score == score else None
    match = _TRITON.fullmatch(score) if isinstance(score, str) else None
    if match is None:
        return None
    try:
        value = float(match[1])
    except ValueError:
        return None
    return (value, int(match[2]), match[3] or "") if value == value else None
