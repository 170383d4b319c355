"""Pieces of PromQL: selectors with quoted labels."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}


def quoted(value: str) -> str:
    """A label value between quotes."""
    return '"' + "".join(_ESCAPES.get(letter, letter) for letter in value) + '"'


def literal(value: str) -> str:
    """A value as a part of a regular expression that matches nothing else."""
    return re.sub(r"([\\.+*?()|\[\]{}^$])", r"\\\1", value)


def matchers(labels: Mapping[str, str]) -> str:
    """``a="1",b=~"x|y"``: keys may end in ``=``, ``!=``, ``=~`` or ``!~``; a plain key means equal.

    Raises ValueError for what is no label name.
    """
    parts = []
    for key, value in labels.items():
        name = key.rstrip("=!~")
        operator = key[len(name) :] or "="
        if not _NAME.fullmatch(name) or operator not in ("=", "!=", "=~", "!~"):
            raise ValueError(f"{key!r} is no label name, with =, !=, =~ or !~ after it or nothing")
        parts.append(f"{name}{operator}{quoted(value)}")
    return ",".join(parts)


def selector(metric: str, labels: Mapping[str, str]) -> str:
    """``metric{…}``, or the metric alone when there are no labels."""
    inside = matchers(labels)
    return f"{metric}{{{inside}}}" if inside else metric
