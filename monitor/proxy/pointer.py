"""JSON pointers into the bodies of requests (RFC 6901)."""

from __future__ import annotations

import re

_INDEX = re.compile(r"0|[1-9][0-9]{0,8}")


def steps(pointer: str) -> tuple[str, ...]:
    """The reference tokens of a JSON pointer (RFC 6901)."""
    return tuple(step.replace("~1", "/").replace("~0", "~") for step in pointer.split("/")[1:])


def pointed(value: object, path: tuple[str, ...]) -> bytes:
    """The text or number at ``path``, as bytes; empty without one."""
    for step in path:
        if isinstance(value, dict):
            value = value.get(step)
        elif isinstance(value, list):
            # An index has no sign, no leading zero, and no digits but these.
            if _INDEX.fullmatch(step) is None or int(step) >= len(value):
                return b""
            value = value[int(step)]
        else:
            return b""
    if isinstance(value, bool) or not isinstance(value, (str, int, float)):
        return b""
    return str(value).encode("utf-8", "replace")
