"""Environment variables in a plan: ``${NAME}`` is its value, ``$${`` is the text ``${``."""

from __future__ import annotations

import os
import re
from typing import Any

from understudy.loadtest.errors import PlanError

_REFERENCE = re.compile(r"\$\$\{|\$\{([^}]*)(\}?)")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHELL = ("command",)
"""Keys whose values a shell may expand by itself."""


def expand(value: Any, place: str) -> Any:
    """``value`` with the variables in all its texts expanded; ``place`` is its key. Raises
    PlanError for a variable that is not set, and for what is not the name of one; values of
    variables are never part of an error."""
    if isinstance(value, str):
        return _REFERENCE.sub(lambda found: _value(found, place), value)
    if isinstance(value, dict):
        return {
            key: one if key in _SHELL else expand(one, f"{place}.{key}" if place else str(key))
            for key, one in value.items()
        }
    if isinstance(value, list):
        return [expand(one, f"{place}[{number}]") for number, one in enumerate(value)]
    return value


def variable(name: str, place: str) -> str:
    """The value of an environment variable. Raises PlanError if it is not set or empty."""
    value = os.environ.get(name, "")
    if not value:
        raise PlanError(f"{place}: the environment variable {name} is not set")
    return value


def _value(found: re.Match[str], place: str) -> str:
    if found[0] == "$${":
        return "${"
    if not found[2] or not _NAME.fullmatch(found[1]):
        raise PlanError(
            f"{place}: {found[0]} is not a variable: write ${{NAME}}, or $${{ for a literal ${{"
        )
    return variable(found[1], place)
