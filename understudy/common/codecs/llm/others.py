"""Protocols besides OpenAI's: Anthropic's messages, TGI, SGLang and Triton's generate, Ollama."""

from __future__ import annotations

from typing import Any

from understudy.common.codecs.llm.reply import (
    TOKEN_IDS,
    Events,
    Output,
    Reply,
    inner,
    objects,
    values,
)


def _failed(reply: Reply, value: dict[str, Any]) -> None:
    reply.failed |= bool(value.get("error")) or value.get("type") == "error"


# Anthropic ----------------------------------------------------------------------------------------


def messages(payload: dict[str, Any]) -> Reply:
    """A whole message of Anthropic's API."""
    reply = Reply()
    _failed(reply, payload)
    reply.add_text("")
    for number, block in enumerate(objects(payload.get("content"))):
        _block(reply, number, block)
    reply.finished(payload.get("stop_reason"))
    _tokens(reply, payload.get("usage"))
    return reply


def messages_events(events: Events) -> Reply:
    """A streamed message of Anthropic's API."""
    reply = Reply(streamed=True)
    reply.add_text("")
    for index, name, value in values(reply, events):
        _failed(reply, value)
        kind = value.get("type", name.decode("latin-1"))
        number, delta = value.get("index"), inner(value, "delta")
        if kind == "ping":
            continue
        if reply.first is None:
            reply.first = index
        if kind == "message_start":
            _tokens(reply, inner(value, "message").get("usage"))
        elif kind == "content_block_start":
            _output(reply, index, _block(reply, number, inner(value, "content_block")))
        elif kind == "content_block_delta":
            answer = reply.add_text(delta.get("text"))
            answer |= reply.add_tool((0, number), None, delta.get("partial_json"))
            reasons = reply.add_reasoning(delta.get("thinking"))
            _output(reply, index, (answer, reasons))
        elif kind == "message_delta":
            reply.finished(delta.get("stop_reason"))
            _tokens(reply, value.get("usage"))
        elif kind == "message_stop":
            reply.ended = True
    return reply


def _block(reply: Reply, number: object, block: dict[str, Any]) -> tuple[bool, bool]:
    """Add a block of content; whether it holds a part of an answer, and of reasoning."""
    answer = reply.add_text(block.get("text"))
    if block.get("type") in ("tool_use", "server_tool_use"):
        answer |= reply.add_tool((0, number), block.get("name"), block.get("input"))
    return answer, reply.add_reasoning(block.get("thinking"))


def _output(reply: Reply, index: int, found: tuple[bool, bool]) -> None:
    if any(found):
        reply.outputs.append(Output(index, found[0], 0))


def _tokens(reply: Reply, usage: object) -> None:
    if not isinstance(usage, dict):
        return
    # What the cache held is not part of the input's count.
    names = ("input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens")
    counts = [usage[name] for name in names if type(usage.get(name)) is int]
    if type(usage.get("input_tokens")) is int:
        reply.counted("prompt_tokens", sum(counts))
    reply.counted("cached_tokens", usage.get("cache_read_input_tokens"))
    reply.counted("output_tokens", usage.get("output_tokens"))


# TGI and SGLang -----------------------------------------------------------------------------------


def generate(payload: dict[str, Any]) -> Reply:
    """A whole answer of TGI's, or of SGLang's, `/generate`."""
    reply = Reply()
    _failed(reply, payload)
    reply.add_text(payload.get("generated_text", payload.get("text")))
    _details(reply, payload)
    return reply


def generate_events(events: Events) -> Reply:
    """A streamed answer of TGI's or SGLang's: SGLang's events hold the whole text so far."""
    reply = Reply(streamed=True)
    so_far = 0
    for index, _, value in values(reply, events):
        _failed(reply, value)
        if reply.first is None:
            reply.first = index
        token, text = inner(value, "token"), value.get("text")
        if token:
            there = not token.get("special") and reply.add_text(token.get("text"))
            reply.count(TOKEN_IDS, 1)
            if there:
                reply.outputs.append(Output(index, True, 1))
        elif isinstance(text, str):
            if reply.add_text(text[so_far:]):
                reply.outputs.append(Output(index, True, 0))
            so_far = max(so_far, len(text))
        _details(reply, value)
    return reply


def _details(reply: Reply, value: dict[str, Any]) -> None:
    details, meta = inner(value, "details"), inner(value, "meta_info")
    reply.finished(details.get("finish_reason"))
    reply.counted("output_tokens", details.get("generated_tokens"))
    reply.counted("prompt_tokens", details.get("input_length"))
    prefill = details.get("prefill")
    if isinstance(prefill, list) and prefill:
        reply.counted("prompt_tokens", len(prefill))
    if value.get("generated_text") is not None:
        reply.ended = True
    reply.finished(inner(meta, "finish_reason").get("type") or meta.get("finish_reason"))
    reply.counted("prompt_tokens", meta.get("prompt_tokens"))
    reply.counted("cached_tokens", meta.get("cached_tokens"))
    reply.counted("output_tokens", meta.get("completion_tokens"))


# Triton -------------------------------------------------------------------------------------------


def triton(payload: dict[str, Any]) -> Reply:
    """A whole answer of Triton's `generate`."""
    reply = Reply()
    _failed(reply, payload)
    reply.add_text(payload.get("text_output"))
    return reply


def triton_events(events: Events) -> Reply:
    """A streamed answer of Triton's `generate_stream`: it has no end mark, and tells no tokens."""
    reply = Reply(streamed=True, ended=True)
    for index, _, value in values(reply, events):
        _failed(reply, value)
        if reply.first is None:
            reply.first = index
        if reply.add_text(value.get("text_output")):
            reply.outputs.append(Output(index, True, 0))
    return reply


# Ollama -------------------------------------------------------------------------------------------


def ollama(payload: dict[str, Any]) -> Reply:
    """A whole answer of Ollama's `chat` or `generate`."""
    reply = Reply()
    _line(reply, payload, -1)
    return reply


def ollama_events(events: Events) -> Reply:
    """A streamed answer of Ollama's, in lines of JSON."""
    reply = Reply(streamed=True)
    for index, _, value in values(reply, events):
        if reply.first is None:
            reply.first = index
        _line(reply, value, index)
    return reply


def _line(reply: Reply, value: dict[str, Any], index: int) -> None:
    _failed(reply, value)
    message = inner(value, "message")
    answer = reply.add_text(message.get("content", value.get("response")))
    for number, call in enumerate(objects(message.get("tool_calls"))):
        function = inner(call, "function")
        answer |= reply.add_tool((index, number), function.get("name"), function.get("arguments"))
    reasons = reply.add_reasoning(message.get("thinking", value.get("thinking")))
    if index >= 0:
        _output(reply, index, (answer, reasons))
    if value.get("done") is True:
        reply.ended = True
        reply.finished(value.get("done_reason") or "stop")
        reply.counted("prompt_tokens", value.get("prompt_eval_count"))
        reply.counted("output_tokens", value.get("eval_count"))
