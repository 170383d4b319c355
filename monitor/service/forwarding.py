"""Forwards a request to the evaluator that owns the partition.

All headers of the client are forwarded, also host and origin, so that the owner applies its own
access rules. A forwarded request is never forwarded again: after a rebalance two evaluators may
each take the other for the owner.
"""

from __future__ import annotations

import asyncio
import http.client
from urllib.parse import urlsplit

from starlette.responses import Response
from starlette.types import Scope

from understudy.monitor.api.answers import refusal

FORWARDED = b"x-understudy-forwarded"
_SECONDS = 20.0
"""Longer than an owner takes to commit a change."""
_NOT_PASSED_ON = (b"connection", b"transfer-encoding", b"keep-alive", b"upgrade", b"te", b"expect")
_RETURNED = ("content-type", "content-security-policy", "www-authenticate", "cache-control")


def was_forwarded(scope: Scope) -> bool:
    """Whether another evaluator forwarded the request."""
    return any(name == FORWARDED for name, _ in scope["headers"])


async def forward(url: str, scope: Scope, body: bytes) -> Response:
    """The response of the evaluator at ``url``; 503 with the reason if it does not respond."""
    try:
        return await asyncio.to_thread(_request, url, scope, body)
    except (OSError, http.client.HTTPException) as error:
        return refusal(503, f"the evaluator that owns this ({url}) does not respond: {error!r}")


def _request(url: str, scope: Scope, body: bytes) -> Response:
    address = urlsplit(url)
    path = scope.get("raw_path") or scope["path"].encode()
    if scope["query_string"]:
        path += b"?" + scope["query_string"]
    connection = http.client.HTTPConnection(
        address.hostname or "", address.port or 80, timeout=_SECONDS
    )
    try:
        connection.putrequest(scope["method"], path.decode("latin-1"), True, True)
        for name, value in scope["headers"]:
            if name.lower() not in (*_NOT_PASSED_ON, b"content-length"):
                connection.putheader(name, value)
        connection.putheader(FORWARDED, b"1")
        connection.putheader("content-length", str(len(body)))
        connection.endheaders(body)
        answer = connection.getresponse()
        data = answer.read()
    finally:
        connection.close()
    headers = {name: value for name, value in answer.getheaders() if name.lower() in _RETURNED}
    return Response(data, answer.status, headers)
