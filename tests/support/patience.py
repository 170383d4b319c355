"""How long tests wait: long, since no test is about time, and a machine may be slow or busy.

``UNDERSTUDY_TEST_PATIENCE`` multiplies what a quiet machine needs at most (default 3). A test waits
for a condition and goes on as soon as it holds, so patience costs nothing where all is well.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from typing import Any

import httpx

FACTOR = float(os.environ.get("UNDERSTUDY_TEST_PATIENCE") or 3.0)
_PAUSE, _LONGEST_PAUSE = 0.01, 0.1
"""Between two looks, at first and at last: most checks ask a service, which has other work to do."""


def patient(seconds: float) -> float:
    """``seconds``, on a machine that may be slow."""
    return seconds * FACTOR


def eventually(check: Callable[[], Any], what: str = "", *, seconds: float = 30.0) -> Any:
    """The first true result of ``check``; ``seconds`` are those of a quiet machine, ``what`` is
    what should come true.

    Raises what ``check`` raised last, or AssertionError when it stays false.
    """
    until = time.monotonic() + patient(seconds)
    pause = _PAUSE
    while True:
        try:
            result = check()
        except (AssertionError, LookupError, OSError, ValueError, httpx.HTTPError):
            if time.monotonic() > until:
                raise
            result = None
        if result:
            return result
        assert time.monotonic() < until, (
            f"did not come true: {what}" if what else "did not come true"
        )
        time.sleep(pause)
        pause = min(_LONGEST_PAUSE, 1.25 * pause)
