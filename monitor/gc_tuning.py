"""Memory of processes with many short-lived and many permanent objects."""

from __future__ import annotations

import gc

_THRESHOLDS = (20_000, 20, 20)


def freeze_gc() -> None:
    """Call it at the end of start-up: exclude existing objects from collection, since they stay,
    and collect less often, since new objects are rarely part of a cycle."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)


def release_memory() -> None:
    """Return to the system what start-up needed for a moment; call it after :func:`freeze_gc`.

    The C library keeps freed memory below the newest block. Only glibc can be asked to return it.
    """
    import ctypes

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
