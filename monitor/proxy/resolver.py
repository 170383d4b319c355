"""Resolves host names in threads of its own, so that a resolver that hangs blocks nothing else.

The system's resolver is used (``getaddrinfo``), with everything that it knows: ``/etc/hosts``,
search domains, the order of addresses (RFC 6724). It may block for minutes when a name server does
not answer, and cannot be cancelled. So look-ups run neither in the event loop nor in its executor,
whose threads other work needs and for which a process waits when it ends.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections import Counter, deque
from time import monotonic

Address = tuple[int, str]
"""Family (``socket.AF_INET``, ``AF_INET6``) and numeric host."""
Addresses = tuple[Address, ...]

MOST_ADDRESSES = 64
"""Addresses of a name that are used; of more, the first ones."""
_THREADS = 32
_THREADS_OF_A_NAME = 2
_HANGS_AFTER = 10.0
"""Seconds after which another thread may look up the same name."""
_KNOWN = 256
"""Names whose last addresses are kept."""


class _LookUp:
    """A look-up that waits or runs; ``started`` is monotonic time, or None while it waits."""

    def __init__(self, host: str, future: asyncio.Future[Addresses]) -> None:
        self.host = host
        self.future = future
        self.started: float | None = None


class Resolver:
    """The look-ups of one worker. There is at most one at a time for a name, unless it hangs."""

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._latest: dict[str, _LookUp] = {}
        self._queue: deque[_LookUp] = deque()
        self._running: Counter[str] = Counter()
        self._known: dict[str, Addresses] = {}

    def known(self, host: str) -> Addresses:
        """The last addresses that were found; none if there has been no successful look-up."""
        return self._known.get(host, ())

    def resolve(self, host: str) -> asyncio.Future[Addresses]:
        """A future for the addresses of ``host``, shared by all callers: do not cancel it.

        It ends with OSError when the name has no address, UnicodeError when it is not a name.
        """
        latest = self._latest.get(host)
        if latest is not None and not latest.future.done():
            hangs = latest.started is not None and monotonic() - latest.started > _HANGS_AFTER
            if not hangs or self._running[host] >= _THREADS_OF_A_NAME:
                return latest.future
        future: asyncio.Future[Addresses] = self._loop.create_future()
        # It may fail when no caller waits any more.
        future.add_done_callback(lambda done: done.cancelled() or done.exception())
        look_up = self._latest[host] = _LookUp(host, future)
        self._queue.append(look_up)
        self._start()
        return future

    def _start(self) -> None:
        while self._queue and self._running.total() < _THREADS:
            look_up = self._queue.popleft()
            look_up.started = monotonic()
            # A daemon: the process does not wait for a thread that hangs.
            thread = threading.Thread(target=self._run, args=(look_up,), daemon=True)
            self._running[look_up.host] += 1
            try:
                thread.start()
            except RuntimeError as error:
                self._done(look_up, OSError(f"no thread for a look-up: {error}"))

    def _run(self, look_up: _LookUp) -> None:
        result: Addresses | Exception
        try:
            found = socket.getaddrinfo(look_up.host, None, type=socket.SOCK_STREAM)
            numeric = [(int(family), str(address[0])) for family, _, _, _, address in found]
            result = tuple(dict.fromkeys(numeric))[:MOST_ADDRESSES]
            if not result:
                result = OSError(f"{look_up.host} has no address")
        except (OSError, UnicodeError) as error:
            result = error
        with contextlib.suppress(RuntimeError):  # the loop is closed
            self._loop.call_soon_threadsafe(self._done, look_up, result)

    def _done(self, look_up: _LookUp, result: Addresses | Exception) -> None:
        host = look_up.host
        self._running[host] -= 1
        if not self._running[host]:
            del self._running[host]
        if self._latest.get(host) is look_up:
            del self._latest[host]
        if isinstance(result, tuple):
            self._known.pop(host, None)
            self._known[host] = result
            if len(self._known) > _KNOWN:
                del self._known[next(iter(self._known))]
        if not look_up.future.done():
            if isinstance(result, tuple):
                look_up.future.set_result(result)
            else:
                look_up.future.set_exception(result)
        self._start()
