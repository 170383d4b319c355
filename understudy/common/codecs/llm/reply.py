"""One answer of a language model, in the terms that all protocols share."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import orjson

Events = Sequence[tuple[bytes, bytes]]
"""The events of a stream: name and data."""

USAGE, LOGPROBS, TOKEN_IDS, NONE = "usage", "logprobs", "token_ids", "none"
"""Where a number of output tokens comes from."""
_FINISHES = {
    "end_turn": "stop",
    "eos_token": "stop",
    "eos": "stop",
    "stop_sequence": "stop",
    "completed": "stop",
    "max_tokens": "length",
    "max_output_tokens": "length",
    "tool_use": "tool_calls",
    "function_call": "tool_calls",
    "refusal": "content_filter",
}
_LONGEST_FINISH = 32
_MOST_TOOLS = 64


@dataclass(frozen=True, slots=True)
class Output:
    """An event that holds a part of the output: its index, whether that is not reasoning, and its
    number of tokens where the protocol says it, else 0."""

    index: int
    answer: bool
    tokens: int


@dataclass(slots=True)
class Reply:
    """An answer. Numbers of tokens are None where the server did not tell them: absent is not zero.

    ``first`` is the index of the first event with a part of an answer, be it empty; ``outputs`` are
    the events whose part is not. Both are of streams only.
    """

    streamed: bool = False
    finish: str | None = None
    refused: bool = False
    failed: bool = False
    """It holds an error."""
    ended: bool = False
    prompt_tokens: int | None = None
    cached_tokens: int | None = None
    output_tokens: int | None = None
    reasoning_tokens: int | None = None
    tokens_source: str = NONE
    first: int | None = None
    outputs: list[Output] = field(default_factory=list)
    unreadable: int = 0
    """Events that are not JSON."""
    _texts: dict[int, list[str]] = field(default_factory=dict)
    _reasoning: list[str] = field(default_factory=list)
    _tools: dict[tuple[int, object], tuple[list[str], list[str]]] = field(default_factory=dict)
    _counted: dict[str, int] = field(default_factory=dict)

    @property
    def text(self) -> str:
        """The text of the first choice."""
        return "".join(self._texts[min(self._texts)]) if self._texts else ""

    @property
    def choices(self) -> int:
        """How many choices there are."""
        return max(1, len(self._texts))

    @property
    def reasoning(self) -> str:
        """The text of all reasoning."""
        return "".join(self._reasoning)

    @property
    def tools(self) -> list[tuple[str, str]]:
        """Name and arguments of each tool call; the arguments are JSON as text."""
        return [("".join(name), "".join(args)) for name, args in self._tools.values()]

    # What protocols say -------------------------------------------------------------------------

    def add_text(self, text: object, choice: object = 0) -> bool:
        """Text of the answer; whether there is any."""
        number = choice if isinstance(choice, int) and 0 <= choice < 1024 else 0
        parts = self._texts.setdefault(number, [])
        if not isinstance(text, str) or not text:
            return False
        parts.append(text)
        return True

    def add_reasoning(self, text: object) -> bool:
        """Text of the reasoning before the answer; whether there is any."""
        if not isinstance(text, str) or not text:
            return False
        self._reasoning.append(text)
        return True

    def add_tool(self, key: tuple[int, object], name: object, arguments: object) -> bool:
        """A part of a tool call; whether there is any."""
        given = isinstance(arguments, (dict, list)) and bool(arguments)
        args = orjson.dumps(arguments).decode() if given else arguments
        has_name, has_args = isinstance(name, str) and name, isinstance(args, str) and args
        if not has_name and not has_args:
            return False
        call = self._tools.get(key)
        if call is None:
            if len(self._tools) >= _MOST_TOOLS:
                return True
            call = self._tools[key] = ([], [])
        if isinstance(name, str) and not call[0]:
            call[0].append(name)
        if isinstance(args, str):
            call[1].append(args)
        return True

    def finished(self, reason: object) -> None:
        """The reason why the answer ends, in OpenAI's words; the first one counts."""
        if isinstance(reason, str) and reason:
            self.ended = True
            if self.finish is None:
                self.finish = _FINISHES.get(reason, reason)[:_LONGEST_FINISH]
                self.refused |= self.finish == "content_filter"

    def counted(self, name: str, value: object) -> None:
        """A number of tokens by the server's own count; the last one counts."""
        if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
            setattr(self, name, value)
            if name == "output_tokens":
                self.tokens_source = USAGE

    def count(self, source: str, tokens: int) -> int:
        """Tokens that an event lists, for streams without usage."""
        self._counted[source] = self._counted.get(source, 0) + tokens
        if self.tokens_source != USAGE and self._counted[source]:
            self.tokens_source = source
            self.output_tokens = self._counted[source]
        return tokens


Reader = Callable[[Reply, dict[str, Any], int], None]
"""Adds one object to a reply: that of the event with this index, or a whole answer (-1)."""


def values(reply: Reply, events: Events) -> Iterator[tuple[int, bytes, dict[str, Any]]]:
    """Index, name and object of each event; those of other shapes are counted."""
    for index, (name, data) in enumerate(events):
        if data == b"[DONE]":
            reply.ended = True
            continue
        try:
            value = orjson.loads(data)
        except orjson.JSONDecodeError:
            reply.unreadable += 1
            continue
        if isinstance(value, dict):
            yield index, name, value


def objects(value: object) -> Iterable[dict[str, Any]]:
    """The objects of a list."""
    return (one for one in value if isinstance(one, dict)) if isinstance(value, list) else ()


def inner(value: object, name: str) -> dict[str, Any]:
    """The object that a member holds; empty if it holds none."""
    found = value.get(name) if isinstance(value, dict) else None
    return found if isinstance(found, dict) else {}
