"""OpenAI's API: chat completions, completions, responses and embeddings.

Servers differ: reasoning is ``reasoning`` at vLLM and ``reasoning_content`` at SGLang, llama.cpp
and DeepSeek; SGLang has ``reasoning_tokens`` beside the usage's details, and named events of its
own in these streams; an error may come as an event of a 200, with ``[DONE]`` after it.
"""

from __future__ import annotations

from typing import Any

from understudy.common.codecs.llm.reply import (
    LOGPROBS,
    TOKEN_IDS,
    Events,
    Output,
    Reply,
    inner,
    objects,
    values,
)

_REASONING = ("reasoning", "reasoning_content")


def chat(payload: dict[str, Any]) -> Reply:
    """A whole chat completion, or completion."""
    reply = Reply()
    _error(reply, payload)
    for choice in objects(payload.get("choices")):
        _choice(reply, choice, inner(choice, "message"), -1)
    _usage(reply, payload.get("usage"))
    return reply


def chat_events(events: Events) -> Reply:
    """A streamed chat completion, or completion."""
    reply = Reply(streamed=True)
    for index, _, value in values(reply, events):
        _error(reply, value)
        for choice in objects(value.get("choices")):
            if reply.first is None:
                reply.first = index
            _choice(reply, choice, inner(choice, "delta"), index)
        _usage(reply, value.get("usage"))
    return reply


def _choice(reply: Reply, choice: dict[str, Any], part: dict[str, Any], index: int) -> None:
    number = choice.get("index", 0)
    has_text = reply.add_text(choice.get("text"), number)
    has_text |= reply.add_text(_plain(part.get("content")), number)
    if reply.add_text(part.get("refusal"), number):
        has_text = reply.refused = True
    called = [part["function_call"]] if isinstance(part.get("function_call"), dict) else []
    for call in (*objects(part.get("tool_calls")), *called):
        function = call if call in called else inner(call, "function")
        key = (number if isinstance(number, int) else 0, call.get("index", call.get("id")))
        has_text |= reply.add_tool(key, function.get("name"), function.get("arguments"))
    reasons = next((part[name] for name in _REASONING if part.get(name)), None)
    has_reasoning = reply.add_reasoning(reasons)
    if has_text or has_reasoning:
        tokens = _tokens(reply, choice)
        if index >= 0:
            reply.outputs.append(Output(index, has_text, tokens))
    reply.finished(choice.get("finish_reason"))


def _plain(content: object) -> object:
    """The text of a content of typed parts."""
    if not isinstance(content, list):
        return content
    return "".join(str(part.get("text", "")) for part in objects(content))


def _tokens(reply: Reply, choice: dict[str, Any]) -> int:
    """Number of tokens that a choice lists; 0 if it lists none."""
    ids = choice.get("token_ids")
    if isinstance(ids, list) and ids:
        return reply.count(TOKEN_IDS, len(ids))
    listed = inner(choice, "logprobs")
    for name in ("content", "tokens"):
        items = listed.get(name)
        if isinstance(items, list) and items:
            return reply.count(LOGPROBS, len(items))
    return 0


def _error(reply: Reply, value: dict[str, Any]) -> None:
    if value.get("error") or value.get("object") == "error" or value.get("type") == "error":
        reply.failed = True


def _usage(reply: Reply, usage: object) -> None:
    if not isinstance(usage, dict):
        return
    reply.counted("prompt_tokens", usage.get("prompt_tokens", usage.get("input_tokens")))
    reply.counted("output_tokens", usage.get("completion_tokens", usage.get("output_tokens")))
    reply.counted("reasoning_tokens", usage.get("reasoning_tokens"))
    for name in ("prompt_tokens_details", "input_tokens_details"):
        reply.counted("cached_tokens", inner(usage, name).get("cached_tokens"))
    for name in ("completion_tokens_details", "output_tokens_details"):
        reply.counted("reasoning_tokens", inner(usage, name).get("reasoning_tokens"))


# Responses ----------------------------------------------------------------------------------------


def responses(payload: dict[str, Any]) -> Reply:
    """A whole response."""
    reply = Reply()
    _response(reply, payload, texts=True)
    return reply


def responses_events(events: Events) -> Reply:
    """A streamed response."""
    reply = Reply(streamed=True)
    for index, name, value in values(reply, events):
        kind = value.get("type")
        kind = kind if isinstance(kind, str) else name.decode("latin-1")
        if reply.first is None:
            reply.first = index
        delta, item = value.get("delta"), inner(value, "item")
        key = (0, value.get("output_index"))
        if kind == "response.output_text.delta":
            _delta(reply, index, reply.add_text(delta), True)
        elif kind == "response.refusal.delta":
            reply.refused = True
            _delta(reply, index, reply.add_text(delta), True)
        elif kind.startswith("response.reasoning") and kind.endswith(".delta"):
            _delta(reply, index, reply.add_reasoning(delta), False)
        elif kind == "response.function_call_arguments.delta":
            _delta(reply, index, reply.add_tool(key, None, delta), True)
        elif kind == "response.output_item.added" and item.get("type") == "function_call":
            _delta(reply, index, reply.add_tool(key, item.get("name"), None), True)
        elif kind in ("response.completed", "response.incomplete", "response.failed"):
            _response(reply, inner(value, "response"), texts=False)
            reply.failed |= kind == "response.failed"
        elif kind == "error":
            reply.failed = True
    return reply


def _delta(reply: Reply, index: int, there: bool, answer: bool) -> None:
    if there:
        reply.outputs.append(Output(index, answer, 0))


def _response(reply: Reply, value: dict[str, Any], texts: bool) -> None:
    _error(reply, value)
    reply.failed |= value.get("status") == "failed"
    calls = False
    for number, item in enumerate(objects(value.get("output"))):
        kind = item.get("type")
        calls |= kind == "function_call"
        if texts and kind == "function_call":
            reply.add_tool((0, number), item.get("name"), item.get("arguments"))
        for part in objects(item.get("content")) if texts else ():
            if kind == "reasoning":
                reply.add_reasoning(part.get("text"))
            elif part.get("type") == "refusal":
                reply.refused = True
                reply.add_text(part.get("refusal"))
            else:
                reply.add_text(part.get("text"))
        for part in objects(item.get("summary")) if texts else ():
            reply.add_reasoning(part.get("text"))
    status = value.get("status")
    if status == "incomplete":
        reply.finished(inner(value, "incomplete_details").get("reason") or "incomplete")
    elif status == "completed":
        reply.finished("tool_calls" if calls else "stop")
    _usage(reply, value.get("usage"))
