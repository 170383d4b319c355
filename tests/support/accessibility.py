"""What axe-core finds on a page in a real browser."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tests.support.browser import PATIENCE
from tools.parts.axe import script

if TYPE_CHECKING:
    from playwright.sync_api import Browser

_RUN = """axe.run().then(found => found.violations.map(one =>
  `${one.id}: ${one.nodes.length} × ${one.nodes[0].html.slice(0, 160)}`))"""


def violations(browser: Browser, url: str, dark: bool = False, width: int = 1280) -> list[str]:
    """One line for each rule that the page at ``url`` breaks, in a fresh context. Skips without
    axe-core."""
    source = script()
    # The pages' own policy forbids a script from elsewhere, which this one is.
    context = browser.new_context(
        color_scheme="dark" if dark else "light",
        viewport={"width": width, "height": 900},
        bypass_csp=True,
    )
    context.set_default_timeout(PATIENCE)
    try:
        page = context.new_page()
        page.goto(url)
        for one in page.locator("details > summary").all()[:3]:
            one.click()
        page.add_script_tag(path=source)
        found: list[str] = page.evaluate(_RUN)
        return found
    finally:
        context.close()
