"""Pages in a real browser: Debian's Chromium, driven by Playwright, without a window.

The fixture ``browser`` is in ``tests/conftest.py``. A test opens a page and asks what went wrong::

    def test_the_page(browser: Browser) -> None:
        with visit(browser, url) as seen:
            seen.page.get_by_text("ready").wait_for()
            seen.fine()

Playwright's own browsers are never downloaded. Tests skip loudly where there is no Chromium.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

import pytest

from tests.support.patience import patient
from tools.parts.debian import environment, need

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

PATIENCE = patient(30_000.0)
"""Milliseconds until what is waited for has to be there."""
# Without a sandbox it starts as root too; the others keep it from asking for other hosts.
FLAGS = (
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
)  # fmt: skip


def chromium() -> Iterator[Browser]:
    """A browser that is closed at the end, or a skip that says what is missing."""
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.skip("NOT TESTED: Playwright is not installed: pip install -e '.[dev]'")
    program = need("chromium")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=program,
            args=list(FLAGS),
            env={k: v for k, v in environment("chromium").items() if k != "DISPLAY"},
        )
        yield browser
        browser.close()


@dataclass
class Seen:
    """A page that was opened, and what went wrong on it."""

    page: Page
    origin: str
    errors: list[str] = field(default_factory=list)
    outside: list[str] = field(default_factory=list)
    """Requests for anything that does not come from where the page comes from."""

    def fine(self, svgs: int = 0) -> None:
        """No error, nothing from elsewhere, and at least so many drawings that can be seen."""
        assert self.errors == []
        assert self.outside == []
        assert self.page.locator("svg").count() >= svgs
        for one in self.page.locator("svg").all():
            shape = one.evaluate("one => one.outerHTML.slice(0, 200)")
            box = one.bounding_box()
            assert box is not None, f"an invisible drawing: {shape}"
            kinds = (one.get_attribute("class") or "").split()
            if "labels" in kinds:  # the texts beside a drawing that stretches
                assert one.locator("text").count() > 0, shape
                assert box["height"] >= 50, shape
                continue
            spark = "spark" in kinds
            wide, high = (50, 10) if spark else (100, 50)
            assert box["width"] >= wide, shape
            assert box["height"] >= high, shape
            assert one.locator("rect, path, circle, polyline, line").count() > 0, shape
        wider = "document.documentElement.scrollWidth - document.documentElement.clientWidth"
        assert self.page.evaluate(wider) <= 0, "the page is wider than its window"


@contextmanager
def visit(browser: Browser, url: str, dark: bool = False, width: int = 1200) -> Iterator[Seen]:
    """``url`` (http or file) in a fresh context, which shares nothing with other visits."""
    context = browser.new_context(
        color_scheme="dark" if dark else "light", viewport={"width": width, "height": 900}
    )
    context.set_default_timeout(PATIENCE)
    page = context.new_page()
    parts = urlsplit(url)
    seen = Seen(page, f"{parts.scheme}://{parts.netloc}")
    page.on(
        "console",
        lambda message: seen.errors.append(message.text) if message.type == "error" else None,
    )
    page.on("pageerror", lambda error: seen.errors.append(str(error)))
    page.on(
        "request",
        lambda request: (
            seen.outside.append(request.url)
            if not request.url.startswith((seen.origin, "data:", "blob:"))
            else None
        ),
    )
    try:
        page.goto(url)
        yield seen
    finally:
        context.close()


def kept(seen: Seen, name: str) -> None:
    """Keep a picture where ``UNDERSTUDY_SCREENSHOTS`` says, to be looked at."""
    folder = os.environ.get("UNDERSTUDY_SCREENSHOTS")
    if folder:
        seen.page.screenshot(path=Path(folder) / f"{name}.png", full_page=True)
