"""Builds parts of PromQL expressions: selectors with quoted labels."""

from __future__ import annotations

import re
from collections.abc import Mapping

_NAME = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
_TEXT = re.compile(r"\"(?:[^\"\\\\]|\\\\.)*\"|'(?:[^'\\\\]|\\\\.)*'")
_GROUP = re.compile(r"\((?:\?:)?([^()|]*)(?:\|[^()]*)?\)[*+?]?")
_ANY = re.compile(r"(?:(?<!\\)\.|\\[wdWDsS]|\[[^\]]*\])(?:[*+?])?")
_SIGNS = re.compile(r"\\(.)|[*+?^$]")
_WHOLE_EDGE = re.compile(r"([{,]\s*)le\s*=\s*(?P<mark>[\"'])([0-9]+)(?:\.0)?(?P=mark)")
_LETTERS = "a1A-"
_ESCAPES = {"\\": "\\\\", '"': '\\"', "\n": "\\n"}


def quoted(value: str) -> str:
    """A label value, escaped and quoted."""
    return '"' + "".join(_ESCAPES.get(letter, letter) for letter in value) + '"'


def matchers(labels: Mapping[str, str]) -> str:
    """``a="1",b=~"x|y"``: keys may end in ``=``, ``!=``, ``=~`` or ``!~``; a plain key means equal.

    Raises ValueError for an invalid label name.
    """
    parts = []
    for key, value in labels.items():
        name = key.rstrip("=!~")
        operator = key[len(name) :] or "="
        if not _NAME.fullmatch(name) or operator not in ("=", "!=", "=~", "!~"):
            raise ValueError(f"not a valid label name: {key!r} (it may end with =, !=, =~ or !~)")
        parts.append(f"{name}{operator}{quoted(value)}")
    return ",".join(parts)


def plain_sum(expression: str, by: str = "") -> str:
    """The expression as a sum ``by`` the given labels; a sum without labels stays what it is."""
    text = expression.strip()
    match = re.match(r"sum\s*\(", text)
    if match:
        depth = 0
        for index, letter in enumerate(_TEXT.sub(lambda found: "x" * len(found[0]), text)):
            depth += (letter == "(") - (letter == ")")
            if letter == ")" and depth == 0:
                if index == len(text) - 1:
                    return text
                break
    return f"sum{by}({text})"


def either_edge(expression: str) -> str:
    """The expression with each edge of a histogram that is a whole number, such as ``le="5"``, in
    both ways to write it: Prometheus 3 stores ``5.0``, and Prometheus 2 what the target writes."""
    return _WHOLE_EDGE.sub(r'\1le=~"\3|\3\\\\.0"', expression)


def matching(key: str, value: str) -> str | None:
    """A label value that a matcher accepts.

    Empty for a series without the label, None when no value is found. Raises ValueError for an
    invalid pattern.
    """
    try:
        if key.endswith("~"):
            re.compile(value)
    except re.error as error:
        raise ValueError(f"{key}: {value!r} is not a valid pattern: {error}") from error
    if key.endswith("!~"):
        return next((one for one in ("", *_LETTERS) if not re.fullmatch(value, one)), None)
    if key.endswith("!="):
        return "" if value else _LETTERS[0]
    if not key.endswith("=~"):
        return value
    simple = value
    for _ in range(value.count("(")):  # the innermost groups first, and of each what comes first
        simple = _GROUP.sub(r"\1", simple)
    simple = simple.partition("|")[0]
    tried = (_SIGNS.sub(r"\1", _ANY.sub(letter, simple)) for letter in _LETTERS)
    return next((one for one in tried if re.fullmatch(value, one)), None)


def example(labels: Mapping[str, str]) -> dict[str, str]:
    """Labels of a series that the matchers accept, as far as they can be found."""
    result: dict[str, str] = {}
    for key, value in labels.items():
        one = matching(key, value)
        if one != "":
            result[key.rstrip("=!~")] = value if one is None else one
    return result


def selector(metric: str, labels: Mapping[str, str]) -> str:
    """``metric{…}``, or the metric alone when there are no labels."""
    inside = matchers(labels)
    return f"{metric}{{{inside}}}" if inside else metric
