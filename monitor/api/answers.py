"""Responses and refusals of the API."""

from __future__ import annotations

from typing import Any

import orjson
from fastapi import Response

CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    408: "too_slow",
    409: "refused",
    413: "too_large",
    414: "too_large",
    422: "invalid",
    431: "too_large",
    503: "not_ready",
}


def answer(data: Any, code: int = 200) -> Response:
    """A JSON response."""
    return Response(orjson.dumps(data), code, media_type="application/json")


def refusal(code: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error response; ``message`` says what is wrong and what to do."""
    if code == 401:
        headers = {"WWW-Authenticate": "Bearer", **(headers or {})}
    body = {"error": {"code": CODES.get(code, "error"), "message": message}}
    return Response(orjson.dumps(body), code, headers, media_type="application/json")


class Refused(Exception):
    """A call that is not allowed."""

    def __init__(self, code: int, message: str, headers: dict[str, str] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.headers = headers
