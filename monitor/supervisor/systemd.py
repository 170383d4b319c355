"""Tells systemd that the service is ready, reloads, stops, and still runs (``Type=notify``).

The supervisor watches all other processes; systemd watches the supervisor, with ``WatchdogSec``:
one that hangs sends no more datagrams, and the service is restarted. See sd_notify(3). Without
``NOTIFY_SOCKET`` in the environment nothing is sent.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import MutableMapping

_SEND_SECONDS = 1.0


class Systemd:
    """Takes the variables of systemd out of ``environment``: they are not for child processes."""

    def __init__(self, environment: MutableMapping[str, str]) -> None:
        address = environment.pop("NOTIFY_SOCKET", "")
        period = environment.pop("WATCHDOG_USEC", "")
        watched = environment.pop("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
        self.watchdog_seconds: float | None = None
        """Time within which it expects the next message; None: it does not watch."""
        if watched and period.isdecimal() and int(period) > 0:
            self.watchdog_seconds = int(period) / 1e6
        # A leading @ stands for the abstract name space.
        self._address = f"\0{address[1:]}" if address.startswith("@") else address

    def ready(self, status: str) -> None:
        """The service is ready, or has finished a reload."""
        self._send(f"READY=1\nSTATUS={status}")

    def reloading(self) -> None:
        """A reload begins; :meth:`ready` ends it."""
        self._send(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        """The service drains and ends."""
        self._send("STOPPING=1\nSTATUS=draining")

    async def watch(self) -> None:
        """Say that the event loop runs, twice within the time that is expected, until cancelled."""
        while self.watchdog_seconds is not None:
            self._send("WATCHDOG=1")
            await asyncio.sleep(self.watchdog_seconds / 2.0)

    def _send(self, message: str) -> None:
        if not self._address:
            return
        with (
            contextlib.suppress(OSError),
            socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as line,
        ):
            line.settimeout(_SEND_SECONDS)  # its queue may be full for a moment
            line.sendto(message.encode(), self._address)
