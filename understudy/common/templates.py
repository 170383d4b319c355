"""HTML from Jinja templates: every value is escaped unless it is marked as safe.

Control characters are written as escapes too: an override of direction in a name would reverse the
text beside it.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from understudy.common.text import visible

if TYPE_CHECKING:
    from jinja2 import Environment


@cache
def environment(folder: Path) -> Environment:
    """The templates of a folder; an undefined name is an error, not an empty text."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    return Environment(
        loader=FileSystemLoader(folder),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_shown,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )


def _shown(value: Any) -> Any:
    return visible(value, lines=True) if type(value) is str else value


def render(template: Path, **values: Any) -> str:
    """Render a template file; includes are relative to its folder."""
    return environment(template.parent).get_template(template.name).render(**values)


def trusted(html: str) -> Any:
    """Mark ``html`` as safe; external texts in it must be escaped already."""
    from markupsafe import Markup

    return Markup(html)  # noqa: S704  # what this function is for
