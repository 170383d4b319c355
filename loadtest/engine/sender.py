"""One process of the engine: sends requests when they are due, and notes what became of them.

A loop of its own over epoll, in place of an event loop's protocols and callbacks, which cost more
than the request: a timerfd says when the next one is due, sockets say when an answer has come.
"""

from __future__ import annotations

import errno
import os
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from understudy.loadtest.engine.book import Book, Taken
from understudy.loadtest.engine.timer import Timer, now_ns
from understudy.loadtest.engine.wire import Garbage, Head, Wire

EARLY_NS = 20_000
"""A request may leave that much before its time rather than wait for another wake-up."""
_SWEEP_NS = 50_000_000
_IN, _OUT = select.EPOLLIN | select.EPOLLRDHUP, select.EPOLLOUT


@dataclass(frozen=True, slots=True)
class Where:
    """The target. ``timeout`` is of a whole exchange from its due time, in seconds."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    connections: int = 512
    timeout: float = 30.0


Check = Callable[[int, int, bytes], str]
"""Payload, status and body of an answer → what is wrong with it, or an empty text."""
Due = tuple[int, int, int]
"""Which payload, when it is due, and when the engine came to it."""


class Sender:
    """``payloads`` are whole HTTP requests, taken in turns: the first one is ``first``, and every
    ``stride``-th follows, so that several processes share them. ``check`` is asked of each answer;
    bodies are kept only for it. Raises OSError for a name that is not known."""

    def __init__(
        self,
        where: Where,
        payloads: Sequence[bytes],
        check: Check | None = None,
        first: int = 0,
        stride: int = 1,
    ) -> None:
        if not payloads:
            raise ValueError("there is nothing to send")
        self._where = where
        self._payloads = payloads
        self._bodiless = frozenset(
            number for number, one in enumerate(payloads) if one.startswith(b"HEAD ")
        )
        self._check = check
        self._turn, self._stride = first % len(payloads), stride
        found = socket.getaddrinfo(where.host, where.port, type=socket.SOCK_STREAM)
        self._addresses = [(family, place) for family, *_, place in found]
        self._address = 0
        self._epoll = select.epoll()
        self._timer = Timer()
        self._epoll.register(self._timer.fd, select.EPOLLIN | select.EPOLLET)
        self._wires: dict[int, Wire] = {}
        self._idle: list[Wire] = []
        self._busy: dict[int, Wire] = {}
        self._waiting: deque[Due] = deque()
        self._opening = 0
        self._heads: dict[bytes, Head] = {}
        self._book = Book()
        self._due: Iterator[float] = iter(())
        self._next = 0
        self._origin = 0
        self._exhausted = False

    @property
    def in_flight(self) -> int:
        """Requests that are due and have no answer yet."""
        return len(self._busy) + len(self._waiting)

    @property
    def earliest(self) -> float | None:
        """When the oldest request without an answer was due, in seconds from the start; None while
        there is none."""
        oldest = [wire.due for wire in self._busy.values()]
        if self._waiting:
            oldest.append(self._waiting[0][1])
        return (min(oldest) - self._origin) / 1e9 if oldest else None

    def run(
        self,
        chunks: Iterator[NDArray[np.float64]],
        origin_ns: int,
        report: Callable[[], None],
        every: float = 0.2,
    ) -> None:
        """Send at the moments of ``chunks``, seconds from ``origin_ns``; return when all is over.
        ``report`` is called ``every`` so many seconds, and may call :meth:`take` and :meth:`stop`.

        An exchange that takes longer than the timeout is given up, so this ends.
        """
        self._origin = origin_ns
        self._due = (float(at) for chunk in chunks for at in chunk.tolist())
        poll, wires, timer_fd = self._epoll.poll, self._wires, self._timer.fd
        each_ns = int(every * 1e9)
        next_report = next_sweep = now_ns()
        try:
            self._advance()
            if not self._exhausted:
                self._timer.set(self._next)
            while not self._exhausted or self._busy or self._waiting or self._opening:
                events = poll(0.05)
                now = now_ns()
                if not self._exhausted and self._next <= now + EARLY_NS:
                    self._fire(now)
                for fd, mask in events:
                    if fd == timer_fd:
                        continue
                    wire = wires.get(fd)
                    if wire is None:
                        continue
                    if wire.ready and not wire.out:
                        self._read(wire)
                    else:
                        self._go_on(wire, mask)
                if now >= next_sweep:
                    next_sweep = now + _SWEEP_NS
                    self._sweep(now)
                if now >= next_report:
                    next_report = now + each_ns
                    report()
        finally:
            for wire in list(wires.values()):
                wire.sock.close()
            self._timer.close()
            self._epoll.close()

    def stop(self) -> None:
        """Send no more; what is on its way is waited for."""
        self._due = iter(())
        self._exhausted = True

    def take(self) -> Taken:
        """What has ended since the last call."""
        return self._book.take(self._origin)

    # Sending ------------------------------------------------------------------------------------

    def _advance(self) -> None:
        try:
            self._next = self._origin + int(next(self._due) * 1e9)
        except StopIteration:
            self._exhausted = True

    def _fire(self, now: int) -> None:
        limit = now + EARLY_NS
        count = len(self._payloads)
        idle = self._idle
        while not self._exhausted and (due := self._next) <= limit:
            payload = self._turn
            self._turn = (payload + self._stride) % count
            picked = due if due > now else now
            if idle:
                self._begin(idle.pop(), payload, due, picked)
            else:
                self._waiting.append((payload, due, picked))
                self._open()
            self._advance()
        if not self._exhausted:
            self._timer.set(self._next)

    def _begin(self, wire: Wire, payload: int, due: int, picked: int) -> None:
        wire.begin()
        wire.busy = True
        wire.payload, wire.due, wire.picked = payload, due, picked
        if self._bodiless:
            wire.bodiless = payload in self._bodiless
        self._busy[wire.fd] = wire
        wire.sent = now_ns()
        try:
            wire.write(self._payloads[payload])
        except OSError as error:
            self._lose(wire, _named(error))
            return
        if wire.out:
            self._watch(wire, _IN | _OUT)

    def _watch(self, wire: Wire, mask: int) -> None:
        if wire.mask != mask:
            self._epoll.modify(wire.fd, mask)
            wire.mask = mask

    # Connections --------------------------------------------------------------------------------

    def _open(self) -> None:
        """Another connection, where somebody waits for one and there may be more."""
        if self._opening >= len(self._waiting) or len(self._wires) >= self._where.connections:
            return
        self._connect(self._address)

    def _connect(self, address: int) -> None:
        family, place = self._addresses[address]
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            self._refused(error)
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = Wire(sock, address, now_ns(), self._check is not None)
        self._opening += 1
        wire.mask = _OUT
        self._wires[wire.fd] = wire
        self._epoll.register(wire.fd, _OUT)
        code = sock.connect_ex(place)
        if code not in (0, errno.EINPROGRESS):
            self._no_connection(wire, OSError(code, os.strerror(code)))

    def _go_on(self, wire: Wire, mask: int) -> None:
        """A connection that is being opened, or has more to send."""
        try:
            if wire.ready:
                if mask & _OUT:
                    wire.write(wire.out)
                if mask & ~_OUT:
                    self._read(wire)
                if wire.fd in self._wires and not wire.out:
                    self._watch(wire, _IN)
                return
            code = wire.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
            if code:
                raise OSError(code, os.strerror(code))
            wire.sock.getpeername()  # an event of a socket that had this number before says nothing
            if self._where.tls is not None and not self._shaken(wire):
                return
        except OSError as error:
            if wire.ready:
                self._lose(wire, _named(error))
            elif error.errno != errno.ENOTCONN:
                self._no_connection(wire, error)
            return
        wire.ready = True
        self._opening -= 1
        self._address = wire.address
        self._watch(wire, _IN)
        self._use(wire)

    def _shaken(self, wire: Wire) -> bool:
        """Whether the TLS handshake is over. Raises OSError."""
        context = self._where.tls
        assert context is not None
        if not isinstance(wire.sock, ssl.SSLSocket):
            wire.sock = context.wrap_socket(
                wire.sock, server_hostname=self._where.server_name, do_handshake_on_connect=False
            )
        try:
            wire.sock.do_handshake()
        except ssl.SSLWantReadError:
            self._watch(wire, _IN)
            return False
        except ssl.SSLWantWriteError:
            self._watch(wire, _OUT)
            return False
        return True

    def _no_connection(self, wire: Wire, error: OSError) -> None:
        self._close(wire)
        self._opening -= 1
        if wire.address + 1 < len(self._addresses) and wire.address >= self._address:
            self._connect(wire.address + 1)  # the name has another address
            return
        self._refused(error)

    def _refused(self, error: OSError) -> None:
        if self._waiting:
            payload, due, picked = self._waiting.popleft()
            self._book.note(due, picked, 0, 0, now_ns(), 0, payload, _unconnected(error))

    def _use(self, wire: Wire) -> None:
        if self._waiting:
            self._begin(wire, *self._waiting.popleft())
        else:
            self._idle.append(wire)

    def _close(self, wire: Wire) -> None:
        if self._wires.pop(wire.fd, None) is None:
            return
        self._busy.pop(wire.fd, None)
        try:
            self._epoll.unregister(wire.fd)
        except OSError:
            pass
        wire.sock.close()

    # What comes back ----------------------------------------------------------------------------

    def _read(self, wire: Wire) -> None:
        try:
            data = wire.read()
        except OSError as error:
            self._lose(wire, _named(error))
            return
        if data is None:
            return
        if not wire.busy or not data:
            # The end, or an answer that nobody has asked for.
            whole = wire.busy and not data and wire.ended()
            self._done(wire) if whole else self._lose(wire, "closed early")
            return
        if not wire.first_byte:
            wire.first_byte = now_ns()
        try:
            whole = wire.take(data, self._heads)
        except Garbage as error:
            self._lose(wire, f"garbage: {error}")
            return
        if whole:
            self._done(wire)
        elif self._where.tls is not None and wire.sock.pending():  # type: ignore[attr-defined]
            self._read(wire)

    def _done(self, wire: Wire) -> None:
        del self._busy[wire.fd]
        wire.busy = False
        error = ""
        if self._check is not None:
            error = self._check(wire.payload, wire.status, b"".join(wire.body))
        self._book.note(
            wire.due, wire.picked, wire.sent, wire.first_byte, now_ns(), wire.status, wire.payload,
            error,
        )  # fmt: skip
        if wire.reusable:
            self._use(wire)
        else:
            self._close(wire)
            self._open()

    def _lose(self, wire: Wire, why: str) -> None:
        """The connection has gone, and with it the request that was on it."""
        if wire.busy:
            wire.busy = False
            self._book.note(
                wire.due, wire.picked, wire.sent, wire.first_byte, now_ns(), 0, wire.payload, why
            )
        elif wire.ready:
            self._idle.remove(wire)
        self._close(wire)
        self._open()

    def _sweep(self, now: int) -> None:
        """Give up what has taken too long."""
        oldest = now - int(self._where.timeout * 1e9)
        while self._waiting and self._waiting[0][1] < oldest:
            payload, due, picked = self._waiting.popleft()
            self._book.note(due, picked, 0, 0, now, 0, payload, "no connection")
        for wire in [wire for wire in self._wires.values() if wire.busy and wire.due < oldest]:
            self._lose(wire, "timeout")
        for wire in [w for w in self._wires.values() if not w.ready and w.opened < oldest]:
            self._no_connection(wire, TimeoutError())


def _unconnected(error: OSError) -> str:
    if isinstance(error, ssl.SSLError):
        return "TLS"
    if isinstance(error, TimeoutError) or error.errno == errno.ETIMEDOUT:
        return "connect timeout"
    return "refused" if error.errno == errno.ECONNREFUSED else "unreachable"


def _named(error: OSError) -> str:
    return "TLS" if isinstance(error, ssl.SSLError) else "reset"
