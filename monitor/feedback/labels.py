"""Feedback as it is posted: one object, a list, or NDJSON."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import orjson

MOST_ITEMS = 10_000
_LONGEST_ID = 256
_LONGEST_LABEL = 4096
_KEYS = frozenset(("request_id", "label", "reward", "row"))


@dataclass(frozen=True, slots=True)
class Label:
    """``row`` counts within the request. ``label`` is a JSON scalar or None, ``reward`` a number or
    None; one of them is there."""

    request_id: str
    row: int = 0
    label: str | float | bool | None = None
    reward: float | None = None


@dataclass(frozen=True, slots=True)
class Fault:
    """``number`` counts items from 1; ``field`` may be empty."""

    number: int
    field: str
    message: str

    def __str__(self) -> str:
        where = f"item {self.number}: {self.field}" if self.field else f"item {self.number}"
        return f"{where}: {self.message}"


class FeedbackError(ValueError):
    """The body as a whole cannot be read."""


def parse(body: bytes, content_type: str) -> tuple[list[tuple[int, Label]], list[Fault]]:
    """Labels with the number of their item, and what is wrong with the others.

    A label that is a list is one label for each row. Raises FeedbackError when the body is no JSON
    (with NDJSON only the line is at fault), or holds too many items.
    """
    kind = content_type.partition(";")[0].strip().lower()
    found: list[tuple[int, Label]] = []
    faults: list[Fault] = []
    lines = kind in ("application/x-ndjson", "application/jsonl", "application/ndjson")
    for number, item in enumerate(_lines(body) if lines else _items(body), start=1):
        if number > MOST_ITEMS:
            raise FeedbackError(f"more than {MOST_ITEMS:,} items: send them in several calls")
        fault = item if isinstance(item, str) else _fault(item)
        if isinstance(fault, str):
            faults.append(Fault(number, "", fault))
        elif fault is not None:
            faults.append(Fault(number, *fault))
        else:
            found += ((number, label) for label in _labels(item))
    return found, faults


def _lines(body: bytes) -> Iterator[Any]:
    for line in body.splitlines():
        if line.strip():
            try:
                yield orjson.loads(line)
            except orjson.JSONDecodeError as error:
                yield f"is no JSON: {error}"


def _items(body: bytes) -> list[Any]:
    try:
        data = orjson.loads(body)
    except orjson.JSONDecodeError as error:
        raise FeedbackError(f"the body is no JSON: {error}") from error
    if isinstance(data, dict) and isinstance(data.get("feedback"), list):
        return list(data["feedback"])
    return data if isinstance(data, list) else [data]


def _fault(item: Any) -> tuple[str, str] | str | None:
    """What is wrong with an item, by field."""
    if not isinstance(item, dict):
        return f"must be an object with request_id and label or reward, not {_shown(item)}"
    unknown = set(item) - _KEYS
    if unknown:
        return min(unknown), f"is not known; there are {', '.join(sorted(_KEYS))}"
    request_id = item.get("request_id")
    if not isinstance(request_id, str) or not 0 < len(request_id) <= _LONGEST_ID:
        return "request_id", f"must be a text of 1 to {_LONGEST_ID} characters"
    row = item.get("row", 0)
    if isinstance(row, bool) or not isinstance(row, int) or not 0 <= row < 1_000_000:
        return "row", f"must be a whole number from 0, not {_shown(row)}"
    reward = item.get("reward")
    if reward is not None and not _is_number(reward):
        return "reward", f"must be a number, not {_shown(reward)}"
    label = item.get("label")
    if label is None and reward is None:
        return "label", "is missing: give a label or a reward"
    if isinstance(label, list):
        if "row" in item:
            return "row", "has no meaning beside a list of labels"
        if not label or not all(_is_label(one) for one in label):
            return "label", "must be a list of numbers, texts or truth values"
    elif label is not None and not _is_label(label):
        return "label", f"must be a number, a text or a truth value, not {_shown(label)}"
    return None


def _labels(item: dict[str, Any]) -> Iterator[Label]:
    reward = item.get("reward")
    reward = float(reward) if reward is not None else None
    label = item.get("label")
    if isinstance(label, list):
        for row, one in enumerate(label):
            yield Label(item["request_id"], row, one, reward)
    else:
        yield Label(item["request_id"], item.get("row", 0), label, reward)


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
