"""Parses posted feedback: one object, a list, or NDJSON, in pieces as it arrives."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from understudy.common.json_items import NDJSON, ItemsError, splitter

MOST_ITEMS = 10_000
MOST_LABELS = 50_000
"""Labels in one call; each label of a list counts."""
LONGEST_LINE = 256 * 1024
"""Bytes of one NDJSON line."""
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


class LabelParser:
    """Parses a body that arrives in pieces into labels, each with the number of its item, and
    faults of the other items.

    A label that is a list is one label for each row. :meth:`feed` and :meth:`finish` raise
    FeedbackError when the body is not valid JSON (with NDJSON only the line is at fault),
    TooManyError when it holds too many items.
    """

    def __init__(self, content_type: str) -> None:
        self.labels: list[tuple[int, Label]] = []
        self.faults: list[Fault] = []
        kind = content_type.partition(";")[0].strip().lower()
        self._by_line = kind in NDJSON
        self._items = splitter(content_type, LONGEST_LINE)
        self._count = 0

    def feed(self, piece: bytes) -> None:
        """Parse the items that the next piece completes."""
        self._parse(self._items.feed(piece))

    def finish(self) -> tuple[list[tuple[int, Label]], list[Fault]]:
        """Labels and faults; call it after the last piece."""
        self._parse(self._items.finish())
        return self.labels, self.faults

    def _parse(self, items: Iterable[tuple[int, bytes | None]]) -> None:
        try:
            for number, text in items:
                if text is None:
                    fault = Fault(number, "", f"is longer than {LONGEST_LINE:,} bytes")
                    self._add(number, fault)
                    continue
                for place, item in self._loaded(number, text):
                    self._add(place, item)
        except ItemsError as error:
            raise FeedbackError(f"the body is not valid JSON: {error}") from error

    def _loaded(self, number: int, text: bytes) -> Iterator[tuple[int, Any]]:
        try:
            item = orjson.loads(text)
        except orjson.JSONDecodeError as error:
            if not self._by_line:
                message = f"the body is not valid JSON: item {number}: {error}"
                raise FeedbackError(message) from error
            item = Fault(number, "", f"not valid JSON: {error}")
        if self._by_line or not (isinstance(item, dict) and "feedback" in item):
            yield number, item
            return
        if set(item) != {"feedback"} or not isinstance(item["feedback"], list):
            raise FeedbackError("feedback: must be a list of items, and the only key")
        yield from enumerate(item["feedback"], start=1)

    def _add(self, number: int, item: Any) -> None:
        self._count += 1
        if self._count > MOST_ITEMS:
            raise TooManyError(f"more than {MOST_ITEMS:,} items: send them in several calls")
        fault = item if isinstance(item, Fault) else _fault(item)
        if isinstance(fault, Fault):
            self.faults.append(fault)
        elif isinstance(fault, str):
            self.faults.append(Fault(number, "", fault))
        elif fault is not None:
            self.faults.append(Fault(number, *fault))
        else:
            self.labels += ((number, label) for label in _labels(item))
            if len(self.labels) > MOST_LABELS:
                raise TooManyError(f"more than {MOST_LABELS:,} labels: send them in several calls")


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
