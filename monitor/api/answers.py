"""Responses and refusals of the API."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import orjson
from fastapi import Depends, Request, Response
from fastapi.security import HTTPBearer

from understudy.monitor.api.security import refuse_change
from understudy.monitor.pipeline.plane import EvaluationPlane

CODES = {
    400: "bad_request",
    401: "unauthorized",
    403: "forbidden",
    404: "not_found",
    405: "method_not_allowed",
    409: "refused",
    413: "too_large",
    422: "invalid",
    503: "not_ready",
}


def changing(plane: EvaluationPlane) -> list[Any]:
    """The FastAPI dependency of routes that change state: it checks the token."""

    # Not a plain function: that would be called in a thread, which is slower and takes 6 MiB.
    async def allowed(request: Request) -> None:
        refused = refuse_change(plane.settings, request.headers)
        if refused is not None:
            raise Refused(*refused)

    bearer: Callable[..., Any] = HTTPBearer(auto_error=False, description="The configured token.")
    return [Depends(allowed), Depends(bearer)]


def answer(data: Any, code: int = 200) -> Response:
    """A JSON response."""
    return Response(orjson.dumps(data), code, media_type="application/json")


def refusal(code: int, message: str, headers: dict[str, str] | None = None) -> Response:
    """An error response; ``message`` says what is wrong and what to do."""
    body = {"error": {"code": CODES.get(code, "error"), "message": message}}
    return Response(orjson.dumps(body), code, headers, media_type="application/json")


class Refused(Exception):
    """A call that is not allowed."""

    def __init__(self, code: int, message: str) -> None:
        self.code = code
        self.message = message
