"""The routes of the console: its page, the files that the page loads, and its session."""

from __future__ import annotations

import time

from fastapi import FastAPI, Request, Response

from understudy.monitor.api.access import Access
from understudy.monitor.api.answers import answer, refusal
from understudy.monitor.api.inside import Inside
from understudy.monitor.api.security import csrf_token, refuse, session_cookie, token_of
from understudy.monitor.console.page import HEADERS, STATIC_HEADERS, page, static
from understudy.monitor.evidence.settings import Settings


def add_pages(app: FastAPI, name: str, settings: Settings) -> None:
    """Serve the console at the root; ``name`` is of what: ``service`` or ``evaluator``."""

    @app.get("/", include_in_schema=False)
    async def show(request: Request) -> Response:
        # What the page shows is read with the rights of its reader, from the API itself.
        refused = refuse(settings, Access.READ, request.headers)
        inside = Inside(request.scope) if refused is None else None
        body, code = await page(name, dict(request.query_params), inside, refused)
        return Response(body, code, HEADERS, media_type="text/html")

    @app.get("/static/{file}", include_in_schema=False)
    async def asset(file: str) -> Response:
        asset_file = static(file)
        if asset_file is None:
            return refusal(404, f"there is no static file {file!r}")
        kind, content = asset_file
        return Response(content, headers={**STATIC_HEADERS, "Content-Type": kind})

    @app.get("/v1/session", tags=["status"])
    async def session(request: Request) -> Response:
        """The session of a page: `csrf` is the value of the header `x-understudy-csrf` that a
        change with the cookie needs; null without a session. `token`: whether a change needs one of
        the two at all."""
        csrf = csrf_token(settings, request.headers, time.time())
        return answer({"csrf": csrf, "token": token_of(settings) is not None})

    @app.post("/v1/session", tags=["status"])
    async def sign_in() -> Response:
        """Sign in a page: the answer sets a cookie that allows reading for twelve hours, or until
        the token changes. With `csrf` in the header `x-understudy-csrf` it allows changes too."""
        cookie = session_cookie(settings, time.time())
        if cookie is None:
            return answer({"ok": True, "csrf": None})
        headers = {"cookie": cookie.partition(";")[0]}
        response = answer({"ok": True, "csrf": csrf_token(settings, headers, time.time())})
        response.headers["Set-Cookie"] = cookie
        return response
