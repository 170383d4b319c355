"""Finished requests: recorded one by one, handed on as columns."""

from __future__ import annotations

from array import array
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from understudy.loadtest.engine.answer import count_error
from understudy.loadtest.engine.stream import MOMENTS, STREAM_COLUMNS, ReadStream, StreamRows


@dataclass(slots=True)
class FinishedRequests:
    """Requests in the order in which they ended; every column is (n,).

    ``due``, ``picked``, ``sent``, ``first_byte`` and ``ended`` are seconds from the start of the
    run; ``picked`` is when the engine was ready to send the request, ``first_byte`` is NaN without
    a response. ``status`` is HTTP's, or 0 without a response; ``ok``: it was good.
    ``payload`` is the index of the payload; ``errors`` counts requests by reason.
    ``retried`` is how many were sent again, since the server had closed their kept connection.

    ``wakes``, (m,), is how late a timer of a closed loop woke up, in seconds; None in an open loop,
    where requests themselves have a time at which they are due.

    ``streams`` are the columns of :class:`.stream.Stream`, (n,), their points in time in seconds
    from the start of the run, and ``gaps``, (k,), the seconds between two events with output of
    all answers; None where no streams are read.
    """

    due: NDArray[np.float64]
    picked: NDArray[np.float64]
    sent: NDArray[np.float64]
    first_byte: NDArray[np.float64]
    ended: NDArray[np.float64]
    status: NDArray[np.int64]
    payload: NDArray[np.int64]
    ok: NDArray[np.bool_]
    errors: dict[str, int]
    retried: int = 0
    wakes: NDArray[np.float64] | None = None
    streams: dict[str, NDArray[np.float64]] | None = None
    gaps: NDArray[np.float64] | None = None


class Recorder:
    """Collects finished requests until the next :meth:`drain`. ``streams``: with the columns of
    streamed answers."""

    def __init__(self, streams: bool = False) -> None:
        self._streams = StreamRows() if streams else None
        self._rows = array("q")
        self._errors: dict[str, int] = {}
        self._retried = 0

    def retry(self) -> None:
        """Count a request that is sent again; it is recorded when it ends."""
        self._retried += 1

    def record(
        self,
        due: int,
        picked: int,
        sent: int,
        first_byte: int,
        ended: int,
        status: int,
        payload: int,
        error: str = "",
        stream: ReadStream | None = None,
    ) -> None:
        """Add a request. Times are monotonic nanoseconds, 0 for what did not happen; ``error`` is
        what was wrong, or empty; ``stream`` is the answer where it was streamed."""
        if error:
            count_error(self._errors, error)
        self._rows.extend(
            (due, picked, sent or ended, first_byte, ended, status, payload, not error)
        )
        if self._streams is not None:
            self._streams.add(stream)

    def drain(self, origin_ns: int) -> FinishedRequests:
        """All requests since the last call, with times in seconds from ``origin_ns``."""
        rows, self._rows = self._rows, array("q")
        errors, self._errors = self._errors, {}
        retried, self._retried = self._retried, 0
        whole = (np.frombuffer(rows, np.int64) if rows else np.zeros(0, np.int64)).reshape(-1, 8)
        due, picked, sent, first_byte, ended = ((whole[:, :5] - origin_ns) / 1e9).T.copy()
        first_byte[whole[:, 3] == 0] = np.nan
        status, payload, good = whole[:, 5:].T.copy()
        ok = good.astype(np.bool_)
        finished = FinishedRequests(
            due, picked, sent, first_byte, ended, status, payload, ok, errors, retried
        )
        if self._streams is not None:
            streams, self._streams = self._streams, StreamRows()
            values = np.array(streams.rows).reshape(-1, len(STREAM_COLUMNS)).T
            finished.streams = {
                name: (column - origin_ns) / 1e9 if name in MOMENTS else column.copy()
                for name, column in zip(STREAM_COLUMNS, values, strict=True)
            }
            finished.gaps = np.array(streams.gaps)
        return finished
