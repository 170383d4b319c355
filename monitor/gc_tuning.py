"""The garbage collector in processes that make many short-lived objects, and keep many."""

from __future__ import annotations

import gc

_THRESHOLDS = (20_000, 20, 20)


def freeze_gc() -> None:
    """To be called when a process has started: what exists now stays, so the collector need not
    look at it again; and what comes is rarely part of a cycle, so it need not look often."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
