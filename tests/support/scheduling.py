"""Which tests share a process when they run side by side: those of a file, and all of Kafka's."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from xdist.scheduler import LoadFileScheduling


class OneKafka(LoadFileScheduling):  # type: ignore[misc]
    """Files as a whole, and those with brokers one after the other: a cluster is three nodes, and
    each process of the run would start one of its own."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "kafka" if _needs_brokers(file) else file


@cache
def _needs_brokers(file: str) -> bool:
    path = Path(__file__).resolve().parents[2] / file
    return path.is_file() and "kafka_cluster" in path.read_text(encoding="utf-8")
