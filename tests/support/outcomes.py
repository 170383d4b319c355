"""Outcomes of a load, made from latencies."""

from __future__ import annotations

import numpy as np

from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.engine.recorder import FinishedRequests


def outcome_of(
    due: np.ndarray, latency: np.ndarray, ok: np.ndarray, lag: np.ndarray | None = None
) -> Outcome:
    """``lag`` is the part of each latency that is the generator's own."""
    found = Outcome(float(due[-1]))
    status = np.where(ok, 200, 503)
    nothing = np.full(len(due), np.nan)
    payload = np.zeros(len(due), np.int64)
    sent = due if lag is None else due + lag
    errors = {} if ok.all() else {"status 503": int((~ok).sum())}
    ended = due + latency
    found.add([FinishedRequests(due, sent, sent, nothing, ended, status, payload, ok, errors)])
    return found
