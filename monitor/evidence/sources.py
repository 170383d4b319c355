"""Completeness of a partition's records, from the heartbeats of the sidecars that send them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from understudy.monitor.evidence.blocks import Head, Heartbeat

SILENT_SECONDS = 30.0
"""A source silent for this long, by the clocks of the others, no longer delays completeness."""
FORGOTTEN_SECONDS = 7 * 86400.0


@dataclass(slots=True)
class Source:
    """One run of a sidecar: number of its last block, unix time up to which its records have
    arrived, and its clock at its last message."""

    seq: int = 0
    complete: float = float("-inf")
    heard: float = float("-inf")


class Sources:
    """The sources of one partition. ``duplicates`` counts repeated blocks, ``missing`` lost ones.

    The state depends only on the order of the log, so every reader of the log computes the same.
    """

    def __init__(self) -> None:
        self.by_run: dict[tuple[str, str], Source] = {}
        self.complete = float("-inf")
        """Unix time up to which all records have arrived, except late ones; never decreases."""
        self.newest = float("-inf")
        self.duplicates = 0
        self.missing = 0

    def is_new(self, head: Head) -> bool:
        """Whether a block is new; marks it as seen."""
        source = self._heard(head, head.created)
        if head.seq <= source.seq:
            self.duplicates += 1
            return False
        self.missing += head.seq - source.seq - 1
        source.seq = head.seq
        return True

    def heartbeat(self, beat: Heartbeat) -> None:
        """Take a heartbeat: a source reports up to which time it has sent its records."""
        source = self._heard(beat.head, beat.clock)
        if beat.head.seq > source.seq:
            self.missing += beat.head.seq - source.seq
            source.seq = beat.head.seq
        source.complete = max(source.complete, beat.complete)
        self._advance()

    def _heard(self, head: Head, at: float) -> Source:
        key = (head.source, head.run)
        source = self.by_run.get(key)
        if source is None:
            source = self.by_run[key] = Source()
        source.heard = max(source.heard, at)
        self.newest = max(self.newest, at)
        return source

    def _advance(self) -> None:
        limit = self.newest - SILENT_SECONDS
        present = [s.complete for s in self.by_run.values() if s.heard >= limit]
        if present:
            self.complete = max(self.complete, min(present))
        if len(self.by_run) > 64:
            forgotten = self.newest - FORGOTTEN_SECONDS
            self.by_run = {key: s for key, s in self.by_run.items() if s.heard >= forgotten}

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "sources": [
                [*key, s.seq, _finite(s.complete), _finite(s.heard)]
                for key, s in self.by_run.items()
            ],
            "complete": _finite(self.complete),
            "newest": _finite(self.newest),
            "duplicates": self.duplicates,
            "missing": self.missing,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Undo :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        self.by_run = {
            (str(source), str(run)): Source(int(seq), _number(complete), _number(heard))
            for source, run, seq, complete, heard in state["sources"]
        }
        self.complete, self.newest = _number(state["complete"]), _number(state["newest"])
        self.duplicates, self.missing = int(state["duplicates"]), int(state["missing"])


def _finite(value: float) -> float | None:
    return value if value != float("-inf") else None


def _number(value: float | None) -> float:
    return float("-inf") if value is None else float(value)
