"""Where the pages about alerts are: one absolute URL, which alerts of all kinds link to."""

from __future__ import annotations

from typing import Annotated

from pydantic import AfterValidator, Field

from understudy import __version__
from understudy.monitor.config.section import Section

PUBLIC = "https://github.com/understudy-serving/understudy/blob/v{version}/docs/runbooks/{alert}.md"
"""The documentation of the version that makes the alerts."""


def absolute_url(value: str) -> str:
    """Check that a pager can open the URL. Raises ValueError."""
    scheme, slashes, rest = value.partition("://")
    if scheme not in ("http", "https") or not slashes or not rest.strip("/") or " " in value:
        raise ValueError(
            f"{value!r} is not an absolute URL: a pager cannot open it (example: "
            "https://wiki.example/{alert})"
        )
    return value


AbsoluteUrl = Annotated[str, Field(max_length=512), AfterValidator(absolute_url)]


class Runbooks(Section):
    """The pages about alerts."""

    url: AbsoluteUrl = PUBLIC
    """Absolute URL of a page: `{alert}` is the name of the alert, `{version}` that of Understudy.
    Without `{alert}` it is that of a folder of pages. Default: the public documentation."""


def runbook_url(url: str, alert: str) -> str:
    """The URL of an alert's page."""
    if "{alert}" not in url:
        url = f"{url.rstrip('/')}/{{alert}}.md"
    return url.replace("{version}", __version__).replace("{alert}", alert)


def alert_name(kind: str) -> str:
    """The name of the alert on findings of a kind."""
    return f"Understudy{kind.capitalize()}"
