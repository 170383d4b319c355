"""Metrics and labels that an expression names: enough of a reader for our own expressions."""

from __future__ import annotations

import re

_GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\(([^()]*)\)")
_SELECTOR = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)\s*(\{[^{}]*\})?(\s*\()?")
_MATCHER = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)\s*(?:=~|!~|!=|=)\s*"(?:[^"\\]|\\.)*"')
_WORDS = frozenset(("and", "or", "unless", "bool", "offset", "by", "without", "on", "group_left",
                    "ignoring", "inf", "Inf", "NaN"))  # fmt: skip
_TEXT = re.compile(r'"(?:[^"\\]|\\.)*"')


def metrics(expression: str) -> dict[str, set[str]]:
    """By metric: the labels that are matched, and by which it is grouped."""
    groupings: list[tuple[int, set[str]]] = []

    def grouping(match: re.Match[str]) -> str:
        names = {name.strip() for name in match[1].split(",") if name.strip()}
        if match[0].startswith("by"):
            groupings.append((match.start(), names))
        return " " * len(match[0])

    def blank(match: re.Match[str]) -> str:
        return " " * len(match[0])

    plain = _TEXT.sub(lambda match: '"' + "x" * (len(match[0]) - 2) + '"', expression)
    plain = _GROUPING.sub(grouping, plain)
    plain = re.sub(r"\[[^\]]*\]", blank, plain)  # windows
    plain = re.sub(r"offset\s+\w+", blank, plain)
    plain = re.sub(r"(?<![\w:])[0-9.]+(?:e[+-]?[0-9]+)?", blank, plain)
    found: dict[str, set[str]] = {}
    for match in _SELECTOR.finditer(plain):
        name, labels, called = match.groups()
        if called or name in _WORDS:
            continue
        # Values of labels may hold anything, and are hidden here.
        found.setdefault(name, set()).update(_MATCHER.findall(labels or ""))
        # `sum by (a) (rate(x))`: it is the next metric that is grouped.
        for place, names in [one for one in groupings if one[0] < match.start()]:
            found[name] |= names
            groupings.remove((place, names))
    return found
