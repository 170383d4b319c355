"""Attributes of requests to language models, by the semantic conventions of generative AI.

https://opentelemetry.io/docs/specs/semconv/gen-ai/gen-ai-spans/ (development, so only with
OTEL_SEMCONV_STABILITY_OPT_IN=gen_ai_latest_experimental). Messages are never among them.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterator, Mapping
from functools import lru_cache
from itertools import islice
from typing import Any

import orjson

from understudy.common.codecs import Undecodable
from understudy.common.codecs.body import parsed, plain_stream, stream_kind
from understudy.common.events import SSE, json_lines, server_sent
from understudy.common.protocols import LLM_PATHS

Value = str | int | float | bool | list[str]
MOST_BYTES = 256 * 1024
"""Payloads that are larger are not looked at."""
_OPERATIONS = {
    "openai-chat": ("chat", "openai"),
    "openai-completions": ("text_completion", "openai"),
    "openai-responses": ("chat", "openai"),
    "openai-embeddings": ("embeddings", "openai"),
    "anthropic-messages": ("chat", "anthropic"),
    "triton-generate": ("text_completion", "triton"),
    "ollama": ("chat", "ollama"),
    "tgi": ("text_completion", "tgi"),
}
"""By protocol: the operation, and the provider that defined the protocol, whichever serves."""
_PATHS = [
    (re.compile(LLM_PATHS[name].encode()), operation) for name, operation in _OPERATIONS.items()
]
_PARAMETERS = {
    "max_tokens": ("max_tokens", "max_completion_tokens", "max_output_tokens"),
    "temperature": ("temperature",),
    "top_p": ("top_p",),
    "frequency_penalty": ("frequency_penalty",),
    "presence_penalty": ("presence_penalty",),
    "seed": ("seed",),
}
_INTEGERS = frozenset(("max_tokens", "seed"))
_FIRST, _LAST = 2, 4
"""Events of a stream that are read: the first ones have the id and the model, the last ones have
the reason of the end and the usage."""


@lru_cache(maxsize=1024)
def _operation(path: bytes) -> tuple[str, str] | None:
    found = next((operation for pattern, operation in _PATHS if pattern.fullmatch(path)), None)
    if path.endswith(b"/rerank"):
        return None
    return ("text_completion", found[1]) if found and path.endswith(b"/api/generate") else found


def operation_of(target: bytes) -> tuple[str, str] | None:
    """Operation and provider, by the path; None for other requests."""
    return _operation(target.partition(b"?")[0])


def request_attributes(headers: bytes, body: bytes | None) -> dict[str, Value]:
    """``gen_ai.request.*`` of a request's payload, by its kept header lines."""
    asked = _whole(headers, body)
    found: dict[str, Value] = {}
    model = asked.get("model")
    if isinstance(model, str) and model:
        found["gen_ai.request.model"] = model
    if asked.get("stream") is True:
        found["gen_ai.request.stream"] = True
    for name, keys in _PARAMETERS.items():
        value = next((asked[key] for key in keys if key in asked), None)
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            found[f"gen_ai.request.{name}"] = value if name in _INTEGERS else float(value)
    choices = asked.get("n")
    if type(choices) is int and choices != 1:
        found["gen_ai.request.choice.count"] = choices
    return found


def response_attributes(headers: bytes, body: bytes | None) -> dict[str, Value]:
    """``gen_ai.response.*`` and ``gen_ai.usage.*`` of a response's payload, whole or a stream."""
    found: dict[str, Value] = {}
    reasons: dict[str, None] = {}
    for part in _parts(headers, body):
        # A stream of Anthropic's or of OpenAI's responses has the answer within its events.
        for name in ("message", "response"):
            inner = part.get(name)
            if isinstance(inner, dict):
                _read(inner, found, reasons)
        _read(part, found, reasons)
    if reasons:
        found["gen_ai.response.finish_reasons"] = list(reasons)
    return found


def _read(part: Mapping[str, Any], found: dict[str, Value], reasons: dict[str, None]) -> None:
    for name in ("id", "model"):
        value = part.get(name)
        if isinstance(value, str) and value:
            found.setdefault(f"gen_ai.response.{name}", value)
    choices = part.get("choices")
    ends: list[object] = [*(choices if isinstance(choices, list) else ()), part, part.get("delta")]
    for end in ends:
        if not isinstance(end, dict):
            continue
        names = ("finish_reason", "stop_reason", "done_reason")
        reason = next((end[name] for name in names if end.get(name)), None)
        if isinstance(reason, str):
            reasons[reason] = None
    usage = part.get("usage")
    if isinstance(usage, dict):
        _usage(usage, found)
    for name, key in (("input", "prompt_eval_count"), ("output", "eval_count")):
        if type(part.get(key)) is int:  # Ollama
            found[f"gen_ai.usage.{name}_tokens"] = part[key]


def _usage(usage: Mapping[str, Any], found: dict[str, Value]) -> None:
    given = usage.get("prompt_tokens", usage.get("input_tokens"))
    read, made = (usage.get(f"cache_{what}_input_tokens") for what in ("read", "creation"))
    if type(given) is int:
        # Anthropic does not count tokens from and for its cache among those of the input.
        found["gen_ai.usage.input_tokens"] = given + sum(
            value for value in (read, made) if type(value) is int
        )
    for name, value in (
        ("output_tokens", usage.get("completion_tokens", usage.get("output_tokens"))),
        ("cache_read.input_tokens", read),
        ("cache_creation.input_tokens", made),
        ("cache_read.input_tokens", _details(usage, "prompt", "input").get("cached_tokens")),
        (
            "reasoning.output_tokens",
            _details(usage, "completion", "output").get("reasoning_tokens"),
        ),
    ):
        if type(value) is int:
            found[f"gen_ai.usage.{name}"] = value


def _details(usage: Mapping[str, Any], *sides: str) -> Mapping[str, Any]:
    for side in sides:
        details = usage.get(f"{side}_tokens_details")
        if isinstance(details, dict):
            return details
    return {}


def _parts(headers: bytes, body: bytes | None) -> Iterator[Mapping[str, Any]]:
    """The objects of a response: itself, or those of the first and last events of a stream."""
    kind = stream_kind(headers)
    if body is None or not kind:
        yield _whole(headers, body)
        return
    plain = plain_stream(headers, body)
    if isinstance(plain, Undecodable):
        return
    events = (server_sent if kind == SSE else json_lines)(plain)
    first = list(islice(events, _FIRST))
    for _, data in (*first, *deque(events, _LAST)):
        yield _object(data)


def _whole(headers: bytes, body: bytes | None) -> Mapping[str, Any]:
    if body is None or len(body) > MOST_BYTES:
        return {}
    found = parsed(headers, body)
    return found if isinstance(found, dict) else {}


def _object(data: bytes) -> Mapping[str, Any]:
    try:
        found = orjson.loads(data)
    except orjson.JSONDecodeError:
        return {}
    return found if isinstance(found, dict) else {}
