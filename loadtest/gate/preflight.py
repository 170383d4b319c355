"""Whether the target can be measured at all: one request before any stage, by the same engine.

What is wrong there is a fault of the plan or of the access to the target, never one of the model.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

import numpy as np

from understudy.common import grpc_status
from understudy.common.text import visible
from understudy.loadtest.engine.answer import CALL, Check
from understudy.loadtest.engine.pool import Target
from understudy.loadtest.engine.senders import sender_of
from understudy.loadtest.engine.timer import now_ns
from understudy.loadtest.errors import TargetError
from understudy.loadtest.payloads.checks import UNEXPECTED
from understudy.loadtest.payloads.request import Payload

_TRIES = 5
"""Requests at most, each with another payload: a server may fail some."""
_PAUSE_SECONDS = 0.2
_LONGEST = 200
"""Characters of a response that are shown."""
_SHORTEST_SECRET = 4
_HINTS = {
    401: "set the credentials: payloads.headers_env",
    403: "set the credentials: payloads.headers_env",
    404: "set payloads.path",
    405: "set payloads.method",
    CALL + grpc_status.UNAUTHENTICATED: "set the credentials: payloads.headers_env",
    CALL + grpc_status.PERMISSION_DENIED: "set the credentials: payloads.headers_env",
    CALL + grpc_status.NOT_FOUND: "set payloads.model",
    CALL + grpc_status.UNIMPLEMENTED: "the server has no such method: set payloads.path",
}
_TLS_HINTS = {
    "has expired": "renew the certificate of the target",
    "not yet valid": "check the clocks",
    "mismatch": "name the target by a name in its certificate",
    "certificate required": "the target wants a certificate of the client",
    "self-signed": "set engine.ca_file to the authority of the certificate",
    "self signed": "set engine.ca_file to the authority of the certificate",
    "unable to get": "set engine.ca_file to the authority of the certificate",
    "wrong version": "the target may not speak TLS: write http://",
    "record layer": "the target may not speak TLS: write http://",
}
"""What to do about an error of TLS, by a part of it."""
_CLOSED = ("closed early", "reset")
_UNREACHABLE = ("refused", "unreachable", "connect timeout", "no connection")


class _Seen:
    """Keeps a response, and gives it to the checks of the plan."""

    body = True

    def __init__(self, check: Check) -> None:
        self._check = check
        self.status = 0
        self.text = ""

    def prepare(self) -> None:
        """Nothing: how long the response takes does not count here."""

    def __call__(self, payload: int, status: int, headers: bytes, body: bytes) -> str:
        self.status = status
        self.text = body[: 4 * _LONGEST].decode("utf-8", "replace")
        error = self._check(payload, status, headers, body)
        return "" if error == UNEXPECTED else error


def preflight(
    target: Target, where: str, payloads: Sequence[Payload], requests: Sequence[bytes], check: Check
) -> None:
    """Raise TargetError if the target does not give a good response.

    ``where`` is the URL of the target; ``requests`` are the bytes of ``payloads``. Any response
    that is not good is tried again a few times, with other payloads where there are some. The error
    has the reason and the beginning of the response, without the values of the request's headers.
    """
    text = ""
    for number in range(_TRIES):
        index = number % len(payloads)
        seen = _Seen(check)
        try:
            sender = sender_of(target, requests, seen, index)
            sender.run(iter([np.zeros(1)]), now_ns(), lambda: None)
        except OSError as problem:
            raise TargetError(f"target: {where}: {problem}") from problem
        errors = list(sender.drain().errors)
        if not errors:
            return
        error = errors[0]
        if not seen.status:
            raise TargetError(f"target: {where} {_unanswered(error, target)}")
        payload = payloads[index]
        hint = _HINTS.get(seen.status, "")
        if 300 <= seen.status < 400:
            hint = "redirects are not followed: name the address behind it"
        start = _redacted(" ".join(seen.text.split()), payload)[:_LONGEST]
        text = f"target: {where}: {payload.method} {payload.path.partition('?')[0]}: {error}"
        text += f": {visible(start)}" if start else ""
        text += f" ({hint})" if hint else ""
        time.sleep(_PAUSE_SECONDS)
    raise TargetError(text)


def _unanswered(error: str, target: Target) -> str:
    if error in _UNREACHABLE:
        return f"cannot be reached: {error}"
    if error == "timeout":
        return f"did not answer within {target.timeout:g} s (engine.timeout)"
    hint = next((hint for part, hint in _TLS_HINTS.items() if part in error), "")
    if error == "TLS":  # the end of the connection came before the reason, or without one
        hint = "the target ended it; it may want a certificate of the client"
    if error in _CLOSED and not target.tls:
        hint = "the target may speak TLS: write https://, or gRPC: write grpc://"
        if target.http2:
            hint = "the target may speak TLS: write grpcs://, or HTTP/1.1: write http://"
    if error.startswith("does not speak HTTP/2"):
        hint = "for HTTP/1.1, write http:// or https://"
    return f"did not answer: {error}" + (f" ({hint})" if hint else "")


def _redacted(text: str, payload: Payload) -> str:
    """``text`` without the values of the payload's headers, which a server may send back."""
    for value in payload.headers.values():
        for part in (value, *value.split()):
            if len(part) >= _SHORTEST_SECRET:
                text = text.replace(part, "***")
    return text
