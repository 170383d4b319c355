"""Server-sent events: a page is told when there is something new, and resumes where it was."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

import orjson
from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import StreamingResponse

from understudy.monitor.api.answers import refusal
from understudy.monitor.api.measured import described
from understudy.monitor.pipeline.plane import EvaluationPlane

STREAM_SECONDS = 50.0
"""A stream ends after this time, before the guard ends it; the client comes back by itself."""
BEAT_SECONDS = 1.0
MOST_STREAMS = 64
_FIRST = 100
"""Most events of the past that a client gets at once."""


def add_stream(app: FastAPI, plane: EvaluationPlane) -> None:
    """Add the route."""
    open_streams: set[object] = set()

    @app.get("/v1/stream", tags=["status"], response_class=StreamingResponse)
    async def stream(
        request: Request,
        after: Annotated[
            int | None, Query(ge=0, description="An `id`; the header Last-Event-ID goes before.")
        ] = None,
    ) -> Response:
        """Server-sent events. `beat`, every second: `time`, and `ready`; `change`: an event as in
        `/v1/events`, with its id. A stream ends after 50 seconds; a client that comes back with
        the id of the last event, as browsers do, misses none that is still kept."""
        if len(open_streams) >= MOST_STREAMS:
            return refusal(503, f"there are {MOST_STREAMS} streams already", {"Retry-After": "10"})
        last = request.headers.get("last-event-id", "")
        known = int(last) if last.isascii() and last.isdigit() and len(last) < 19 else after
        token = object()
        open_streams.add(token)

        async def events() -> AsyncIterator[bytes]:
            try:
                async for message in _messages(plane, known):
                    yield message
            finally:
                open_streams.discard(token)

        return StreamingResponse(
            events(), media_type="text/event-stream", headers={"X-Accel-Buffering": "no"}
        )


async def _messages(plane: EvaluationPlane, known: int | None) -> AsyncIterator[bytes]:
    position = plane.events.last if known is None else known
    yield b"retry: 1000\n\n"
    until = time.monotonic() + STREAM_SECONDS
    while True:
        for event in described(plane, plane.events.after(position, _FIRST)):
            position = event["id"]
            yield _message("change", event, position)
        latest = plane.windows.latest
        beat = {
            "time": time.time(),
            "age": time.monotonic() - latest.time if latest is not None else None,
        }
        yield _message("beat", beat)
        if time.monotonic() >= until:
            return
        await asyncio.sleep(BEAT_SECONDS)


def _message(kind: str, data: Any, id_: int | None = None) -> bytes:
    head = b"" if id_ is None else b"id: %d\n" % id_
    return b"%bevent: %b\ndata: %b\n\n" % (head, kind.encode(), orjson.dumps(data))
