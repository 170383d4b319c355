"""The webhook over HTTPS. A renewed certificate is loaded within a minute, without a restart."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
import ssl
from collections.abc import Iterator
from pathlib import Path

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from understudy.monitor.errors import ConfigError
from understudy.monitor.inject.pod import Sidecar
from understudy.monitor.inject.review import BadReview, answer

log = logging.getLogger(__name__)

LARGEST_REVIEW = 16 * 1024 * 1024
"""Largest body in bytes: the API server accepts objects up to 3 MiB, and a review has two."""
LOOK_SECONDS = 30.0


def application(sidecar: Sidecar) -> Starlette:
    """``POST /inject`` for the API server, ``GET /healthz`` for probes."""

    async def review(request: Request) -> Response:
        body = bytearray()
        async for chunk in request.stream():
            body += chunk
            if len(body) > LARGEST_REVIEW:
                return PlainTextResponse("larger than any review", 413)
        try:
            said = answer(json.loads(body), sidecar)
        except (BadReview, ValueError) as error:
            return PlainTextResponse(str(error), 400)
        status = said["response"].get("status")
        if status:
            log.warning("pod rejected: %s", status["message"])
        return JSONResponse(said)

    async def healthz(_: Request) -> Response:
        return JSONResponse({"status": "ok"})

    return Starlette(
        routes=[Route("/inject", review, methods=["POST"]), Route("/healthz", healthz)]
    )


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop in an orderly way on SIGTERM and SIGINT, with exit code 0."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._end)
        yield

    def _end(self) -> None:
        self.should_exit = True


class Server:
    """Serves until SIGTERM. Raises ConfigError when the certificate cannot be used."""

    def __init__(
        self, sidecar: Sidecar, host: str, port: int, certificate: Path, key: Path
    ) -> None:
        self._files = (certificate, key)
        self._config = uvicorn.Config(
            application(sidecar),
            host=host,
            port=port,
            log_config=None,
            access_log=False,
            lifespan="off",
            ws="none",
            http="h11",  # limits the head, which httptools does not
            server_header=False,
            ssl_certfile=str(certificate),
            ssl_keyfile=str(key),
            timeout_graceful_shutdown=5,
        )
        try:
            self._config.load()
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(str(certificate), [("", f"cannot be used: {error}")]) from error
        self._server = _Server(self._config)

    async def run(self) -> None:
        """Serve, and reload the certificate when it changes."""
        watch = asyncio.create_task(self._watch())
        try:
            await self._server.serve()
        finally:
            watch.cancel()

    def _stamp(self) -> tuple[float, ...]:
        return tuple(file.stat().st_mtime for file in self._files)

    async def _watch(self) -> None:
        before = self._stamp()
        while True:
            await asyncio.sleep(LOOK_SECONDS)
            before = self.renew(before)

    def renew(self, before: tuple[float, ...]) -> tuple[float, ...]:
        """Reload the certificate if its files have changed; returns their current state."""
        try:
            now = self._stamp()
            if now != before:
                context = self._config.ssl
                if context is not None:
                    context.load_cert_chain(*self._files)
                log.info("certificate reloaded")
            return now
        except (OSError, ssl.SSLError) as error:
            log.error("cannot load the new certificate, keeping the old one: %s", error)
            return before
