"""Garbage collector settings for processes with many short-lived and many permanent objects."""

from __future__ import annotations

import gc

_THRESHOLDS = (20_000, 20, 20)


def freeze_gc() -> None:
    """Call it at the end of start-up: exclude existing objects from collection, since they stay,
    and collect less often, since new objects are rarely part of a cycle."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
