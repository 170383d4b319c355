"""One process of the engine: sends requests when they are due, and records the responses.

It uses epoll directly, since the protocols and callbacks of an event loop cost more than a request.
A timerfd fires when the next request is due.
"""

from __future__ import annotations

import errno
import heapq
import os
import select
import socket
import ssl
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from understudy.loadtest.engine.answer import Check, Successful, connect_error, own_error
from understudy.loadtest.engine.recorder import FinishedRequests, Recorder
from understudy.loadtest.engine.script import Script
from understudy.loadtest.engine.stream import StreamCheck
from understudy.loadtest.engine.timer import Timer, now_ns
from understudy.loadtest.engine.wire import Head, InvalidResponse, Wire

EARLY_NS = 20_000
"""A request may be sent this early, to save a wake-up."""
_SWEEP_NS = 50_000_000
_IN, _OUT = select.EPOLLIN | select.EPOLLRDHUP, select.EPOLLOUT


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Address of the target. ``timeout`` limits an exchange, in seconds from the time at which it
    was due, or the sender ready: its own lag is not the target's time. ``streams`` is how many
    requests a connection over HTTP/2 carries at a time."""

    host: str
    port: int
    tls: ssl.SSLContext | None = None
    server_name: str | None = None
    connections: int = 512
    timeout: float = 30.0
    streams: int = 100


Due = tuple[int, int, int, bool]
"""(payload index, due, picked, whether it is sent again), times in nanoseconds."""
_CLOSED = ("reset", "closed early")
"""How an exchange ends when the server had closed its connection before."""


class Sender:
    """Sends to ``endpoint`` in an open loop.

    ``payloads`` are whole HTTP requests, sent in turns from index ``first`` in steps of ``stride``,
    so that several processes share them; ``script`` says which of them are sent then, and which
    follow. ``check`` is called with each response, by default for its status.
    Raises ValueError without payloads, and OSError for an unknown host.
    """

    IN, OUT = _IN, _OUT

    def __init__(
        self,
        endpoint: Endpoint,
        payloads: Sequence[bytes],
        check: Check | None = None,
        first: int = 0,
        stride: int = 1,
        script: Script | None = None,
    ) -> None:
        if not payloads:
            raise ValueError("there is nothing to send")
        self._endpoint = endpoint
        self._payloads = payloads
        self._bodiless = frozenset(
            number for number, one in enumerate(payloads) if one.startswith(b"HEAD ")
        )
        self._check: Check = check or Successful()
        self._streams = check if isinstance(check, StreamCheck) and check.timed else None
        self._script = script or Script(range(len(payloads)))
        self._first_turns = self._script.starts
        self._next_payload, self._stride = first % len(self._first_turns), stride
        self._later: list[tuple[int, int]] = []
        addresses = socket.getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM)
        self._addresses = [(family, sockaddr) for family, *_, sockaddr in addresses]
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
        self._recorder = Recorder(self._streams is not None)
        self._due: Iterator[float] = iter(())
        self._next = 0
        self._origin = 0
        self._exhausted = self._stopped = False

    @property
    def in_flight(self) -> int:
        """Requests that are due and have no response yet."""
        return len(self._busy) + len(self._waiting)

    @property
    def earliest(self) -> float | None:
        """When the oldest request without a response was due, in seconds from the start; None
        without such a request."""
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
        """Send at the times in ``chunks``, seconds from ``origin_ns``; return after the last
        response. ``report`` is called every ``every`` seconds; it may call :meth:`drain` and
        :meth:`stop`.

        An exchange that exceeds the timeout is aborted, so this always returns.
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
            while not self._exhausted or self._unfinished or self._opening or self._later:
                events = poll(0.05)
                now = now_ns()
                if self._later and self._later[0][0] <= now + EARLY_NS:
                    self._send_later(now)
                if not self._exhausted and self._next <= now + EARLY_NS:
                    self._send_due(now)
                for fd, mask in events:
                    if fd == timer_fd:
                        continue
                    wire = wires.get(fd)
                    if wire is None:
                        continue
                    if wire.ready and not wire.out:
                        self._read(wire)
                    else:
                        self._continue(wire, mask)
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
        """Send no more; wait for the requests in flight."""
        self._due = iter(())
        self._exhausted = self._stopped = True
        self._later.clear()

    def drain(self) -> FinishedRequests:
        """The requests that ended since the last call."""
        return self._recorder.drain(self._origin)

    @property
    def _unfinished(self) -> bool:
        return bool(self._busy or self._waiting)

    # Sending ------------------------------------------------------------------------------------

    def _advance(self) -> None:
        try:
            self._next = self._origin + int(next(self._due) * 1e9)
        except StopIteration:
            self._exhausted = True

    def _send_due(self, now: int) -> None:
        limit = now + EARLY_NS
        starts, count = self._first_turns, len(self._first_turns)
        while not self._exhausted and (due := self._next) <= limit:
            payload = starts[self._next_payload]
            self._next_payload = (self._next_payload + self._stride) % count
            self._dispatch(payload, due, due if due > now else now)
            self._advance()
        self._set_timer()

    def _send_later(self, now: int) -> None:
        """Send the next turns of sessions that are due."""
        while self._later and self._later[0][0] <= now + EARLY_NS:
            due, payload = heapq.heappop(self._later)
            self._dispatch(payload, due, due if due > now else now)
        self._set_timer()

    def _set_timer(self) -> None:
        if not self._later:
            if not self._exhausted:
                self._timer.set(self._next)
            return
        later = self._later[0][0]
        self._timer.set(later if self._exhausted else min(later, self._next))

    def _dispatch(self, payload: int, due: int, picked: int) -> None:
        """Send a request that is due, or let it wait for a connection."""
        if self._idle:
            self._begin(self._idle.pop(), payload, due, picked, False)
        else:
            self._waiting.append((payload, due, picked, False))
            self._open()

    def _begin(self, wire: Wire, payload: int, due: int, picked: int, again: bool) -> None:
        wire.begin()
        wire.busy = True
        wire.payload, wire.due, wire.picked, wire.again = payload, due, picked, again
        if self._bodiless:
            wire.bodiless = payload in self._bodiless
        self._busy[wire.fd] = wire
        wire.sent = now_ns()
        if self._script.leaves:
            leaves = self._script.leaves.get(payload)
            wire.leaves = 0 if leaves is None else wire.sent + int(leaves * 1e9)
        try:
            wire.write(self._payloads[payload])
        except OSError as error:
            self._fail(wire, own_error(error))
            return
        if wire.out:
            self._watch(wire, _IN | _OUT)

    def _watch(self, wire: Wire, mask: int) -> None:
        if wire.mask != mask:
            self._epoll.modify(wire.fd, mask)
            wire.mask = mask

    # Connections --------------------------------------------------------------------------------

    def _open(self) -> None:
        """Open another connection if a request waits for one and the limit allows it."""
        if self._opening >= len(self._waiting) or len(self._wires) >= self._endpoint.connections:
            return
        self._connect(self._address)

    def _connect(self, address: int) -> None:
        family, sockaddr = self._addresses[address]
        try:
            sock = socket.socket(family, socket.SOCK_STREAM)
        except OSError as error:
            self._record_refused(error)
            return
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        wire = self._wire(sock, address)
        self._opening += 1
        wire.mask = _OUT
        self._wires[wire.fd] = wire
        self._epoll.register(wire.fd, _OUT)
        code = sock.connect_ex(sockaddr)
        if code not in (0, errno.EINPROGRESS):
            self._connect_failed(wire, OSError(code, os.strerror(code)))

    def _wire(self, sock: socket.socket, address: int) -> Wire:
        return Wire(sock, address, now_ns(), self._check.body)

    def _continue(self, wire: Wire, mask: int) -> None:
        """Continue a handshake or a partial write."""
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
            wire.sock.getpeername()  # a stale event of a closed socket with the same number
            if self._endpoint.tls is not None and not self._handshake_done(wire):
                return
        except OSError as error:
            if wire.ready:
                self._fail(wire, own_error(error))
            elif error.errno != errno.ENOTCONN:
                self._connect_failed(wire, error)
            return
        wire.ready = True
        self._opening -= 1
        self._address = wire.address
        self._watch(wire, _IN)
        self._assign(wire)

    def _handshake_done(self, wire: Wire) -> bool:
        """Whether the TLS handshake is over. Raises OSError."""
        context = self._endpoint.tls
        assert context is not None
        if not isinstance(wire.sock, ssl.SSLSocket):
            wire.sock = context.wrap_socket(
                wire.sock, server_hostname=self._endpoint.server_name, do_handshake_on_connect=False
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

    def _connect_failed(self, wire: Wire, error: OSError) -> None:
        self._close(wire)
        self._opening -= 1
        if wire.address + 1 < len(self._addresses) and wire.address >= self._address:
            self._connect(wire.address + 1)  # try the next address of the host
            return
        self._record_refused(error)

    def _record_refused(self, error: OSError) -> None:
        if self._waiting:
            payload, due, picked, _ = self._waiting.popleft()
            self._recorder.record(due, picked, 0, 0, now_ns(), 0, payload, connect_error(error))

    def _assign(self, wire: Wire) -> None:
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

    # Responses ----------------------------------------------------------------------------

    def _read(self, wire: Wire) -> None:
        try:
            data = wire.read()
        except OSError as error:
            self._fail(wire, own_error(error))
            return
        if data is None:
            return
        if not wire.busy or not data:
            # The end of the stream, or a response without a request.
            whole = wire.busy and not data and wire.ended()
            self._done(wire) if whole else self._fail(wire, "closed early")
            return
        now = 0
        if not wire.first_byte:
            now = wire.first_byte = now_ns()
        if self._streams is not None:
            now = now or now_ns()
        try:
            whole = wire.feed(data, self._heads)
        except InvalidResponse as error:
            self._fail(wire, f"garbage: {error}")
            return
        if self._streams is not None:
            wire.times += [now] * (len(wire.body) - len(wire.times))
        if whole:
            self._done(wire)
        elif self._endpoint.tls is not None and wire.sock.pending():  # type: ignore[attr-defined]
            self._read(wire)

    def _done(self, wire: Wire) -> None:
        del self._busy[wire.fd]
        wire.busy, wire.used = False, True
        ended, found = now_ns(), None
        if self._streams is not None:
            found = self._streams.read(
                wire.payload, wire.status, wire.headers, wire.body, wire.times
            )
            error = found.error
        else:
            error = self._check(wire.payload, wire.status, wire.headers, b"".join(wire.body))
            ended = now_ns()
        self._recorder.record(
            wire.due, wire.picked, wire.sent, wire.first_byte, ended, wire.status, wire.payload,
            error, found,
        )  # fmt: skip
        follows = None if error or self._stopped else self._script.then.get(wire.payload)
        if follows is not None:
            heapq.heappush(self._later, (ended + int(follows[1] * 1e9), follows[0]))
            self._set_timer()
        if wire.reusable:
            self._assign(wire)
        else:
            self._close(wire)
            self._open()

    def _cancel(self, wire: Wire, now: int) -> None:
        """End a connection as a client that does not want the rest of its answer."""
        wire.busy = False
        found = None
        if self._streams is not None:
            found = self._streams.read_left(wire.payload, wire.body, wire.times)
        self._recorder.record(
            wire.due, wire.picked, wire.sent, wire.first_byte, now, wire.status, wire.payload,
            found.error if found is not None else "", found,
        )  # fmt: skip
        self._close(wire)
        self._open()

    def _fail(self, wire: Wire, why: str) -> None:
        """Close a connection, and record its request as failed.

        A server closes kept connections when it likes. A request that met this is sent once more on
        another connection, as every client does: where no byte of an answer came on a connection
        that had served before. Its time counts from when it was due.
        """
        if wire.busy and wire.used and not wire.again and not wire.first_byte and why in _CLOSED:
            wire.busy = False
            self._recorder.retry()
            self._waiting.appendleft((wire.payload, wire.due, wire.picked, True))
        elif wire.busy:
            wire.busy = False
            self._recorder.record(
                wire.due, wire.picked, wire.sent, wire.first_byte, now_ns(), 0, wire.payload, why
            )
        elif wire.ready:
            self._idle.remove(wire)
        self._close(wire)
        self._open()

    def _sweep(self, now: int) -> None:
        """Abort exchanges and handshakes that exceed the timeout."""
        oldest = now - int(self._endpoint.timeout * 1e9)
        while self._waiting and self._waiting[0][2] < oldest:
            payload, due, picked, _ = self._waiting.popleft()
            self._recorder.record(due, picked, 0, 0, now, 0, payload, "no connection")
        for wire in [wire for wire in self._wires.values() if wire.busy and wire.picked < oldest]:
            self._fail(wire, "timeout")
        if self._script.leaves:
            for wire in [w for w in self._busy.values() if w.leaves and w.leaves <= now]:
                self._cancel(wire, now)
        for wire in [w for w in self._wires.values() if not w.ready and w.opened < oldest]:
            self._connect_failed(wire, TimeoutError())
