"""An ASGI middleware for Python model servers: sends their requests and responses to Understudy.

It uses only the standard library, so that any server can include it. Requests never wait: records
go into a bounded queue, which a thread empties. When it is full they are dropped and counted::

    app.add_middleware(UnderstudyMiddleware, url="http://127.0.0.1:9090", model="delays")
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from understudy.monitor.ingest.poster import RecordPoster

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


class UnderstudyMiddleware:
    """Wraps the application ``app``. ``url`` is the control address of Understudy, ``model`` the
    name declared there. POST requests are recorded: those whose path is in ``paths``, or all if it
    is empty. Exchanges with a body over ``max_body`` bytes are not recorded. ``token`` is sent as
    bearer token.

    Raises IngestError for a ``url`` that is not an HTTP address; afterwards the middleware never
    raises: ``dropped`` counts lost records.

    >>> import asyncio
    >>> async def app(scope, receive, send):
    ...     await send({"type": "http.response.start", "status": 200, "headers": []})
    >>> wrapped = UnderstudyMiddleware(app, url="http://127.0.0.1:9090", model="delays")
    >>> sent = []
    >>> async def send(message): sent.append(message["status"])
    >>> asyncio.run(wrapped({"type": "http", "method": "GET", "path": "/"}, None, send))
    >>> sent, wrapped.dropped
    ([200], 0)
    """

    def __init__(
        self,
        app: Application,
        url: str,
        model: str,
        paths: tuple[str, ...] = (),
        max_body: int = 256 * 1024,
        token: str | None = None,
    ) -> None:
        self.app = app
        self._poster = RecordPoster(url, token)
        self._model = model
        self._paths = paths
        self._max_body = max_body

    @property
    def dropped(self) -> int:
        """Number of records lost: the queue was full, or Understudy did not accept them."""
        return self._poster.dropped

    @property
    def sent(self) -> int:
        """Number of records that Understudy got."""
        return self._poster.sent

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request to the application unchanged, and record it."""
        wanted = scope["type"] == "http" and scope["method"] == "POST"
        if not wanted or (self._paths and scope["path"] not in self._paths):
            await self.app(scope, receive, send)
            return
        began, clock = time.time(), time.monotonic()
        request, response = bytearray(), bytearray()
        status = 500

        async def recording_receive() -> Message:
            message = await receive()
            if message["type"] == "http.request" and len(request) <= self._max_body:
                request.extend(message.get("body", b""))
            return message

        async def recording_send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = int(message["status"])
            elif message["type"] == "http.response.body" and len(response) <= self._max_body:
                response.extend(message.get("body", b""))
            await send(message)

        try:
            await self.app(scope, recording_receive, recording_send)
        finally:
            if len(request) <= self._max_body and len(response) <= self._max_body:
                seconds = time.monotonic() - clock
                self._add_record(scope, began, seconds, status, bytes(request), bytes(response))

    def _add_record(
        self,
        scope: Scope,
        began: float,
        seconds: float,
        status: int,
        request: bytes,
        response: bytes,
    ) -> None:
        names = dict(scope.get("headers") or ())
        request_id = names.get(b"x-request-id", b"").decode("latin-1") or uuid.uuid4().hex
        try:
            request_text, response_text = request.decode(), response.decode()
        except UnicodeDecodeError:
            self._poster.drop()
            return
        self._poster.put(
            {
                "model": self._model,
                "request_id": request_id[:256],
                "time": began,
                "duration_seconds": seconds,
                "status": status,
                "path": scope["path"],
                "request": request_text,
                "response": response_text,
            }
        )

    def close(self) -> None:
        """Send the queued records and stop the thread; waits up to 10 seconds."""
        self._poster.close()
