"""The routes of the console: its page and the files that the page loads."""

from __future__ import annotations

import time

from fastapi import FastAPI, Response

from understudy.monitor.api.answers import answer, refusal
from understudy.monitor.api.security import session_cookie
from understudy.monitor.console.page import HEADERS, STATIC_HEADERS, page, static
from understudy.monitor.evidence.settings import Settings


def add_pages(app: FastAPI, name: str, settings: Settings) -> None:
    """Serve the page ``name`` at the root."""

    @app.get("/", include_in_schema=False)
    async def show() -> Response:
        return Response(page(name), headers=HEADERS, media_type="text/html")

    @app.get("/static/{file}", include_in_schema=False)
    async def asset(file: str) -> Response:
        asset_file = static(file)
        if asset_file is None:
            return refusal(404, f"there is no static file {file!r}")
        kind, content = asset_file
        return Response(content, headers={**STATIC_HEADERS, "Content-Type": kind})

    @app.post("/v1/session", tags=["status"])
    async def session() -> Response:
        """Sign in a page: the answer sets a cookie that allows reading, and no changes, for twelve
        hours, or until the token changes."""
        response = answer({"ok": True})
        cookie = session_cookie(settings, time.time())
        if cookie is not None:
            response.headers["Set-Cookie"] = cookie
        return response
