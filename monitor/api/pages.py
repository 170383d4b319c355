"""The routes of the console: its page and the files that the page loads."""

from __future__ import annotations

from fastapi import FastAPI, Response

from understudy.monitor.api.answers import refusal
from understudy.monitor.console.page import HEADERS, STATIC_HEADERS, page, static


def add_pages(app: FastAPI, name: str) -> None:
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
