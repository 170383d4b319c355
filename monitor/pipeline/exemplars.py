"""The last trace in each classic bucket of the request duration, per series."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass

from understudy.monitor.records.record import OUTCOMES, ROLE_MIRROR, ROLES, Record
from understudy.monitor.stats.buckets import CLASSIC_EDGES

_EDGES_NS = tuple(int(edge * 1e9) for edge in CLASSIC_EDGES)
_MAX_SERIES = 1024

ExemplarKey = tuple[str, str, str, str, str]
"""(model, version, arm, role, outcome)"""
_Trace = tuple[bytes, bytes, int, float]


@dataclass(frozen=True, slots=True)
class Exemplar:
    """``seconds`` is the observed duration, ``at`` unix time in seconds. ``span_id`` is that of the
    span with this duration, empty if there is none."""

    trace_id: str
    seconds: float
    at: float
    span_id: str = ""


class Exemplars:
    """Not part of the saved state: traces from before a restart soon expire."""

    def __init__(self) -> None:
        self._last: dict[tuple[str, str, str, int, int], dict[int, _Trace]] = {}

    def add(self, model: str, version: str, arm: str, record: Record) -> None:
        """Store the trace of a record; the trace must be sampled, or the exemplar leads nowhere."""
        key = (model, version, arm, record.role, record.outcome)
        by_bucket = self._last.get(key)
        if by_bucket is None:
            if len(self._last) >= _MAX_SERIES:
                return
            by_bucket = self._last[key] = {}
        duration = record.duration_ns
        # Not the record itself, which would keep its payloads in memory.
        trace = (record.trace_id, record.span, duration, record.started)
        by_bucket[bisect_left(_EDGES_NS, duration)] = trace

    def by_series(self) -> dict[ExemplarKey, dict[int, Exemplar]]:
        """Exemplars by series and number of the classic bucket."""
        return {
            (model, version, arm, ROLES[role], OUTCOMES[outcome]): {
                bucket: Exemplar(
                    trace_id.decode("ascii", "replace"),
                    duration / 1e9,
                    started + duration / 1e9,
                    _span_id(span, role),
                )
                for bucket, (trace_id, span, duration, started) in by_bucket.items()
            }
            for (model, version, arm, role, outcome), by_bucket in self._last.items()
        }


def _span_id(span: bytes, role: int) -> str:
    """The span of the whole request: the server's, or of a mirrored request the client's."""
    ids = span.split(b" ", 3)
    return ids[2 if role == ROLE_MIRROR else 1].decode("ascii") if len(ids) > 2 else ""
