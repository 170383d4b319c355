"""Which tests share a process when they run side by side, and which run first."""

from __future__ import annotations

from collections.abc import Iterable
from functools import cache
from pathlib import Path

from xdist.scheduler import LoadFileScheduling

ROOT = Path(__file__).resolve().parents[2]


class OneKafka(LoadFileScheduling):
    """Files as a whole, and those with brokers one after the other: a cluster is three nodes, and
    each process of the run would start one of its own."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "kafka" if _needs_brokers(file) else file


def waits(markers: Iterable[str], file: str) -> bool:
    """Whether a test of ``file`` mostly waits, for brokers, other real programs or an environment
    into which the wheel is installed. These tests run first, so that none of their long files is
    left at the end, when the other processes are idle."""
    return "integration" in markers or _needs_brokers(file) or "support.installed" in _text(file)


def _needs_brokers(file: str) -> bool:
    return "kafka_cluster" in _text(file)


@cache
def _text(file: str) -> str:
    path = ROOT / file
    return path.read_text(encoding="utf-8") if path.is_file() else ""
