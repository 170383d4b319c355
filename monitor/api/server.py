"""Serves the control API with uvicorn inside the running event loop."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import math
import socket
import time
from collections.abc import Callable, Iterator

import uvicorn

from understudy.monitor.api.connections import (
    KEEPALIVE_SECONDS,
    MOST_CONNECTIONS,
    ControlConnection,
)
from understudy.monitor.api.guard import Guard

log = logging.getLogger(__name__)

BIND_RETRY_SECONDS = 2.0
MAX_HEAD_BYTES = 64 * 1024


class SeldomFilter(logging.Filter):
    """Clients cause uvicorn's warnings: each is logged at most once in ``seconds``."""

    def __init__(self, seconds: float = 60.0, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._seconds = seconds
        self._clock = clock
        self._last: dict[str, float] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether the record is logged."""
        if record.levelno > logging.WARNING:
            return True
        now = self._clock()
        if now - self._last.get(record.msg, -math.inf) < self._seconds:
            return False
        self._last[record.msg] = now  # the texts are constants of uvicorn
        return True


_seldom = SeldomFilter()


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """No signal handlers: the supervisor stops this process."""
        yield


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((host, port))
        sock.setblocking(False)
    except OSError:
        sock.close()
        raise
    return sock


class ApiServer:
    """Runs until :meth:`stop`. Retries while the port is in use; evaluation does not wait."""

    def __init__(self, app: Guard, host: str, port: int) -> None:
        self.host = host
        self.port = port
        # uvicorn's messages repeat what the supervisor has logged.
        messages = logging.getLogger("uvicorn.error")
        messages.setLevel(logging.WARNING)
        messages.addFilter(_seldom)
        self._server = _Server(
            uvicorn.Config(
                app,
                log_config=None,
                access_log=False,
                lifespan="off",
                ws="none",
                # Based on h11: the other parser, httptools, keeps a head of any length until it is
                # complete.
                http=ControlConnection,
                h11_max_incomplete_event_size=MAX_HEAD_BYTES,
                timeout_keep_alive=KEEPALIVE_SECONDS,
                timeout_graceful_shutdown=1,
                limit_concurrency=MOST_CONNECTIONS,
                server_header=False,
            )
        )

    async def serve(self) -> None:
        """Bind, serve, and return after :meth:`stop`."""
        sock = await self._bound()
        if sock is None:
            return
        try:
            await self._server.serve([sock])
        finally:
            sock.close()

    def stop(self) -> None:
        """End :meth:`serve`."""
        self._server.should_exit = True

    async def _bound(self) -> socket.socket | None:
        complained = False
        while not self._server.should_exit:
            try:
                return _bind(self.host, self.port)
            except OSError as error:
                if not complained:
                    log.error(
                        "control API: cannot listen on %s:%d (%s); trying again, choose another"
                        " address with control.listen",
                        self.host,
                        self.port,
                        error.strerror or error,
                    )
                    complained = True
                await asyncio.sleep(BIND_RETRY_SECONDS)
        return None
