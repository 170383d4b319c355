"""Attributes of gRPC calls and of language models, from what a record has."""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import pytest

from tests.support.spans import CONFIG, finished
from understudy.monitor.config.load import parse
from understudy.monitor.config.otel import open_telemetry
from understudy.monitor.records.encode import encode
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import (
    CANCELLED,
    CLIENT_ERROR,
    MODEL_OVERLOAD,
    OK,
    SERVER_ERROR,
    TIMEOUT,
    UPSTREAM_CONNECT,
    decode_batch,
)
from understudy.monitor.telemetry.otlp.gen_ai import MOST_BYTES, operation_of, response_attributes
from understudy.monitor.telemetry.otlp.spans import Span, SpanMaker, SpanSource

METHOD = "inference.GRPCInferenceService/ModelInfer"


def spans_of(gen_ai: bool = False, **record: Any) -> list[Span]:
    maker = SpanMaker.of(parse(CONFIG, "test", Path("/")), 4096, gen_ai)
    return maker.spans(finished(record.pop("outcome", OK), record.pop("status", 200), **record))


@pytest.mark.parametrize(
    ("outcome", "number", "name", "server", "client"),
    [
        (OK, 0, "OK", False, False),
        (CANCELLED, 1, "CANCELLED", False, False),
        (SERVER_ERROR, 2, "UNKNOWN", True, True),
        (CLIENT_ERROR, 3, "INVALID_ARGUMENT", False, True),
        (TIMEOUT, 4, "DEADLINE_EXCEEDED", True, True),
        (CLIENT_ERROR, 5, "NOT_FOUND", False, True),
        (MODEL_OVERLOAD, 8, "RESOURCE_EXHAUSTED", False, True),
        (SERVER_ERROR, 12, "UNIMPLEMENTED", True, True),
        (SERVER_ERROR, 13, "INTERNAL", True, True),
        (UPSTREAM_CONNECT, 14, "UNAVAILABLE", True, True),
        (CLIENT_ERROR, 16, "UNAUTHENTICATED", False, True),
        (SERVER_ERROR, 77, "77", False, True),
    ],
)
def test_a_grpc_call(outcome: int, number: int, name: str, server: bool, client: bool) -> None:
    spans = spans_of(
        outcome=outcome,
        target=b"/" + METHOD.encode(),
        headers=b"content-type: application/grpc+proto\r\nuser-agent: grpc-go/1.82",
        response_headers=b"content-type: application/grpc\r\ngrpc-status: %d" % number,
    )
    for span, failed in zip(spans, (server, client), strict=True):
        assert span.name == METHOD
        assert span.attributes["rpc.system.name"] == "grpc"
        assert span.attributes["rpc.method"] == METHOD
        assert span.attributes["rpc.response.status_code"] == name
        assert span.attributes["network.protocol.version"] == "2"
        assert span.failed == failed
        assert span.attributes.get("error.type") == (name if failed else None)
        assert not [key for key in span.attributes if key.startswith(("http.", "url."))]
    assert spans[0].attributes["user_agent.original"] == "grpc-go/1.82"
    assert spans[1].attributes["server.address"] == "models.example"


def test_a_grpc_call_without_a_status_is_judged_by_its_outcome() -> None:
    target, headers = b"/" + METHOD.encode(), b"Content-Type: application/grpc"
    spans = spans_of(outcome=TIMEOUT, status=504, target=target, headers=headers)
    for span in spans:
        assert (span.failed, span.attributes["error.type"]) == (True, "timeout")
        assert "rpc.response.status_code" not in span.attributes


CHAT = b"/v1/chat/completions"
ASKED = {"model": "llama", "messages": [{"role": "user", "content": "secret"}], "max_tokens": 9,
         "temperature": 0, "seed": 7, "n": 2}  # fmt: skip
ANSWERED = {
    "id": "c-1", "model": "llama-3", "choices": [
        {"message": {"content": "secret"}, "finish_reason": "stop"},
        {"message": {"content": "secret"}, "finish_reason": "length"}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 12,
              "prompt_tokens_details": {"cached_tokens": 3},
              "completion_tokens_details": {"reasoning_tokens": 4}},
}  # fmt: skip


def test_a_chat() -> None:
    server, client = spans_of(
        gen_ai=True,
        target=CHAT,
        request_body=json.dumps(ASKED).encode(),
        response_body=json.dumps(ANSWERED).encode(),
    )
    assert client.name == "chat llama"
    assert {k: v for k, v in client.attributes.items() if k.startswith("gen_ai.")} == {
        "gen_ai.operation.name": "chat",
        "gen_ai.provider.name": "openai",
        "gen_ai.request.model": "llama",
        "gen_ai.request.max_tokens": 9,
        "gen_ai.request.temperature": 0.0,
        "gen_ai.request.seed": 7,
        "gen_ai.request.choice.count": 2,
        "gen_ai.response.id": "c-1",
        "gen_ai.response.model": "llama-3",
        "gen_ai.response.finish_reasons": ["stop", "length"],
        "gen_ai.usage.input_tokens": 5,
        "gen_ai.usage.output_tokens": 12,
        "gen_ai.usage.cache_read.input_tokens": 3,
        "gen_ai.usage.reasoning.output_tokens": 4,
    }
    for span in (server, client):
        assert "secret" not in str(span)
    assert not [key for key in server.attributes if key.startswith("gen_ai.")]


def events(*parts: dict[str, Any]) -> bytes:
    return b"".join(b"data: " + json.dumps(part).encode() + b"\n\n" for part in parts)


SSE = b"content-type: text/event-stream"


@pytest.mark.parametrize("deflated", [False, True])
def test_a_stream(deflated: bool) -> None:
    piece = {"id": "c-1", "model": "llama-3", "choices": [{"delta": {"content": "secret"}}]}
    last = {**piece, "choices": [{"delta": {}, "finish_reason": "stop"}]}
    usage = {**piece, "choices": [], "usage": {"prompt_tokens": 5, "completion_tokens": 40}}
    body = events(*[piece] * 40, last, usage) + b"data: [DONE]\n\n"
    headers = SSE
    if deflated:  # as the data plane keeps streams
        headers, body = SSE + b"\r\ncontent-encoding: deflate", zlib.compress(body)
    _, client = spans_of(
        gen_ai=True,
        target=CHAT,
        request_body=json.dumps({**ASKED, "stream": True}).encode(),
        response_headers=headers,
        response_body=body,
    )
    found = client.attributes
    assert found["gen_ai.request.stream"] is True
    assert found["gen_ai.response.id"] == "c-1"
    assert found["gen_ai.response.finish_reasons"] == ["stop"]
    assert found["gen_ai.usage.output_tokens"] == 40
    # 20 ms after the arrival, of which it waited 5 ms for a connection.
    assert found["gen_ai.response.time_to_first_chunk"] == pytest.approx(0.015)


def test_a_stream_of_anthropic() -> None:
    begin = {"id": "m-1", "model": "claude", "usage": {
        "input_tokens": 5, "cache_read_input_tokens": 100, "cache_creation_input_tokens": 10}}  # fmt: skip
    body = events(
        {"type": "message_start", "message": begin},
        {"type": "content_block_delta", "delta": {"type": "text_delta", "text": "secret"}},
        {
            "type": "message_delta",
            "delta": {"stop_reason": "end_turn"},
            "usage": {"output_tokens": 8},
        },
        {"type": "message_stop"},
    )
    assert response_attributes(SSE, body) == {
        "gen_ai.response.id": "m-1",
        "gen_ai.response.model": "claude",
        "gen_ai.response.finish_reasons": ["end_turn"],
        "gen_ai.usage.input_tokens": 115,
        "gen_ai.usage.cache_read.input_tokens": 100,
        "gen_ai.usage.cache_creation.input_tokens": 10,
        "gen_ai.usage.output_tokens": 8,
    }


def test_a_stream_of_ollama() -> None:
    parts = [{"model": "gemma", "done": False}] * 9
    last = {"model": "gemma", "done": True, "done_reason": "stop", "prompt_eval_count": 4,
            "eval_count": 9}  # fmt: skip
    body = b"".join(json.dumps(part).encode() + b"\n" for part in (*parts, last))
    assert response_attributes(b"content-type: application/x-ndjson", body) == {
        "gen_ai.response.model": "gemma",
        "gen_ai.response.finish_reasons": ["stop"],
        "gen_ai.usage.input_tokens": 4,
        "gen_ai.usage.output_tokens": 9,
    }


@pytest.mark.parametrize(
    ("target", "operation"),
    [
        (b"/v1/chat/completions?x=1", ("chat", "openai")),
        (b"/openai/v1/completions", ("text_completion", "openai")),
        (b"/v1/embeddings", ("embeddings", "openai")),
        (b"/v1/rerank", None),
        (b"/prefix/v1/messages?beta=true", ("chat", "anthropic")),
        (b"/api/chat", ("chat", "ollama")),
        (b"/api/generate", ("text_completion", "ollama")),
        (b"/v2/models/m/generate_stream", ("text_completion", "triton")),
        (b"/v2/models/m/infer", None),
    ],
)
def test_the_operation_follows_from_the_path(
    target: bytes, operation: tuple[str, str] | None
) -> None:
    assert operation_of(target) == operation


@pytest.mark.parametrize(
    "body",
    [b"", b"[1]", b"{", b'{"usage": 1, "choices": [1], "delta": 2, "id": 3}', b"data: x\n\ndata: []",
     b'{"usage": {"prompt_tokens": true, "completion_tokens_details": 1}}', b"\xff\xfe{}",
     b"{" + b" " * MOST_BYTES + b"}", None],
)  # fmt: skip
def test_what_cannot_be_read_has_no_attributes(body: bytes | None) -> None:
    for headers in (b"", SSE, b"content-type: application/x-ndjson"):
        assert response_attributes(headers, body) == {}


def test_payloads_wait_only_where_something_is_read_from_them() -> None:
    names = Names(1, (("m", "3", "auto"),), ("champion",))
    text = f"{'a' * 32} {'0' * 16} {'1' * 16} {'2' * 16} 03 POST 1 0 ".encode()

    def record(target: bytes, body: bytes) -> bytes:
        numbers = (0, 0, 200, 0, OK, 1000.0, 30, 20, 5, 2, 2)
        _, parts = encode(
            *numbers, b"r", text, b"", target, b"", b"", body, b"{}", 0, 9, True, True
        )
        return b"".join(parts)

    data = [record(CHAT, b"{}"), record(b"/v2/models/m/infer", b"{}"), record(CHAT, b" " * 300_000)]
    records = decode_batch(b"".join(data))
    for gen_ai, expected in ((True, [b"{}", None, None]), (False, [None] * 3)):
        chosen = list(SpanSource(frozenset(), 1.0, gen_ai).choose(names, records))
        assert [one.request_body for one in chosen] == expected
        assert all(one.size < 10_000 for one in chosen)


@pytest.mark.parametrize(
    ("file", "environment", "result"),
    [
        ("", "", False),
        ("", "http/dup, gen_ai_latest_experimental", True),
        ("traces: {gen_ai: false}", "gen_ai_latest_experimental", False),
        ("traces: {gen_ai: true}", "", True),
    ],
)
def test_it_is_opted_into(file: str, environment: str, result: bool) -> None:
    text = CONFIG + f"telemetry:\n  endpoint: http://c:4318\n  {file}\n"
    config = parse(text, "test", Path("/"))
    variables = {"OTEL_SEMCONV_STABILITY_OPT_IN": environment}
    assert open_telemetry(config, variables).traces.gen_ai == result
