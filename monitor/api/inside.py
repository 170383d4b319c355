"""Calls of the API within the process: the console shows what the API answers, and nothing else."""

from __future__ import annotations

from typing import Any

import orjson
from starlette.types import ASGIApp, Message, Scope


class Inside:
    """Asks the application that answers ``scope``, with the headers of its reader."""

    def __init__(self, scope: Scope) -> None:
        self._app: ASGIApp = scope["understudy.api"] if "understudy.api" in scope else scope["app"]
        self._scope = scope

    async def get(self, target: str) -> tuple[int, Any]:
        """Status and JSON of a GET request; None where the answer is not JSON."""
        path, _, query = target.partition("?")
        scope = {
            **{key: self._scope[key] for key in ("type", "asgi", "http_version", "scheme",
                                                 "server", "client", "headers")
               if key in self._scope},
            "method": "GET",
            "path": path,
            "raw_path": path.encode(),
            "root_path": "",
            "query_string": query.encode(),
        }  # fmt: skip
        status, parts = 500, []

        async def receive() -> Message:
            return {"type": "http.request", "body": b"", "more_body": False}

        async def send(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
            else:
                parts.append(message.get("body", b""))

        await self._app(scope, receive, send)
        try:
            return status, orjson.loads(b"".join(parts))
        except orjson.JSONDecodeError:
            return status, None
