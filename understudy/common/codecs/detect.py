"""Which wire format a payload is in: the configuration decides, then the path, then the content."""

from __future__ import annotations

import re
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from understudy.common.codecs.body import parsed
from understudy.common.codecs.spec import Parsers, WireFormat
from understudy.common.extensions import WIRE_FORMATS, implementation

NOT_INFERENCE = "not-inference"
"""Where a path belongs to one of the protocols and yet asks for no prediction."""

JSON: Parsers = (parsed, parsed)
FORMATS: dict[str, WireFormat] = {name: implementation(code) for name, code in WIRE_FORMATS.items()}
"""All wire formats by name."""
_PATHS: tuple[tuple[re.Pattern[str], str, Parsers], ...] = (
    *((re.compile(path), name, JSON) for name, one in FORMATS.items() for path in one.paths),
    *((re.compile(path), name, how) for name, one in FORMATS.items() for path, how in one.calls),
    *(
        (re.compile(path), NOT_INFERENCE, JSON)
        for one in FORMATS.values()
        for path in one.other_paths
    ),
)
_SLASH = re.compile(rb"%(2[Ff])")
_LONGEST = 512
"""Bytes of a path that is remembered, so that odd ones do not fill the memory."""


def by_path(target: bytes | str) -> str | None:
    """The format whose inference path ends this request target; its query does not matter."""
    return look_up(target)[0]


def look_up(target: bytes | str) -> tuple[str | None, Parsers]:
    """The same, and what parses the bodies of such a request and of its response."""
    if isinstance(target, str):
        target = target.encode("utf-8", "replace")
    path = target.partition(b"?")[0]
    return _known(path) if len(path) <= _LONGEST else _match(path)


def _match(path: bytes) -> tuple[str | None, Parsers]:
    # An encoded slash stays: it is part of a name.
    text = unquote_to_bytes(_SLASH.sub(rb"%25\1", path)).decode("latin-1")
    for pattern, protocol, parsers in _PATHS:
        if pattern.fullmatch(text):
            return protocol, parsers
    return None, JSON


_known = lru_cache(maxsize=1024)(_match)


def by_content(payload: object) -> str | None:
    """The format that a request's JSON looks like."""
    if not isinstance(payload, dict):
        return None
    for name, one in FORMATS.items():
        if one.matches(payload):
            return name
    return None
