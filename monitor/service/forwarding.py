"""Asks the evaluator that judges, for a client that came to another one.

Everything the client sent goes along, its host and origin too, so that whoever judges allows or
refuses by its own settings. What was forwarded once is not forwarded again: after a change of the
group two evaluators may for a moment take each other for the judge.
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
"""More than a judge takes until what was changed is committed."""
_NOT_PASSED_ON = (b"connection", b"transfer-encoding", b"keep-alive", b"upgrade", b"te", b"expect")
_RETURNED = ("content-type", "content-security-policy", "www-authenticate", "cache-control")


def was_forwarded(scope: Scope) -> bool:
    """Whether another evaluator asks."""
    return any(name == FORWARDED for name, _ in scope["headers"])


async def forward(url: str, scope: Scope, body: bytes) -> Response:
    """The answer of the evaluator at ``url``, or 503 that says why there is none."""
    try:
        return await asyncio.to_thread(_ask, url, scope, body)
    except (OSError, http.client.HTTPException) as error:
        return refusal(503, f"the evaluator that judges ({url}) does not answer: {error!r}")


def _ask(url: str, scope: Scope, body: bytes) -> Response:
    where = urlsplit(url)
    path = scope.get("raw_path") or scope["path"].encode()
    if scope["query_string"]:
        path += b"?" + scope["query_string"]
    line = http.client.HTTPConnection(where.hostname or "", where.port or 80, timeout=_SECONDS)
    try:
        line.putrequest(scope["method"], path.decode("latin-1"), True, True)
        for name, value in scope["headers"]:
            if name.lower() not in (*_NOT_PASSED_ON, b"content-length"):
                line.putheader(name, value)
        line.putheader(FORWARDED, b"1")
        line.putheader("content-length", str(len(body)))
        line.endheaders(body)
        answer = line.getresponse()
        data = answer.read()
    finally:
        line.close()
    headers = {name: value for name, value in answer.getheaders() if name.lower() in _RETURNED}
    return Response(data, answer.status, headers)
