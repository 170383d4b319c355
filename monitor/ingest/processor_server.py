"""The gRPC service that Envoy's external processing filter calls."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from typing import Any

import grpc
import grpc.aio

from understudy.monitor.errors import IngestError
from understudy.monitor.ingest.external_processor import SERVICE, ExternalExchange, Room
from understudy.monitor.ingest.poster import RecordPoster

log = logging.getLogger(__name__)

MAX_MESSAGE = 16 * 1024 * 1024
"""Bytes of a message of Envoy, which are pieces of bodies."""
MAX_STREAMS = 4096
"""Requests in flight; Envoy is refused one more, and goes on without us."""
ROOM_BYTES = 64 * 1024 * 1024
"""Bodies of all requests in flight together."""
GRACE_SECONDS = 5.0
TELL_SECONDS = 60.0


class ExternalProcessor:
    """Makes records of what Envoy tells, and posts them."""

    def __init__(
        self,
        poster: RecordPoster,
        limit: int,
        arms: Mapping[str, str],
        extra: Mapping[str, Any],
    ) -> None:
        self.counts: Counter[str] = Counter()
        """``records``; ``waiting_for_us``, ``damaged`` and ``left_out`` as in
        :class:`ExternalExchange`."""
        self._poster = poster
        self._limit = limit
        self._arms = arms
        self._extra = extra
        self._room = Room(ROOM_BYTES)
        self._streams: set[ExternalExchange] = set()

    def handlers(self) -> grpc.GenericRpcHandler:
        """The handlers of the service, with messages as bytes."""
        process = grpc.stream_stream_rpc_method_handler(self._process)
        return grpc.method_handlers_generic_handler(SERVICE, {"Process": process})

    def _send(self, item: dict[str, Any]) -> None:
        self.counts["records"] += 1
        self._poster.put(item)

    async def _process(
        self, messages: AsyncIterator[bytes], context: grpc.aio.ServicerContext[bytes, bytes]
    ) -> AsyncIterator[bytes]:
        exchange = ExternalExchange(self._send, self._room, self._limit, self._arms, self._extra)
        self._streams.add(exchange)
        try:
            async for message in messages:
                exchange.feed(message, time.monotonic_ns(), time.time())
                if not exchange.observed:
                    # Envoy would hold up the request for an answer. The end of the stream lets the
                    # request go on.
                    self._refuse()
                    return
        finally:
            exchange.end()
            self._streams.discard(exchange)
            self.counts["damaged"] += exchange.damaged
            self.counts["left_out"] += exchange.left_out
        return
        yield b""

    def _refuse(self) -> None:
        self.counts["waiting_for_us"] += 1
        if self.counts["waiting_for_us"] == 1:
            log.error(
                "Envoy waits for answers of this processor, so its requests are not recorded: set "
                "`observability_mode: true` in the ext_proc filter"
            )

    def quiet(self) -> None:
        """Send requests of streams that have ended without saying so; call it once a second."""
        now = time.monotonic_ns()
        for exchange in self._streams:
            exchange.quiet(now)


async def serve(
    listen: str, processor: ExternalProcessor, poster: RecordPoster, stop: asyncio.Event
) -> None:
    """Serve at ``listen``, host:port or unix:path, until ``stop``. Raises IngestError if the
    address cannot be used."""
    server = grpc.aio.server(
        maximum_concurrent_rpcs=MAX_STREAMS,
        options=[("grpc.max_receive_message_length", MAX_MESSAGE), ("grpc.so_reuseport", 0)],
    )
    server.add_generic_rpc_handlers((processor.handlers(),))
    try:
        port = server.add_insecure_port(listen)
    except RuntimeError as error:
        raise IngestError(f"--listen: {listen} cannot be used: {error}") from error
    await server.start()
    log.info("external processor at %s (port %d)", listen, port)
    told: dict[str, int] = {}
    due = time.monotonic() + TELL_SECONDS
    while not stop.is_set():
        try:
            await asyncio.wait_for(stop.wait(), 1.0)
        except TimeoutError:
            pass
        processor.quiet()
        if time.monotonic() >= due:
            due, told = time.monotonic() + TELL_SECONDS, _tell(processor, poster, told)
    await server.stop(GRACE_SECONDS)


def summary(processor: ExternalProcessor, poster: RecordPoster) -> dict[str, int]:
    """What became of the requests, as numbers."""
    return {
        "records": processor.counts["records"],
        "sent": poster.sent,
        "dropped": poster.dropped,
        "refused": poster.refused,
        "waiting_for_us": processor.counts["waiting_for_us"],
        "damaged": processor.counts["damaged"],
        "left_out": processor.counts["left_out"],
    }


def _tell(
    processor: ExternalProcessor, poster: RecordPoster, before: Mapping[str, int]
) -> dict[str, int]:
    """Log what was lost since the last time."""
    now = summary(processor, poster)
    lost = {
        name: now[name] - before.get(name, 0)
        for name in ("dropped", "refused", "waiting_for_us", "damaged", "left_out")
    }
    lost = {name: count for name, count in lost.items() if count > 0}
    if lost:
        why = f"; {poster.error}" if poster.error else ""
        log.warning("lost in the last %d s: %s%s", TELL_SECONDS, json.dumps(lost), why)
    return now
