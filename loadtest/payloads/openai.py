"""Responses of OpenAI's API: completions, chats, responses and embeddings, whole or as events."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Sequence
from itertools import accumulate, pairwise
from math import nan
from typing import Any

from understudy.common.codecs.llm.openai import chat_events, responses_events
from understudy.common.codecs.llm.reply import Reply
from understudy.common.events import dispatched
from understudy.loadtest.engine.stream import ReadStream, Stream

PATHS = re.compile(r".*/v1/(chat/completions|completions|responses|embeddings)")
"""Paths of requests, without a query."""
_ERROR = "an error in the stream"


def wrong(headers: bytes, body: bytes, value: Any) -> str:
    """What is wrong with a response of status 2xx, or an empty text. ``value`` is its JSON, where
    it is not a stream of events."""
    if b"text/event-stream" in headers.lower():
        return streamed([body], [0]).error
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


def streamed(pieces: Sequence[bytes], times: Sequence[int]) -> ReadStream:
    """Read a stream of events whose bytes came in ``pieces``, each at one of ``times`` (monotonic
    nanoseconds): an event came with the end of its last line.

    The times are those of docs/language-models.md, by the service's own codecs.
    """
    found = list(dispatched(b"".join(pieces)))
    events = [(name, data) for name, data, _ in found]
    reply = chat_events(events)
    if reply.first is None and not reply.failed:
        reply = responses_events(events)
    ends = list(accumulate(map(len, pieces)))

    def at(index: int) -> int:
        return times[bisect_left(ends, found[index][2])]

    error = _wrong_stream(reply)
    if reply.first is None:
        return ReadStream(error)
    outputs = [(at(one.index), one) for one in reply.outputs]
    stream = Stream(float(at(reply.first)))
    stream.prompt_tokens = nan if reply.prompt_tokens is None else float(reply.prompt_tokens)
    tokens = reply.output_tokens
    stream.output_tokens = nan if tokens is None else float(tokens)
    if not outputs:
        return ReadStream(error, stream)
    (first, one), last = outputs[0], outputs[-1][0]
    stream.first_token, stream.last_token = float(first), float(last)
    stream.first_answer = float(next((when for when, one in outputs if one.answer), nan))
    after = 0 if tokens is None else tokens - (one.tokens or 1)
    if after > 0:
        stream.per_token = (last - first) / after / 1e9
    gaps = [(now - before) / 1e9 for (before, _), (now, _) in pairwise(outputs)]
    stream.longest_gap = max(gaps, default=nan)
    return ReadStream(error, stream, gaps)


def left(pieces: Sequence[bytes], times: Sequence[int]) -> ReadStream:
    """As :func:`streamed`, for a stream that the client itself ended: that it has no end is no
    failure, an error in it is one."""
    found = streamed(pieces, times)
    found.stream.cancelled = 1.0
    error = found.error if found.error == _ERROR else ""
    return ReadStream(error, found.stream, found.gaps)


def _wrong_stream(reply: Reply) -> str:
    if reply.failed:
        return _ERROR
    if reply.unreadable:
        return "an event is not JSON"
    if reply.first is None:
        return "no prediction in the stream"
    return "" if reply.ended else "the stream ended early"
