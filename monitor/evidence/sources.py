"""Completeness of a partition's records, from the heartbeats of the sidecars that send them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

from understudy.monitor.evidence.blocks import Head, Heartbeat
from understudy.shadow.state import Converter, Count, Saved, Stateful

SILENT_SECONDS = 30.0
"""A source silent for this long, by the clocks of the others, no longer delays completeness."""
FORGOTTEN_SECONDS = 7 * 86400.0


def _moment(name: str, value: Any, _: Any) -> float:
    return float("-inf") if value is None else float(value)


Moment = Annotated[float, Converter(lambda at: at if at != float("-inf") else None, _moment)]
"""Unix time; -inf as long as nothing is known."""


@dataclass(slots=True)
class Source:
    """One run of a sidecar: number of its last block, unix time up to which its records have
    arrived, and its clock at its last message."""

    state_as_list: ClassVar[bool] = True

    seq: Count = 0
    complete: Moment = float("-inf")
    heard: Moment = float("-inf")


class Sources(Stateful):
    """The sources of one partition. ``duplicates`` counts repeated blocks, ``missing`` lost ones.

    The state depends only on the order of the log, so every reader of the log computes the same.
    """

    by_run: Saved[dict[tuple[str, str], Source]]
    complete: Saved[Moment]
    newest: Saved[Moment]
    duplicates: Saved[Count]
    missing: Saved[Count]

    def __init__(self) -> None:
        self.by_run = {}
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
