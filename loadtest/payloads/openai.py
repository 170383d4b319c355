"""Responses of OpenAI's API: completions, chats, responses and embeddings, whole or as events."""

from __future__ import annotations

import json
import re
from typing import Any

PATHS = re.compile(r".*/v1/(chat/completions|completions|responses|embeddings)")
"""Paths of requests, without a query."""
_ENDS = ("response.completed", "response.incomplete")
"""Types of the last event of a response."""


def wrong(headers: bytes, body: bytes, value: Any) -> str:
    """What is wrong with a response of status 2xx, or an empty text. ``value`` is its JSON, where
    it is not a stream of events."""
    if b"text/event-stream" in headers.lower():
        return _wrong_events(body)
    if not isinstance(value, dict):
        return "no prediction in the response: it is not an object"
    if value.get("error"):
        return "an error in a 2xx response"
    return "" if _answers(value) else "no prediction in the response"


def rows_of_request(value: Any) -> int | None:
    """How many embeddings a request asks for; None for requests of other kinds."""
    given = value.get("input") if isinstance(value, dict) else None
    if not isinstance(given, list) or not given or isinstance(given[0], int):
        return None  # one text, as text or tokens: what it has to have is looked at anyway
    return len(given) if all(isinstance(one, (str, list)) for one in given) else None


def rows_of_response(value: Any) -> int | None:
    """How many embeddings there are in a response; None for responses of other kinds."""
    items = value.get("data") if isinstance(value, dict) else None
    return len(items) if isinstance(items, list) else None


def _answers(value: dict[str, Any]) -> bool:
    """Whether there is an output in an object; of all choices, each has to have one."""
    for name, parts in (("choices", ("message", "text", "delta")), ("data", ("embedding",))):
        items = value.get(name)
        if isinstance(items, list) and items:
            return all(
                isinstance(one, dict) and any(one.get(part) is not None for part in parts)
                for one in items
            )
    return bool(value.get("output"))


def _wrong_events(body: bytes) -> str:
    seen = ended = False
    for line in body.splitlines():
        name, _, data = line.partition(b":")
        data = data.strip()
        if name != b"data" or not data:
            continue
        if data == b"[DONE]":
            ended = True
            continue
        try:
            event = json.loads(data)
        except ValueError:
            return "an event is not JSON"
        if not isinstance(event, dict):
            return "an event is not an object"
        if event.get("error") or event.get("type") in ("error", "response.failed"):
            return "an error in the stream"
        choices = event.get("choices") or []
        ended = ended or event.get("type") in _ENDS or any(
            isinstance(one, dict) and one.get("finish_reason") for one in choices
        )  # fmt: skip
        seen = seen or bool(choices) or "delta" in event
    if not seen:
        return "no prediction in the stream"
    return "" if ended else "the stream ended early"
