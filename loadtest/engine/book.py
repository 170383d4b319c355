"""What became of requests, noted one by one and taken away as columns."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(slots=True)
class Taken:
    """What became of some requests, in the order of their ends. Times in seconds from the start of
    the run; ``status`` 0 and an error where there was no answer, or a wrong one. ``picked`` is when
    the engine came to it."""

    due: NDArray[np.float64]
    picked: NDArray[np.float64]
    sent: NDArray[np.float64]
    first_byte: NDArray[np.float64]
    ended: NDArray[np.float64]
    status: NDArray[np.int64]
    payload: NDArray[np.int64]
    errors: dict[str, int]


class Book:
    """What has ended since the last look, as columns; times in nanoseconds, 0 for what was not."""

    def __init__(self) -> None:
        self._rows = array("q")
        self._errors: dict[str, int] = {}

    def note(
        self,
        due: int,
        picked: int,
        sent: int,
        first_byte: int,
        ended: int,
        status: int,
        payload: int,
        error: str = "",
    ) -> None:
        """One request has ended."""
        if error:
            self._errors[error] = self._errors.get(error, 0) + 1
            status = 0
        self._rows.extend((due, picked, sent or ended, first_byte, ended, status, payload))

    def take(self, origin_ns: int) -> Taken:
        """Everything, as seconds from ``origin_ns``; the book is empty again."""
        rows, self._rows = self._rows, array("q")
        errors, self._errors = self._errors, {}
        whole = (np.frombuffer(rows, np.int64) if rows else np.zeros(0, np.int64)).reshape(-1, 7)
        due, picked, sent, first_byte, ended = ((whole[:, :5] - origin_ns) / 1e9).T.copy()
        first_byte[whole[:, 3] == 0] = np.nan
        status, payload = whole[:, 5:].T.copy()
        return Taken(due, picked, sent, first_byte, ended, status, payload, errors)
