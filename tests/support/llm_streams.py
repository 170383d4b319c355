"""Answers of language model servers as bytes on the wire, as each server writes them."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

SSE = b"content-type: text/event-stream; charset=utf-8"
NDJSON = b"content-type: application/x-ndjson"


@dataclass(frozen=True)
class Shape:
    """A stream of a protocol: its path, a request, its bytes and what is read of them."""

    name: str
    path: str
    request: dict[str, Any]
    body: bytes
    events: int
    output: tuple[int, ...]
    """Indices of the events that hold output."""
    cells: dict[str, object]
    outcome: str = "ok"
    header: bytes = SSE
    first: int = 0
    """Index of the first event of the answer."""
    answer: int | None = field(default=None)
    """Index of the first event that is not reasoning, where it is not the first output."""


def sse(*events: object, space: str = " ", end: str = "\n\n") -> bytes:
    """Server-sent events: a pair is a name and its data, a text is data as it is."""
    result = []
    for event in events:
        name, data = event if isinstance(event, tuple) else ("", event)
        text = data if isinstance(data, str) else json.dumps(data, ensure_ascii=False)
        newline = end[: len(end) // 2]
        result.append(
            (f"event:{space}{name}{newline}" if name else "") + f"data:{space}{text}{end}"
        )
    return "".join(result).encode()


def chunk(*choices: dict[str, Any], **more: Any) -> dict[str, Any]:
    """A chunk of a chat completion."""
    return {"id": "c1", "object": "chat.completion.chunk", "choices": list(choices), **more}


def delta(finish: str | None = None, index: int = 0, **part: Any) -> dict[str, Any]:
    """A choice of a chunk."""
    return {"index": index, "delta": part, "finish_reason": finish}


def _call(**function: str) -> list[dict[str, Any]]:
    return [{"index": 0, "id": "t1", "function": function}]


_USAGE = {
    "prompt_tokens": 9,
    "completion_tokens": 7,
    "total_tokens": 16,
    "prompt_tokens_details": {"cached_tokens": 4},
    "completion_tokens_details": {"reasoning_tokens": 3},
}
_ASK = {"model": "m", "stream": True, "messages": [{"role": "user", "content": "What is this?"}]}
_CHAT = "/v1/chat/completions"

SHAPES = (
    Shape(
        "vllm chat with reasoning and a tool",
        _CHAT,
        _ASK,
        sse(
            chunk(delta(role="assistant", content="")),
            chunk(delta(reasoning="Let me")),
            chunk(delta(tool_calls=_call(name="f", arguments=""))),
            chunk(delta(tool_calls=_call(arguments='{"a": 1}'))),
            chunk(delta("tool_calls")),
            chunk(usage=_USAGE),
            "[DONE]",
        ),
        7,
        (1, 2, 3),
        {
            "finish_reason": "tool_calls",
            "prompt_tokens": 9.0,
            "cached_tokens": 4.0,
            "output_tokens": 7.0,
            "reasoning_tokens": 3.0,
            "tokens_source": "usage",
            "tool_calls": 1.0,
            "reasoning_chars": 6.0,
            "is_empty": 0.0,
        },
        answer=2,
    ),
    Shape(
        "llama.cpp chat, whose role chunk has no content, with keep-alives",
        "/openai/v1/chat/completions?x=1",
        _ASK,
        b": ping\n\n"
        + sse(
            chunk(delta(role="assistant", content=None)),
            chunk(delta(reasoning_content="Hm")),
            chunk(delta(content="naïve ")),
        )
        + b":\n\n"
        + sse(chunk(delta(content="日本")), chunk(delta("stop")), "[DONE]"),
        6,
        (1, 2, 3),
        {
            "finish_reason": "stop",
            "answer_chars": 8.0,
            "output_tokens": None,
            "tokens_source": "none",
        },
        answer=2,
    ),
    Shape(
        "sglang chat with CRLF, named events and its own reasoning tokens",
        "/chat/completions",
        _ASK,
        sse(
            chunk(delta(role="assistant", content="")),
            ("sglext_ids", {"ids": [1, 2]}),
            chunk(delta(content="a")),
            chunk(delta("length", content="b")),
            chunk(usage={"prompt_tokens": 2, "completion_tokens": 5, "reasoning_tokens": 1}),
            "[DONE]",
            end="\r\n\r\n",
        ),
        6,
        (2, 3),
        {
            "finish_reason": "length",
            "is_cut_off": 1.0,
            "reasoning_tokens": 1.0,
            "cached_tokens": None,
        },
    ),
    Shape(
        "two choices, and tokens by their logprobs",
        "/v1/completions",
        {"model": "m", "prompt": "a", "stream": True, "n": 2},
        sse(
            {"choices": [{"index": 0, "text": "x", "logprobs": {"tokens": ["x", ""]}}]},
            {"choices": [{"index": 1, "text": "y", "logprobs": {"tokens": ["y"]}}]},
            {"choices": [{"index": 0, "text": "z", "finish_reason": "stop"}]},
            "[DONE]",
        ),
        4,
        (0, 1, 2),
        {
            "finish_reason": "stop",
            "answer_chars": 2.0,
            "output_tokens": 3.0,
            "tokens_source": "logprobs",
        },
    ),
    Shape(
        "an error within a 200, and [DONE] after it",
        _CHAT,
        _ASK,
        sse(chunk(delta(content="a")), {"error": {"message": "boom", "code": 500}}, "[DONE]"),
        3,
        (),
        {},
        outcome="stream_error",
    ),
    Shape(
        "a chat without an end",
        _CHAT,
        _ASK,
        sse(chunk(delta(content="a")), chunk(delta(content="b"))),
        2,
        (0, 1),
        {"finish_reason": "none", "answer_chars": 2.0},
        outcome="truncated",
    ),
    Shape(
        "responses",
        "/v1/responses",
        {"model": "m", "input": "Say hello", "stream": True, "instructions": "Be brief."},
        sse(
            ("response.created", {"type": "response.created", "response": {"error": None}}),
            (
                "response.reasoning_text.delta",
                {"type": "response.reasoning_text.delta", "delta": "h"},
            ),
            (
                "response.output_text.delta",
                {"type": "response.output_text.delta", "delta": "hello"},
            ),
            (
                "response.completed",
                {
                    "type": "response.completed",
                    "response": {
                        "status": "completed",
                        "output": [{"content": [{"type": "output_text", "text": "hello" * 9}]}],
                        "error": None,
                        "usage": {
                            "input_tokens": 3,
                            "input_tokens_details": {"cached_tokens": 0},
                            "output_tokens": 2,
                            "output_tokens_details": {"reasoning_tokens": 1},
                        },
                    },
                },
            ),
        ),
        4,
        (1, 2),
        {"finish_reason": "stop", "answer_chars": 5.0, "cached_tokens": 0.0, "output_tokens": 2.0},
        answer=2,
    ),
    Shape(
        "a response that failed",
        "/v1/responses",
        {"model": "m", "input": "x", "stream": True},
        sse(
            ("response.created", {"type": "response.created", "response": {}}),
            ("response.failed", {"type": "response.failed", "response": {"status": "failed"}}),
        ),
        2,
        (),
        {},
        outcome="stream_error",
    ),
    Shape(
        "anthropic's messages",
        "/v1/messages",
        {"model": "m", "max_tokens": 9, "system": "Be brief.", "messages": [], "stream": True},
        sse(
            (
                "message_start",
                {
                    "type": "message_start",
                    "message": {
                        "usage": {
                            "input_tokens": 5,
                            "cache_read_input_tokens": 4,
                            "output_tokens": 1,
                        }
                    },
                },
            ),
            (
                "content_block_start",
                {
                    "type": "content_block_start",
                    "index": 0,
                    "content_block": {"type": "text", "text": ""},
                },
            ),
            ("ping", {"type": "ping"}),
            (
                "content_block_delta",
                {
                    "type": "content_block_delta",
                    "index": 0,
                    "delta": {"type": "text_delta", "text": 'an {"error": {"x": 1}}'},
                },
            ),
            (
                "message_delta",
                {
                    "type": "message_delta",
                    "delta": {"stop_reason": "max_tokens"},
                    "usage": {"output_tokens": 8},
                },
            ),
            ("message_stop", {"type": "message_stop"}),
        ),
        6,
        (3,),
        {
            "finish_reason": "length",
            "prompt_tokens": 9.0,
            "cached_tokens": 4.0,
            "output_tokens": 8.0,
        },
    ),
    Shape(
        "an error of anthropic's",
        "/v1/messages",
        {"model": "m", "max_tokens": 9, "messages": [], "stream": True},
        sse(
            ("message_start", {"type": "message_start", "message": {}}),
            ("error", {"type": "error", "error": {"type": "overloaded_error"}}),
        ),
        2,
        (),
        {},
        outcome="stream_error",
    ),
    Shape(
        "tgi, without a space after the colon",
        "/generate_stream",
        {"inputs": "a", "parameters": {"max_new_tokens": 2}, "stream": True},
        sse(
            {"index": 1, "token": {"id": 1, "text": "a", "special": False}, "generated_text": None},
            {
                "index": 2,
                "token": {"id": 2, "text": "</s>", "special": True},
                "generated_text": "a",
                "details": {"finish_reason": "eos_token", "generated_tokens": 2},
            },
            space="",
        ),
        2,
        (0,),
        {
            "finish_reason": "stop",
            "output_tokens": 2.0,
            "tokens_source": "usage",
            "answer_chars": 1.0,
        },
    ),
    Shape(
        "sglang's own generate, whose events hold the whole text",
        "/generate",
        {"text": "a", "stream": True},
        sse(
            {"text": "a", "meta_info": {"finish_reason": None, "completion_tokens": 1}},
            {
                "text": "ab",
                "meta_info": {
                    "finish_reason": {"type": "length"},
                    "prompt_tokens": 1,
                    "completion_tokens": 2,
                },
            },
            "[DONE]",
        ),
        3,
        (0, 1),
        {"finish_reason": "length", "output_tokens": 2.0, "answer_chars": 2.0},
    ),
    Shape(
        "triton, whose streams have no end",
        "/v2/models/m/generate_stream",
        {"text_input": "a", "parameters": {"temperature": 0}},
        sse({"model_name": "m", "text_output": "a"}, {"model_name": "m", "text_output": "b"}),
        2,
        (0, 1),
        {"finish_reason": "none", "output_tokens": None, "answer_chars": 2.0},
    ),
    Shape(
        "an error of triton's",
        "/v2/models/m/versions/1/generate_stream",
        {"text_input": "a"},
        sse({"text_output": "a"}, {"error": "boom"}),
        2,
        (),
        {},
        outcome="stream_error",
    ),
    Shape(
        "ollama's chat, whose last line has no end",
        "/api/chat",
        {"model": "m", "messages": [{"role": "user", "content": "a"}], "format": "json"},
        b'{"message": {"role": "assistant", "content": "", "thinking": "hm"}, "done": false}\n'
        b'{"message": {"content": "{}", "tool_calls": [{"function": {"name": "f", "arguments":'
        b' {"error": {"x": 1}}}}]}, "done": false}\r\n'
        b'{"message": {"content": ""}, "done": true, "done_reason": "stop",'
        b' "prompt_eval_count": 3, "eval_count": 5}',
        3,
        (0, 1),
        {"finish_reason": "stop", "prompt_tokens": 3.0, "output_tokens": 5.0, "is_json": 1.0},
        header=NDJSON,
        answer=1,
    ),
    Shape(
        "an error of ollama's",
        "/api/generate",
        {"model": "m", "prompt": "a"},
        b'{"response": "a", "done": false}\n{"error":"an error was encountered"}\n',
        2,
        (),
        {},
        outcome="stream_error",
        header=NDJSON,
    ),
)
