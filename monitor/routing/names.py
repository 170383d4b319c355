"""Names of headers and query parameters, matched by patterns in which * stands for any text."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence


def normal(name: bytes) -> bytes:
    """A name as servers see it: many do not tell - from _, and none upper from lower case."""
    return name.lower().replace(b"_", b"-")


def matcher(patterns: Sequence[str]) -> Callable[[bytes], bool]:
    """Tells whether a name matches one of ``patterns``."""
    if not patterns:
        return lambda name: False
    parts = (re.escape(normal(pattern.encode())).replace(rb"\*", rb".*") for pattern in patterns)
    matches = re.compile(b"|".join(parts), re.DOTALL).fullmatch
    return lambda name: matches(normal(name)) is not None
