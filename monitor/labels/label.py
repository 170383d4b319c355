"""Parses posted feedback: one object, a list, or NDJSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from understudy.common.files import lines_of

MOST_ITEMS = 10_000
MOST_LABELS = 50_000
"""Labels in one call; each label of a list counts."""
LONGEST_LINE = 256 * 1024
"""Bytes of one NDJSON line."""
NDJSON = ("application/x-ndjson", "application/jsonl", "application/ndjson")
_LONGEST_ID = 256
_LONGEST_LABEL = 4096
_MILLISECONDS = 1e11  # as seconds this is the year 5138
_KEYS = frozenset(("request_id", "label", "reward", "row", "at", "idempotency_key", "source"))


@dataclass(frozen=True, slots=True)
class Label:
    """A label or reward for one row of a request.

    ``row`` is the index within the request. ``label`` is a JSON scalar or None, ``reward`` a number
    or None; at least one is given. ``at`` is the unix time at which the outcome became known, None
    for the time of arrival. ``key`` is the sender's idempotency key: the same key is the same
    event. ``source`` names who says it: a later value of the same source is a correction.
    """

    request_id: str
    row: int = 0
    label: str | float | bool | None = None
    reward: float | None = None
    at: float | None = None
    key: str | None = None
    source: str | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """An invalid item: ``number`` counts items or lines from 1; ``field`` may be empty."""

    number: int
    field: str
    message: str

    def __str__(self) -> str:
        where = f"item {self.number}: {self.field}" if self.field else f"item {self.number}"
        return f"{where}: {self.message}"


class FeedbackError(ValueError):
    """The body cannot be parsed."""


class TooManyError(FeedbackError):
    """The body has more items than one call accepts."""


def parse(body: bytes, content_type: str) -> tuple[list[tuple[int, Label]], list[Fault]]:
    """Parse a body into labels, each with the number of its item, and faults of the other items.

    A label that is a list is one label for each row. Raises FeedbackError when the body is not
    valid JSON (with NDJSON only the line is at fault), TooManyError when it holds too many items.
    """
    kind = content_type.partition(";")[0].strip().lower()
    found: list[tuple[int, Label]] = []
    faults: list[Fault] = []
    items = _lines(body) if kind in NDJSON else enumerate(_items(body), start=1)
    for count, (number, item) in enumerate(items, start=1):
        if count > MOST_ITEMS:
            raise TooManyError(f"more than {MOST_ITEMS:,} items: send them in several calls")
        fault = item if isinstance(item, Fault) else _fault(item)
        if isinstance(fault, Fault):
            faults.append(fault)
        elif isinstance(fault, str):
            faults.append(Fault(number, "", fault))
        elif fault is not None:
            faults.append(Fault(number, *fault))
        else:
            found += ((number, label) for label in _labels(item))
            if len(found) > MOST_LABELS:
                raise TooManyError(f"more than {MOST_LABELS:,} labels: send them in several calls")
    return found, faults


def _lines(body: bytes) -> Iterator[tuple[int, Any]]:
    """The value of each non-empty line, with the line number; a Fault for invalid JSON."""
    for number, line in lines_of(body):
        if len(line.strip()) > LONGEST_LINE:
            yield number, Fault(number, "", f"is longer than {LONGEST_LINE:,} bytes")
            continue
        try:
            yield number, orjson.loads(line)
        except orjson.JSONDecodeError as error:
            yield number, Fault(number, "", f"not valid JSON: {error}")


def _items(body: bytes) -> list[Any]:
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise FeedbackError(f"the body is not valid JSON: {error}") from error
    if isinstance(data, dict) and "feedback" in data:
        if set(data) != {"feedback"} or not isinstance(data["feedback"], list):
            raise FeedbackError("feedback: must be a list of items, and the only key")
        return list(data["feedback"])
    return data if isinstance(data, list) else [data]


def _fault(item: Any) -> tuple[str, str] | str | None:
    """The fault of an item: field and message, or only a message; None when it is valid."""
    if not isinstance(item, dict):
        return f"must be an object with request_id and label or reward, not {_shown(item)}"
    unknown = set(item) - _KEYS
    if unknown:
        return min(unknown), f"unknown key; known: {', '.join(sorted(_KEYS))}"
    request_id = item.get("request_id")
    if not isinstance(request_id, str) or not 0 < len(request_id) <= _LONGEST_ID:
        return "request_id", f"must be a text of 1 to {_LONGEST_ID} characters"
    row = item.get("row", 0)
    if isinstance(row, bool) or not isinstance(row, int) or not 0 <= row < 1_000_000:
        return "row", f"must be a whole number from 0, not {_shown(row)}"
    reward = item.get("reward")
    if reward is not None and not _is_number(reward):
        return "reward", f"must be a number, not {_shown(reward)}"
    if "at" in item and (wrong := _wrong_time(item["at"])) is not None:
        return "at", wrong
    for name in ("idempotency_key", "source"):
        text = item.get(name)
        if text is not None and (not isinstance(text, str) or not 0 < len(text) <= _LONGEST_ID):
            return name, f"must be a text of 1 to {_LONGEST_ID} characters"
    return _wrong_label(item)


def _wrong_label(item: dict[str, Any]) -> tuple[str, str] | None:
    label = item.get("label")
    if label is None and item.get("reward") is None:
        return "label", "is missing: give a label or a reward"
    if isinstance(label, list):
        if "row" in item:
            return "row", "must not be given with a list of labels"
        if not label or not all(_is_label(one) for one in label):
            return "label", "must be a list of numbers, texts or truth values"
    elif label is not None and not _is_label(label):
        return "label", f"must be a number, a text or a truth value, not {_shown(label)}"
    return None


def _labels(item: dict[str, Any]) -> Iterator[Label]:
    reward = item.get("reward")
    reward = float(reward) if reward is not None else None
    at = _unix(item["at"]) if "at" in item else None
    request_id, key, label = item["request_id"], item.get("idempotency_key"), item.get("label")
    source = item.get("source")
    if isinstance(label, list):
        for row, one in enumerate(label):
            yield Label(request_id, row, one, reward, at, key, source)
    else:
        yield Label(request_id, item.get("row", 0), label, reward, at, key, source)


def _wrong_time(value: Any) -> str | None:
    if not _is_number(value) and not isinstance(value, str):
        return f"must be unix seconds or a time such as 2026-01-31T12:00:00Z, not {_shown(value)}"
    try:
        at = _unix(value)
    except (ValueError, OverflowError):
        return f"must be a time such as 2026-01-31T12:00:00Z, not {_shown(value)}"
    if at is None:
        return f"has no time zone: end it with Z or an offset, not {_shown(value)}"
    if not 0 <= at < _MILLISECONDS:
        return f"is not in seconds since 1970: {_shown(value)}"
    return None


def _unix(value: Any) -> float | None:
    """Unix seconds of a number or an RFC 3339 text; None without a time zone."""
    if not isinstance(value, str):
        return float(value)
    at = datetime.fromisoformat(value)
    return at.timestamp() if at.tzinfo is not None else None


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _is_label(value: Any) -> bool:
    return (
        _is_number(value)
        or isinstance(value, bool)
        or (isinstance(value, str) and len(value) <= _LONGEST_LABEL)
    )


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else text[:59] + "…"
