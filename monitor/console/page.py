"""The pages of the console, which poll the API, and the static files that they load."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from understudy.common.templates import render

_FOLDER = Path(__file__).parent
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}

_COMMON = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
HEADERS = {
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; style-src 'self';"
        " script-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    **_COMMON,
}
"""Content security policy: only scripts and styles of the service load; inline ones do not run."""
STATIC_HEADERS = {"Content-Security-Policy": "default-src 'none'", **_COMMON}


@cache
def page(name: str) -> str:
    """The HTML of ``status`` or ``evaluator``."""
    return render(_FOLDER / "templates" / f"{name}.html")


@cache
def _static() -> dict[str, tuple[str, bytes]]:
    files = sorted((_FOLDER / "static").iterdir())
    return {
        file.name: (_TYPES[file.suffix], file.read_bytes())
        for file in files
        if file.suffix in _TYPES
    }


def static(name: str) -> tuple[str, bytes] | None:
    """Content type and content of a static file, by name; None if there is no such file."""
    return _static().get(name)
