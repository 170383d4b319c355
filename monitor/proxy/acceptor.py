"""Accepts the connections of clients, and counts them from that moment.

The event loop's own server would do it in fewer lines. But it closes connections silently when the
process runs out of descriptors, and does not report those whose TLS handshake has not ended: a
thousand of these would not be counted.
"""

from __future__ import annotations

import asyncio
import errno
import socket
import ssl
from typing import Protocol

from understudy.monitor.proxy.client import ClientConnection
from understudy.monitor.proxy.descriptors import none_left
from understudy.monitor.proxy.host import Host

ACCEPTS = 16
"""Most connections that are accepted in one turn of the event loop."""
PAUSE_SECONDS = 0.25
"""Time until the next attempt after one that found no descriptor: the connection stays in the
queue of the kernel, and trying again at once would take all of the processor."""


class Owner(Host, Protocol):
    """The interface of the worker that the acceptor uses."""

    def arrived(self, client: ClientConnection, handshake: bool) -> bool:
        """A connection was accepted. False when the limit is reached, even for a 503."""

    def failed(self, client: ClientConnection) -> None:
        """A connection that has arrived ended before it could be used."""

    def exhausted(self) -> None:
        """There was no descriptor for a connection that waits to be accepted."""


class Acceptor:
    """Accepts connections of a listening socket until it is closed.

    ``tls`` is the context of the listener's certificate, or None without TLS; it may be replaced by
    another one.
    """

    def __init__(self, owner: Owner, listener: socket.socket, tls: ssl.SSLContext | None) -> None:
        self._owner = owner
        self._listener = listener
        self.tls = tls
        self._tasks: set[asyncio.Task[None]] = set()
        self._retry: asyncio.TimerHandle | None = None
        self._open = False

    def open(self) -> None:
        """Start accepting."""
        self._listener.setblocking(False)
        self._open = True
        self._resume()

    def close(self) -> None:
        """Stop accepting, and close the socket. Handshakes in progress go on."""
        if not self._open:
            return
        self._open = False
        if self._retry is not None:
            self._retry.cancel()
        self._owner.loop.remove_reader(self._listener)
        self._listener.close()

    def abort(self) -> None:
        """End handshakes in progress."""
        for task in self._tasks:
            task.cancel()

    def _resume(self) -> None:
        self._retry = None
        self._owner.loop.add_reader(self._listener, self._accept)

    def _accept(self) -> None:
        owner = self._owner
        for _ in range(ACCEPTS):
            try:
                connection, _ = self._listener.accept()
            except (BlockingIOError, InterruptedError):
                return
            except OSError as error:
                if error.errno == errno.EINVAL:
                    # Another worker accepted here, too, and has shut the socket down for both. It
                    # stays readable: waiting for it would take all of the processor.
                    owner.loop.remove_reader(self._listener)
                    return
                if not none_left(error):
                    # The client has gone already, or the network between failed.
                    continue
                owner.exhausted()
                owner.loop.remove_reader(self._listener)
                self._retry = owner.loop.call_later(PAUSE_SECONDS, self._resume)
                return
            client = ClientConnection(owner)
            if not owner.arrived(client, self.tls is not None):
                connection.close()
                continue
            task = owner.loop.create_task(self._serve(client, connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, client: ClientConnection, connection: socket.socket) -> None:
        """Give the connection to the event loop, with its TLS handshake if there is one."""
        owner = self._owner
        timeout = owner.runtime.plan.limits.header_timeout if self.tls is not None else None
        try:
            await owner.loop.connect_accepted_socket(
                lambda: client, connection, ssl=self.tls, ssl_handshake_timeout=timeout
            )
        except OSError:
            connection.close()
            owner.failed(client)
        except asyncio.CancelledError:
            connection.close()
            owner.failed(client)
            raise
