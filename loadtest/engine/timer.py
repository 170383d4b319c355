"""A timer that is as exact as the kernel: timerfd, watched by the event loop.

An event loop's own timers are rounded to a millisecond (libuv), which at thousands of requests per
second is the distance between several of them. A timerfd is an event like any other.
"""

from __future__ import annotations

import asyncio
import ctypes
import os
import struct
import time
from collections.abc import Callable

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_NONBLOCK = 0o4000
_CLOEXEC = 0o2000000
_SPEC = struct.Struct("qqqq")
"""Interval and first expiry, each as seconds and nanoseconds."""


class Timer:
    """Calls ``fire`` at a moment of the monotonic clock, in nanoseconds; set it again for the next.

    Raises OSError where the kernel has no timerfd.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, fire: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        self._fd = self._libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK | _CLOEXEC)
        if self._fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._loop = loop
        self._fire = fire
        self._spec = ctypes.create_string_buffer(_SPEC.size)
        loop.add_reader(self._fd, self._ready)

    def set(self, at_ns: int) -> None:
        """Fire at ``at_ns`` of ``time.monotonic_ns()``; at once if that has passed."""
        at_ns = max(at_ns, 1)  # 0 would disarm it
        _SPEC.pack_into(self._spec, 0, 0, 0, at_ns // 1_000_000_000, at_ns % 1_000_000_000)
        self._libc.timerfd_settime(self._fd, _ABSOLUTE, self._spec, None)

    def _ready(self) -> None:
        try:
            os.read(self._fd, 8)
        except BlockingIOError:
            return
        self._fire()

    def close(self) -> None:
        """Never fire again."""
        if self._fd >= 0:
            self._loop.remove_reader(self._fd)
            os.close(self._fd)
            self._fd = -1


def now_ns() -> int:
    """The clock that timers go by."""
    return time.monotonic_ns()
