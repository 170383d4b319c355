"""The ASGI layer in front of every application that serves a control API.

In this order: limits of the head, the route's access, then the body, which is counted, limited in
size and time, and bounded over all requests together; and a time limit for the answer. So a body is
never read for a caller who may not call.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass

from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from understudy.monitor.api import access
from understudy.monitor.api.access import Access, Route
from understudy.monitor.api.answers import Refused, refusal
from understudy.monitor.api.security import refuse
from understudy.monitor.evidence.settings import Settings

MAX_HEADERS = 100
MAX_HEADER_BYTES = 32 * 1024
MAX_TARGET_BYTES = 16 * 1024
BODY_SECONDS = 60.0
"""Time for a body to arrive."""
ANSWER_SECONDS = 60.0
"""Time to answer, and for the client to read the answer."""
MAX_BODIES = 32
MAX_BODIES_BYTES = 32 * 1024 * 1024
"""Bodies that are being read or processed, of all requests together."""
MAX_ANSWERS_BYTES = 64 * 1024 * 1024
"""Answers that clients have not read yet, of all requests together."""
PIECE_BYTES = 64 * 1024
"""An answer is sent in such pieces, each after the client has made room for it."""
LINGER_SECONDS = 5.0
LINGER_BYTES = 2 * access.BULK_BODY
"""What is still read, and dropped, of the body of a refused request: a client that is still sending
when the connection is closed may not see the answer."""
_HEADERS = (
    (b"x-content-type-options", b"nosniff"),
    (b"cross-origin-resource-policy", b"same-origin"),
    (b"cache-control", b"no-store"),
)


@dataclass(slots=True)
class Limits:
    """Limits that tests make smaller."""

    body_seconds: float = BODY_SECONDS
    answer_seconds: float = ANSWER_SECONDS
    linger_seconds: float = LINGER_SECONDS
    bodies: int = MAX_BODIES
    bodies_bytes: int = MAX_BODIES_BYTES
    answers_bytes: int = MAX_ANSWERS_BYTES


@dataclass(slots=True)
class _Bodies:
    """The bodies of requests and answers that are in memory now."""

    limits: Limits
    count: int = 0
    size: int = 0
    answers: int = 0
    """Bytes of answers that are being sent."""

    def refuse(self) -> Refused | None:
        """The refusal of another body when there are too many."""
        if self.count <= self.limits.bodies and self.size <= self.limits.bodies_bytes:
            return None
        return Refused(
            503, "too many requests with a body at the same time: try again", {"Retry-After": "1"}
        )


class _BodyRefused(BaseException):
    """Ends the application's call. Not an Exception, which the application would answer itself."""

    def __init__(self, refused: Refused) -> None:
        self.refused = refused


class _Body:
    """The body of one request; ``receive`` is how it arrives, ``deadline`` a time of the loop."""

    def __init__(self, receive: Receive, bodies: _Bodies, deadline: float) -> None:
        self.route: Route | None = None
        self.size = 0
        self.complete = False
        self.gone = False
        """The client has closed the connection."""
        self._receive = receive
        self._bodies = bodies
        self._deadline = deadline
        self._whole: bytes | None = None

    @property
    def unread(self) -> bool:
        """Whether more of it may come."""
        return not (self.complete or self.gone)

    async def read(self) -> None:
        """Read a small body, before the application is called."""
        parts = []
        while self.unread:
            parts.append((await self._next()).get("body", b""))
        self._whole = b"".join(parts)

    async def drop(self) -> None:
        """Read what is left without keeping it, within limits."""
        left = LINGER_BYTES
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._bodies.limits.linger_seconds):
                while left > 0:
                    message = await self._receive()
                    left -= len(message.get("body", b""))
                    if not message.get("more_body", False):
                        return

    async def __call__(self) -> Message:
        """As ``receive`` of ASGI, for the application."""
        if self._whole is not None:
            whole, self._whole = self._whole, None
            return {"type": "http.request", "body": whole, "more_body": False}
        return await (self._next() if self.unread else self._receive())

    async def _next(self) -> Message:
        """The next piece. Raises _BodyRefused when the body is too large or too slow."""
        assert self.route is not None
        try:
            async with asyncio.timeout_at(self._deadline):
                message = await self._receive()
        except TimeoutError:
            seconds = self._bodies.limits.body_seconds
            refused = Refused(408, f"the body did not arrive within {seconds:g} s")
            raise _BodyRefused(refused) from None
        if message["type"] != "http.request":
            self.gone = True
            return message
        size = len(message.get("body", b""))
        self.size += size
        self._bodies.size += size
        self.complete = not message.get("more_body", False)
        if self.size > self.route.body:
            raise _BodyRefused(too_large(self.route))
        full = self._bodies.refuse()
        if full is not None:
            raise _BodyRefused(full)
        return message


def too_large(route: Route) -> Refused:
    """The refusal of a body that is larger than its route allows."""
    hint = ": send it in several calls" if route.bulk else ""
    return Refused(413, f"the body has more than {route.body:,} bytes{hint}")


class Guard:
    """Serves ``app`` under the rules of :mod:`access` and of ``settings``.

    ``refused`` counts what did not reach the application, by status.
    """

    def __init__(self, app: ASGIApp, settings: Settings, limits: Limits | None = None) -> None:
        self.app = app
        self.settings = settings
        self.limits = limits or Limits()
        self.refused: dict[int, int] = {}
        self.bodies = _Bodies(self.limits)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            return  # a websocket: uvicorn refuses it when nothing accepts it
        headers = Headers(scope=scope)
        deadline = asyncio.get_running_loop().time() + self.limits.body_seconds
        body = _Body(receive, self.bodies, deadline)
        body.complete = not (
            "transfer-encoding" in headers or headers.get("content-length", "0") != "0"
        )
        answer = _Answer(send, body, self.bodies)
        try:
            body.route = route = self._admit(scope, headers)
            with self._counted(body):
                await self._serve(route, body, scope, answer)
        except (Refused, _BodyRefused) as error:
            refused = error.refused if isinstance(error, _BodyRefused) else error
            self.refused[refused.code] = self.refused.get(refused.code, 0) + 1
            if not answer.started:
                await refusal(refused.code, refused.message, refused.headers)(scope, body, answer)
        except ClientDisconnect:
            pass
        finally:
            answer.end()

    async def _serve(self, route: Route, body: _Body, scope: Scope, answer: _Answer) -> None:
        if body.complete or not route.bulk:
            await body.read()
            if body.gone:
                return
        seconds = self.limits.answer_seconds
        if not body.complete:
            seconds += self.limits.body_seconds
        try:
            async with asyncio.timeout(seconds) as limit:
                await self.app(scope, body, answer)
        except TimeoutError:
            if not limit.expired():
                raise
            raise Refused(
                503, f"no answer within {seconds:g} s; a change may still be carried out"
            ) from None

    def _admit(self, scope: Scope, headers: Headers) -> Route:
        """The route of a request that may be served. Raises Refused."""
        lines = scope["headers"]
        if len(lines) > MAX_HEADERS or sum(len(n) + len(v) for n, v in lines) > MAX_HEADER_BYTES:
            raise Refused(
                431, f"more than {MAX_HEADERS} headers, or more than {MAX_HEADER_BYTES:,} bytes"
            )
        if len(scope.get("raw_path") or b"") + len(scope["query_string"]) > MAX_TARGET_BYTES:
            raise Refused(414, f"the target has more than {MAX_TARGET_BYTES:,} bytes")
        if len(headers.getlist("host")) > 1 or len(headers.getlist("authorization")) > 1:
            raise Refused(400, "the headers Host and Authorization must not be repeated")
        path = scope["path"]
        route = access.find(scope["method"], path)
        refused = refuse(self.settings, route.access if route else Access.PUBLIC, headers)
        if refused is not None:
            raise Refused(*refused)
        if route is None:
            there = access.methods(path)
            if there:
                raise Refused(405, "Method Not Allowed", {"Allow": ", ".join(there)})
            raise Refused(404, "Not Found")
        length = headers.get("content-length", "0")
        if not (length.isascii() and length.isdigit()):
            raise Refused(400, "the header Content-Length is not a number")
        if int(length) > route.body:
            raise too_large(route)
        return route

    @contextlib.contextmanager
    def _counted(self, body: _Body) -> Iterator[None]:
        """Count a body until its request is answered: until then it is in memory, in some form."""
        if body.complete:
            yield
            return
        self.bodies.count += 1
        try:
            yield
        finally:
            self.bodies.count -= 1
            self.bodies.size -= body.size


class _Answer:
    """Sends messages of an answer, with headers that every answer has.

    An answer may come before the whole body. Then the connection cannot be used again, and the rest
    of the body is dropped before it is closed.
    """

    def __init__(self, send: Send, body: _Body, bodies: _Bodies) -> None:
        self.started = False
        self._send = send
        self._body = body
        self._bodies = bodies
        self._start: Message | None = None
        """Kept until it is known whether there is room for the body."""
        self._closes = False
        self._size = 0

    async def __call__(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self._start = message
            return
        body = message.get("body", b"")
        self._count(len(body))
        if self._start is not None:
            await self._begin(self._start)
        more = message.get("more_body", False)
        # Not all at once: what a client does not read would be copied for the transport.
        for place in range(0, len(body) - PIECE_BYTES, PIECE_BYTES):
            await self._piece(body[place : place + PIECE_BYTES], True)
        last = body[-(len(body) % PIECE_BYTES or PIECE_BYTES) :] if body else b""
        await self._piece(last, more or self._closes)
        if self._closes and not more:
            await self._body.drop()
            await self._piece(b"", False)

    def end(self) -> None:
        """The answer is sent, or given up."""
        self._bodies.answers -= self._size
        self._size = 0

    def _count(self, size: int) -> None:
        """Raises _BodyRefused when the answer exceeds the limit before it has begun."""
        bodies = self._bodies
        full = bodies.answers + size > bodies.limits.answers_bytes
        if self._start is not None and size > PIECE_BYTES and full:
            self._start = None
            text = "too many large answers that clients do not read: try again"
            raise _BodyRefused(Refused(503, text, {"Retry-After": "1"}))
        bodies.answers += size
        self._size += size

    async def _begin(self, start: Message) -> None:
        self._start = None
        self.started = True
        self._closes = self._body.unread
        given = list(start.get("headers", ()))
        names = {name.lower() for name, _ in given}
        given += (pair for pair in _HEADERS if pair[0] not in names)
        if self._closes:
            given.append((b"connection", b"close"))
        await self._send({**start, "headers": given})

    async def _piece(self, body: bytes, more: bool) -> None:
        await self._send({"type": "http.response.body", "body": body, "more_body": more})
