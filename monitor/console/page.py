"""The page of the console, which shows what the API answers, and the static files that it loads.

Every view is HTML from the server, with its charts as SVG, so that it can be read without scripts.
The scripts only replace what has changed, move the cursor of charts, and send what people order.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from understudy.common.templates import environment
from understudy.monitor.console import words
from understudy.monitor.console.reading import NotFound, Reading, Source
from understudy.monitor.console.views import VIEWS, title_of, view_of

_FOLDER = Path(__file__).parent
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
_ICON = re.compile(r"icon-(good|warn|bad|neutral)-(\d{1,2})\.svg")

_COMMON = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; style-src 'self'; img-src 'self';"
        " script-src 'self'; base-uri 'none'; form-action 'self'; frame-ancestors 'none'"
    ),
    **_COMMON,
}
"""Content security policy: only scripts and styles of the service load; inline ones do not run."""
STATIC_HEADERS = {"Content-Security-Policy": "default-src 'none'", **_COMMON}


async def page(
    of: str, query: Mapping[str, str], source: Source | None, refused: tuple[int, str] | None
) -> tuple[str, int]:
    """HTML and status of a view, which ``query`` chooses; ``of`` is ``service`` or ``evaluator``.
    ``source`` answers for the reader; None if ``refused`` says why the reader sees nothing."""
    if source is None:
        code, message = refused or (401, "")
        return await _render("sign_in.html", of=of, code=code, message=message), 200
    reading = Reading(source, query, of)
    name = view_of(query)
    code = 200
    try:
        await reading.begin()
        template, values = await VIEWS[name](reading)
    except NotFound as error:
        template, values, code = "absent.html", {"message": str(error)}, error.code
    return await _render(template, reading=reading, view=name, title=title_of(reading, name),
                         **values), code  # fmt: skip


async def _render(template: str, **values: Any) -> str:
    """In another thread: the records of the workers arrive in the event loop meanwhile."""
    return await asyncio.to_thread(_templates().get_template(template).render, **values)


@cache
def _templates() -> Any:
    found = environment(_FOLDER / "templates")
    found.filters.update(words.FILTERS)
    return found


@cache
def _static() -> dict[str, tuple[str, bytes]]:
    files = sorted((_FOLDER / "static").iterdir())
    return {
        file.name: (_TYPES[file.suffix], file.read_bytes())
        for file in files
        if file.suffix in _TYPES
    }


_COLOURS = {"good": "#14743c", "warn": "#8a5a00", "bad": "#b3261e", "neutral": "#59636e"}


def _icon(tone: str, count: int) -> bytes:
    """A square in the colour of the worst state, with the number of open findings."""
    text = "" if not count else "9+" if count > 9 else str(count)
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 32 32">'
        f'<rect width="32" height="32" rx="7" fill="{_COLOURS[tone]}"/>'
        '<text x="16" y="23" text-anchor="middle" font-family="sans-serif" font-size="20" '
        f'font-weight="700" fill="#fff">{text}</text></svg>'
    ).encode()


def static(name: str) -> tuple[str, bytes] | None:
    """Content type and content of a static file, by name; None if there is no such file."""
    icon = _ICON.fullmatch(name)
    if icon is not None:
        return "image/svg+xml", _icon(icon[1], int(icon[2]))
    return _static().get(name)
