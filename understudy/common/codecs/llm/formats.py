"""The wire formats of language models, each from its readers of prompts, answers and events."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from understudy.common.codecs.llm import openai, others, prompt
from understudy.common.codecs.llm.columns import Timing, answer_table, prompt_table
from understudy.common.codecs.llm.prompt import Prompt
from understudy.common.codecs.llm.reply import Events, Reply, inner, objects
from understudy.common.codecs.spec import ModelSpec, WireFormat
from understudy.common.codecs.table import Reason, Table, Undecodable
from understudy.common.protocols import LLM_PATHS

_SHAPE = Undecodable(Reason.WRONG_SHAPE, "not an answer of this protocol")
_ERROR = Undecodable(Reason.ERROR_RESPONSE)


def _never(payload: dict[str, object]) -> bool:
    return False


def _format(
    name: str,
    ask: Callable[[dict[str, Any]], Prompt | None],
    whole: Callable[[dict[str, Any]], Reply],
    streamed: Callable[[Events], Reply],
    keys: tuple[str, ...],
    matches: Callable[[dict[str, object]], bool] = _never,
) -> WireFormat:
    """``keys``: a whole answer has one of them."""

    def request(payload: object, spec: ModelSpec) -> Table | Undecodable:
        asked = ask(payload) if isinstance(payload, dict) else None
        if asked is None:
            return Undecodable(Reason.WRONG_SHAPE, "not a request of this protocol")
        return prompt_table(asked)

    def timed(payload: object, timing: Timing) -> Table | Undecodable:
        if isinstance(payload, list) and len(payload) == 1:
            payload = payload[0]
        if not isinstance(payload, dict):
            return _SHAPE
        reply = whole(payload)
        if reply.failed:
            return _ERROR
        return answer_table(reply, timing) if not payload.keys().isdisjoint(keys) else _SHAPE

    def events(found: Events, timing: Timing) -> Table | Undecodable:
        reply = streamed(found)
        if reply.failed:
            return _ERROR
        if reply.unreadable and reply.first is None:
            return Undecodable(Reason.NOT_JSON, "no event is JSON")
        if reply.first is None:
            return Undecodable(Reason.EMPTY if not found else Reason.WRONG_SHAPE)
        return answer_table(reply, timing)

    return WireFormat(
        request,
        lambda payload, spec: timed(payload, Timing()),
        paths=(LLM_PATHS[name],),
        matches=matches,
        timed=timed,
        events=events,
    )


CHAT = _format(
    "openai-chat",
    prompt.chat,
    openai.chat,
    openai.chat_events,
    ("choices",),
    lambda payload: isinstance(payload.get("messages"), list),
)
COMPLETIONS = _format(
    "openai-completions",
    prompt.completion,
    openai.chat,
    openai.chat_events,
    ("choices",),
    lambda payload: "prompt" in payload and "model" in payload,
)
RESPONSES = _format(
    "openai-responses",
    prompt.responses,
    openai.responses,
    openai.responses_events,
    ("output",),
)
MESSAGES = _format(
    "anthropic-messages", prompt.messages, others.messages, others.messages_events, ("content",)
)
GENERATE = _format(
    "tgi", prompt.generate, others.generate, others.generate_events, ("generated_text", "meta_info")
)
TRITON = _format(
    "triton-generate",
    prompt.triton,
    others.triton,
    others.triton_events,
    ("text_output",),
    lambda payload: "text_input" in payload,
)
OLLAMA = _format("ollama", prompt.ollama, others.ollama, others.ollama_events, ("done", "message"))

# Embeddings ---------------------------------------------------------------------------------------

_VECTORS = ("vectors", "dimensions", "prompt_tokens", "e2e_seconds")


def _asked(payload: object, spec: ModelSpec) -> Table | Undecodable:
    if not isinstance(payload, dict):
        return Undecodable(Reason.WRONG_SHAPE, "not a request of this protocol")
    given = payload.get("input", payload.get("documents"))
    if given is None:
        return Undecodable(Reason.WRONG_SHAPE, "not a request of this protocol")
    texts = given if isinstance(given, list) else [given]
    if texts and isinstance(texts[0], int):
        texts = [""]
    asked = prompt.common(payload)
    chars = sum(len(one) for one in texts if isinstance(one, str))
    values: list[object] = [asked.model, float(len(texts)), float(chars)]
    return Table(("requested_model", "inputs", "prompt_chars"), 1, values)


def _embedded(payload: object, timing: Timing) -> Table | Undecodable:
    if not isinstance(payload, dict):
        return _SHAPE
    if payload.get("error"):
        return _ERROR
    items = list(objects(payload.get("data", payload.get("results"))))
    if not items:
        return _SHAPE
    vector = items[0].get("embedding")
    usage = inner(payload, "usage")
    tokens = usage.get("prompt_tokens", usage.get("total_tokens"))
    values: list[object] = [
        float(len(items)),
        float(len(vector)) if isinstance(vector, list) else None,
        float(tokens) if type(tokens) is int else None,
        timing.seconds if timing.seconds > 0.0 else None,
    ]
    return Table(_VECTORS, 1, values)


EMBEDDINGS = WireFormat(
    _asked,
    lambda payload, spec: _embedded(payload, Timing()),
    paths=(LLM_PATHS["openai-embeddings"],),
    timed=_embedded,
)
