"""The values of a record that experiments compare."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from understudy.common.arrays import distinct
from understudy.monitor.config.experiment import Cost, Label
from understudy.monitor.evidence.arms import TimeLimits
from understudy.monitor.evidence.block_columns import (
    ERROR_RESPONSE,
    ERRORS,
    BlockColumns,
    Indices,
    Mask,
    Part,
)
from understudy.monitor.evidence.columns import Column, Floats, cells_at, column_of, listed
from understudy.monitor.records import record as outcomes
from understudy.monitor.records.record import OK, OUTCOMES, ROLE_PRIMARY, SERVER_ERROR, TIMEOUT
from understudy.shadow.experiment import fates
from understudy.shadow.experiment.hypothesis import COVARIATE, EARLIER, LOG_LOSS, uncapped
from understudy.shadow.state import Saved, Stateful

NAN = math.nan
LARGEST = 1e30
"""Size of a number of an answer beyond which it is none that could be compared."""
NO_PROBABILITY = -1.0
"""The loss of a score outside of 0 to 1."""
_MOST_CODES = 64
_IS_ERROR = np.array([outcome in ERRORS for outcome in range(len(OUTCOMES))], np.float64)


_FATES = {
    outcomes.OK: fates.ANSWERED,
    outcomes.CANCELLED: fates.ABANDONED,
    outcomes.REJECTED: fates.OUTSIDE,
    outcomes.OPEN: fates.OUTSIDE,
    outcomes.OVERLOAD: fates.OVERLOAD,
    outcomes.TOO_LARGE: fates.ANSWER_TOO_LARGE,
    outcomes.QUEUE_FULL: fates.QUEUE_FULL,
    outcomes.BREAKER_OPEN: fates.BREAKER_OPEN,
    outcomes.BODY_TOO_LARGE: fates.BODY_TOO_LARGE,
    outcomes.INCOMPLETE: fates.OUTSIDE,
    outcomes.CLIENT_STALLED: fates.CLIENT_STALLED,
    outcomes.SHUTDOWN: fates.CANCELLED,
    outcomes.FELL_BEHIND: fates.QUEUE_FULL,
    outcomes.NOT_REWRITTEN: fates.NOT_REWRITTEN,
}
_FATE = np.array(
    [
        [{**_FATES, **of_role}.get(outcome, fates.FAILED) for outcome in range(len(OUTCOMES))]
        for of_role in ({}, {outcomes.CANCELLED: fates.CANCELLED})
    ]
)
"""By role and outcome: what became of a request."""


class Censored:
    """The records of a block under time limits that are the same for all arms.

    ``outcome``, ``seconds`` and ``fate`` have one entry per record. ``seconds`` is the time on the
    model server, without the wait for one of our connections. An answer that came after the limit
    is a time-out, and one that contains an error is a server error, whatever its status. A late
    answer to a client's request is marked in its fate, since a slow client may be the cause.
    """

    def __init__(self, block: BlockColumns, limits: TimeLimits) -> None:
        self.block = block
        late = (block.server_first_byte > limits.first_byte) | (block.server_seconds > limits.total)
        late &= np.isin(block.outcome, _ANSWERED)
        self.outcome: NDArray[Any] = np.where(late, TIMEOUT, block.outcome)
        unread = (self.outcome == OK) & (block.response.grid < 0)
        if unread.any():
            here = np.flatnonzero(unread)
            codes = block.codes(block.response, here)
            error = (codes == ERROR_RESPONSE) & (block.status[here] < 300)
            self.outcome[here[error]] = SERVER_ERROR
            # Answers that are not to be read are usable as they are.
            unread[here] = ~np.isnan(codes) & ~error
        self.seconds: Floats = np.minimum(block.server_seconds, limits.total)
        self.fate: NDArray[np.int64] = _FATE[block.role, self.outcome]
        self.fate[late & (block.role == ROLE_PRIMARY)] = fates.LATE
        self.fate[unread] = fates.UNREADABLE


_ANSWERED = sorted(outcomes.ANSWERED)

Values = Callable[[Censored, Indices], Column]
"""Values of some records of a block, one each; NaN: not known."""
COLUMNS: dict[str, Values] = {
    "error": lambda censored, records: _IS_ERROR[censored.outcome[records]],
    "timeout": lambda censored, records: (censored.outcome[records] == TIMEOUT).astype(np.float64),
    "unusable": lambda censored, records: (censored.outcome[records] != OK).astype(np.float64),
    "latency": lambda censored, records: censored.seconds[records],
}
"""Columns that follow from a record alone, by name."""


class Observer:
    """Turns records into the values that an experiment compares.

    ``columns`` names the values, ``cost`` is the cost by arm. Values are numbers; for an output
    with texts they are its cells, which :class:`Codes` turns into a number.
    """

    def __init__(self, columns: Sequence[str], cost: Mapping[str, Cost]) -> None:
        self.columns = tuple(columns)
        self._cost = cost

    def values(self, censored: Censored, records: Indices) -> list[Column]:
        """The columns of some records; what is not known of a record alone is NaN."""
        columns: list[Column] = []
        for column in self.columns:
            name, cap = (column, None) if column.startswith(EARLIER) else uncapped(column)
            if name in COLUMNS:
                columns.append(COLUMNS[name](censored, records))
            elif name == "cost":
                columns.append(self._costs(censored, records))
            elif name.startswith("field:"):
                answered = censored.outcome[records] == OK
                columns.append(_field(censored.block.response, name[6:], records, answered))
            elif name.startswith(COVARIATE) and not name.startswith(EARLIER):
                here = np.ones(len(records), np.bool_)
                columns.append(
                    _field(censored.block.request, name[len(COVARIATE) :], records, here)
                )
            else:
                columns.append(np.full(len(records), np.nan))
            values = columns[-1]
            if cap is not None and isinstance(values, np.ndarray):
                capped: Floats = np.clip(values.astype(np.float64), *cap)
                columns[-1] = capped
        return columns

    def _costs(self, censored: Censored, records: Indices) -> Floats:
        block = censored.block
        costs = np.full(len(records), np.nan)
        for index, arm in enumerate(block.arms):
            cost = self._cost.get(arm)
            if cost is not None:
                mine = block.arm[records] == index
                seconds = censored.seconds[records][mine]
                costs[mine] = cost.per_request + cost.per_second * seconds
        return costs


def _field(part: Part, name: str, records: Indices, there: Mask) -> Column:
    """The value of one column for each of ``records`` that is ``there``: see :func:`_value`."""
    cells: list[Any] = [np.nan] * len(records)
    grids = np.where(there, part.grid[records], -1)
    for number in distinct(grids).tolist():
        names = part.grids[number].names if number >= 0 else ()
        if name not in names:
            continue
        indices = np.flatnonzero(grids == number)
        column = part.columns(number)[names.index(name)]
        _, rows = part.rows(records[indices])
        of_rows = cells_at(column, rows)
        if part.many is None:
            if isinstance(of_rows, np.ndarray) and len(indices) == len(records):
                values: Floats = of_rows.astype(np.float64)
                return np.where(np.isfinite(values), values, np.nan)
            ends = range(1, len(indices) + 1)
        else:
            ends = np.cumsum(part.many[records[indices]]).tolist()
        plain = listed(of_rows)
        begin = 0
        for index, end in zip(indices.tolist(), ends, strict=True):
            cells[index] = _value(plain[begin:end])
            begin = end
    return column_of(cells)


def _value(cells: list[object]) -> float | list[object]:
    """The mean over the rows of a request, or its cells if there are texts."""
    if not cells:
        return NAN
    total = 0.0
    for cell in cells:
        if isinstance(cell, str):
            return cells
        if isinstance(cell, (int, float)) and math.isfinite(cell):
            total += cell
        else:
            return NAN
    return total / len(cells)


class Codes(Stateful):
    """Assigns numbers to texts, by output, in order of appearance."""

    _codes: Saved[dict[str, dict[str, float]]]

    def __init__(self) -> None:
        self._codes = {}

    def mean(self, name: str, cells: object) -> float:
        """The mean code over the cells of a request; NaN when a cell is neither text nor number."""
        if not isinstance(cells, list) or not cells:
            return NAN
        total = 0.0
        known = self._codes.setdefault(name, {})
        for cell in cells:
            if isinstance(cell, str):
                if cell not in known and len(known) < _MOST_CODES:
                    known[cell] = float(len(known))
                total += known.get(cell, float(_MOST_CODES))
            elif isinstance(cell, (int, float)) and math.isfinite(cell):
                total += cell
            else:
                return NAN
        return total / len(cells)


def numbered(column: Column, code: Callable[[object], float]) -> Floats:
    """A column as float64; ``code`` maps cells that are not numbers to numbers.

    Numbers beyond :data:`LARGEST` are not known: their squares could not be added up.
    """
    if isinstance(column, np.ndarray):
        found = column.astype(np.float64, copy=False)
    else:
        found = np.array(
            [cell if isinstance(cell, (int, float)) else code(cell) for cell in column], np.float64
        )
    beyond = np.abs(found) > LARGEST
    return np.where(beyond, NAN, found) if beyond.any() else found


def of_label(prediction: Mapping[str, object], label: object, how: Label) -> dict[str, float]:
    """The columns that follow from a prediction and its label; those that have no value are left
    out.

    ``prediction`` holds the outputs by name, ``how`` names those that count.
    """
    values = {"correct": correct(prediction, label, how)}
    cell = prediction.get(how.prediction)
    predicted, actual = _is_positive(cell, how, True), _is_positive(label, how, False)
    if predicted is not None and actual is not None:
        values["recalled" if actual else "rejected"] = float(predicted == actual)
        values["true_positive"] = float(predicted and actual)
        values["predicted_positive"] = float(predicted)
    score = prediction.get(how.score or how.prediction)
    if (how.score or how.threshold is not None) and actual is not None:
        # What is not a probability is a value that the metrics' bounds exclude, not one that lacks.
        values["brier"] = values["log_loss"] = NO_PROBABILITY
        if _is_number(score):
            values["score"], values["positive"] = float(score), float(actual)  # type: ignore[arg-type]
            if 0.0 <= values["score"] <= 1.0:
                wrong = abs(values["positive"] - values["score"])
                values["brier"] = wrong * wrong
                values["log_loss"] = min(-math.log1p(-wrong), LOG_LOSS) if wrong < 1.0 else LOG_LOSS
    if _is_number(cell) and _is_number(label):
        values["absolute_error"] = abs(float(cell) - float(label))  # type: ignore[arg-type]
    return {name: value for name, value in values.items() if abs(value) <= LARGEST}


def _is_positive(cell: object, how: Label, predicted: bool) -> bool | None:
    """Whether a prediction or a label is of the positive class; None when that is not known."""
    if cell is None:
        return None
    if how.threshold is not None:
        limit = how.threshold if predicted else 0.5
        return cell > limit if isinstance(cell, (int, float)) else None
    if how.positive is not None:
        return str(cell) == str(how.positive) or cell == how.positive
    return bool(cell) if isinstance(cell, (bool, int, float)) and cell in (0, 1) else None


def number_of(cell: object) -> float:
    """A cell as a number; NaN when it is not one."""
    return float(cell) if _is_number(cell) else NAN  # type: ignore[arg-type]


def _is_number(cell: object) -> bool:
    if isinstance(cell, bool) or not isinstance(cell, (int, float)):
        return False
    return math.isfinite(cell)


def correct(prediction: Mapping[str, object], label: object, how: Label) -> float:
    """1 when the prediction was right, 0 when it was wrong, NaN when it cannot be compared.

    ``prediction`` holds the outputs by name, ``how`` names the output and the threshold.
    """
    cell = prediction.get(how.prediction)
    if cell is None or label is None:
        return NAN
    if how.threshold is not None:
        if not isinstance(cell, (int, float)) or not isinstance(label, (int, float)):
            return NAN
        return float((cell > how.threshold) == (label > 0.5))
    if isinstance(cell, (int, float)) and isinstance(label, (int, float)):
        return float(cell == label)
    return float(str(cell) == str(label))
