"""A timer with the resolution of the kernel: timerfd, watched by an epoll.

An event loop's own timers are rounded to a millisecond, as is the timeout of an epoll, which at
thousands of requests per second is the distance between several of them.
"""

from __future__ import annotations

import ctypes
import os
import struct
import time

_CLOCK_MONOTONIC = 1
_ABSOLUTE = 1
_NONBLOCK = 0o4000
_CLOEXEC = 0o2000000
_SPEC = struct.Struct("qqqq")
"""Interval and first expiry, each as seconds and nanoseconds."""


class Timer:
    """Its ``fd`` becomes readable at a time of the monotonic clock. Watch it edge-triggered: then
    it can be set again without a read. Raises OSError where the kernel has no timerfd."""

    def __init__(self) -> None:
        libc = ctypes.CDLL(None, use_errno=True)
        self.fd: int = libc.timerfd_create(_CLOCK_MONOTONIC, _NONBLOCK | _CLOEXEC)
        if self.fd < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create failed")
        self._spec = ctypes.create_string_buffer(_SPEC.size)
        self._settime = libc.timerfd_settime
        self._settime.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)
        self._at = ctypes.addressof(self._spec)

    def set(self, at_ns: int) -> None:
        """Expire at ``at_ns`` of ``time.monotonic_ns()``; at once if that has passed."""
        at_ns = max(at_ns, 1)  # 0 would disarm it
        _SPEC.pack_into(self._spec, 0, 0, 0, at_ns // 1_000_000_000, at_ns % 1_000_000_000)
        self._settime(self.fd, _ABSOLUTE, self._at, None)

    def close(self) -> None:
        """Close the descriptor; the timer never expires again."""
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1


now_ns = time.monotonic_ns
"""The clock that timers use."""
