"""A server of language models in a thread: OpenAI's, Anthropic's and Ollama's protocols, whole and
as streams. What it does is named by the request's ``model``.

========== =====================================================================================
text       answers with :data:`WORDS`
tools      calls a tool
refused    answers 429, in the protocol's words
invalid    answers 400
broken     a stream with an error in the middle
cut        a stream that ends without its end mark
endless    a stream that goes on until its client leaves
========== =====================================================================================
"""

from __future__ import annotations

import json
import threading
import time
from collections import Counter
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from tests.support.llm_streams import chunk, delta, sse

WORDS = ("To be, ", "or not ", "to be: ", "日本 ", "naïve.")
USAGE = {"prompt_tokens": 9, "completion_tokens": 5, "total_tokens": 14}
ARGUMENTS = {"city": "Paris"}
_PAUSE_SECONDS = 0.005


class LanguageModelServer:
    """The server, on a free port. ``seen`` counts requests by path, ``left`` streams whose client
    went away."""

    def __init__(self) -> None:
        self.seen: Counter[str] = Counter()
        self.left = 0
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._server.server_port}"

    def __enter__(self) -> LanguageModelServer:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    owner: LanguageModelServer

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        self._whole(200, {"status": "ok"})

    def do_POST(self) -> None:
        asked = json.loads(self.rfile.read(int(self.headers["content-length"])))
        path = self.path.partition("?")[0]
        self.owner.seen[path] += 1
        model = asked.get("model", "text")
        if model in ("refused", "invalid"):
            return self._whole(*_error(path, model))
        # Ollama streams unless it is told not to.
        streams = asked.get("stream", path.startswith("/api/"))
        if path.endswith(("/embeddings", "/embed")) or not streams:
            return self._whole(200, _WHOLE[path](model))
        return self._stream(path, _STREAMS[path](model))

    def _whole(self, status: int, body: object) -> None:
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(data)))
        for name in ("request-id", "x-request-id"):  # of Anthropic, of OpenAI
            self.send_header(name, "req-1")
        self.end_headers()
        self.wfile.write(data)

    def _stream(self, path: str, events: Iterator[bytes]) -> None:
        self.send_response(200)
        lines = path.startswith("/api/")
        kind = "application/x-ndjson" if lines else "text/event-stream; charset=utf-8"
        self.send_header("content-type", kind)
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        try:
            for event in events:
                self.wfile.write(b"%x\r\n%s\r\n" % (len(event), event))
                self.wfile.flush()
                time.sleep(_PAUSE_SECONDS)
            self.wfile.write(b"0\r\n\r\n")
        except OSError:
            self.owner.left += 1
            self.close_connection = True


def _error(path: str, model: str) -> tuple[int, object]:
    status = 429 if model == "refused" else 400
    kind = "rate_limit_error" if status == 429 else "invalid_request_error"
    message = f"this request is {model}"
    if path.startswith("/api/"):
        return status, {"error": message}
    if path.endswith("/messages"):
        return status, {"type": "error", "error": {"type": kind, "message": message}}
    return status, {"error": {"message": message, "type": kind, "param": None, "code": None}}


# OpenAI's chat ------------------------------------------------------------------------------------


def _chat(model: str) -> object:
    message: dict[str, Any] = {"role": "assistant", "content": "".join(WORDS)}
    if model == "tools":
        function = {"name": "weather", "arguments": json.dumps(ARGUMENTS)}
        call = {"id": "t1", "type": "function", "function": function}
        message = {"role": "assistant", "content": None, "tool_calls": [call]}
    reason = "tool_calls" if model == "tools" else "stop"
    choice = {"index": 0, "message": message, "finish_reason": reason, "logprobs": None}
    return {"id": "c1", "object": "chat.completion", "created": 1, "model": model,
            "choices": [choice], "usage": USAGE}  # fmt: skip


def _of_chat(*choices: dict[str, Any], **more: Any) -> bytes:
    return sse({**chunk(*choices, **more), "created": 1, "model": "m"})


def _chat_stream(model: str) -> Iterator[bytes]:
    yield b": keep-alive\n\n"
    yield _of_chat(delta(role="assistant", content=""))
    while model == "endless":
        yield _of_chat(delta(content="on "))
    if model == "tools":
        function = {"name": "weather", "arguments": ""}
        call: dict[str, Any] = {"index": 0, "id": "t1", "type": "function", "function": function}
        yield _of_chat(delta(tool_calls=[call]))
        for piece in ('{"city": ', '"Paris"}'):
            yield _of_chat(delta(tool_calls=[{"index": 0, "function": {"arguments": piece}}]))
    else:
        for place, word in enumerate(WORDS):
            if place == 2 and model == "cut":
                return
            if place == 2 and model == "broken":
                yield sse({"error": {"message": "boom", "type": "server_error", "code": 500}})
                yield sse("[DONE]")
                return
            yield _of_chat(delta(content=word))
    yield _of_chat(delta("tool_calls" if model == "tools" else "stop"))
    yield _of_chat(usage=USAGE)
    yield sse("[DONE]")


# OpenAI's responses -------------------------------------------------------------------------------


def _response(model: str, text: str = "".join(WORDS), status: str = "completed") -> dict[str, Any]:
    content = {"type": "output_text", "text": text, "annotations": []}
    item: dict[str, Any] = {"type": "message", "id": "m1", "role": "assistant",
                            "status": "completed", "content": [content]}  # fmt: skip
    if model == "tools":
        item = {"type": "function_call", "id": "f1", "call_id": "t1", "name": "weather",
                "arguments": json.dumps(ARGUMENTS), "status": "completed"}  # fmt: skip
    usage = {"input_tokens": 9, "input_tokens_details": {"cached_tokens": 0}, "output_tokens": 5,
             "output_tokens_details": {"reasoning_tokens": 0}, "total_tokens": 14}  # fmt: skip
    return {"id": "r1", "object": "response", "created_at": 1, "model": model, "status": status,
            "error": None, "output": [item], "parallel_tool_calls": True, "tool_choice": "auto",
            "tools": [], "usage": usage}  # fmt: skip


def _response_stream(model: str) -> Iterator[bytes]:
    number = 0

    def event(kind: str, **more: Any) -> bytes:
        nonlocal number
        number += 1
        return sse((kind, {"type": kind, "sequence_number": number, **more}))

    begun = {**_response(model, status="in_progress"), "output": [], "usage": None}
    yield event("response.created", response=begun)
    while model == "endless":
        yield event("response.output_text.delta", item_id="m1", output_index=0, content_index=0,
                    delta="on ", logprobs=[])  # fmt: skip
    for place, word in enumerate(WORDS):
        if place == 2 and model == "broken":
            failed = {**_response(model, status="failed"), "error": {"code": "server_error",
                                                                     "message": "boom"}}  # fmt: skip
            yield event("response.failed", response=failed)
            return
        yield event("response.output_text.delta", item_id="m1", output_index=0, content_index=0,
                    delta=word, logprobs=[])  # fmt: skip
    yield event("response.completed", response=_response(model))


# Anthropic's messages -----------------------------------------------------------------------------


def _message(model: str) -> dict[str, Any]:
    content: dict[str, Any] = {"type": "text", "text": "".join(WORDS)}
    if model == "tools":
        content = {"type": "tool_use", "id": "t1", "name": "weather", "input": ARGUMENTS}
    return {"id": "msg_1", "type": "message", "role": "assistant", "model": model,
            "content": [content], "stop_reason": "tool_use" if model == "tools" else "end_turn",
            "stop_sequence": None, "usage": {"input_tokens": 9, "output_tokens": 5}}  # fmt: skip


def _message_stream(model: str) -> Iterator[bytes]:
    def event(kind: str, **more: Any) -> bytes:
        return sse((kind, {"type": kind, **more}))

    yield event("message_start", message={**_message(model), "content": [], "stop_reason": None,
                                          "usage": {"input_tokens": 9, "output_tokens": 1}})  # fmt: skip
    block: dict[str, Any] = {"type": "text", "text": ""}
    if model == "tools":
        block = {"type": "tool_use", "id": "t1", "name": "weather", "input": {}}
    yield event("content_block_start", index=0, content_block=block)
    yield event("ping")
    pieces = ('{"city": ', '"Paris"}') if model == "tools" else WORDS
    name, kind = (
        ("partial_json", "input_json_delta") if model == "tools" else ("text", "text_delta")
    )
    while model == "endless":
        yield event("content_block_delta", index=0, delta={"type": kind, name: "on "})
    for place, piece in enumerate(pieces):
        if place == 2 and model == "cut":
            return
        if place == 2 and model == "broken":
            yield event("error", error={"type": "overloaded_error", "message": "boom"})
            return
        yield event("content_block_delta", index=0, delta={"type": kind, name: piece})
    yield event("content_block_stop", index=0)
    reason = "tool_use" if model == "tools" else "end_turn"
    yield event("message_delta", delta={"stop_reason": reason, "stop_sequence": None},
                usage={"output_tokens": 5})  # fmt: skip
    yield event("message_stop")


# Ollama -------------------------------------------------------------------------------------------

_DONE = {"done": True, "done_reason": "stop", "total_duration": 9, "load_duration": 1,
         "prompt_eval_count": 9, "prompt_eval_duration": 1, "eval_count": 5, "eval_duration": 5}  # fmt: skip


def _ollama(model: str, text: str, **more: Any) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": text}
    if model == "tools":
        function = {"name": "weather", "arguments": ARGUMENTS}
        message = {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
    return {"model": model, "created_at": "2026-11-30T00:00:00Z", "message": message, **more}


def _ollama_stream(model: str) -> Iterator[bytes]:
    def line(one: object) -> bytes:
        return json.dumps(one, ensure_ascii=False).encode() + b"\n"

    while model == "endless":
        yield line(_ollama(model, "on ", done=False))
    for place, word in enumerate(("",) if model == "tools" else WORDS):
        if place == 2 and model == "cut":
            return
        if place == 2 and model == "broken":
            yield line({"error": "boom"})
            return
        yield line(_ollama(model, word, done=False))
    yield line({**_ollama("text", ""), "model": model, **_DONE})


def _vectors(model: str) -> object:
    one = {"object": "embedding", "index": 0, "embedding": [0.25, -0.5]}
    return {"object": "list", "model": model, "data": [one],
            "usage": {"prompt_tokens": 2, "total_tokens": 2}}  # fmt: skip


_WHOLE = {
    "/v1/chat/completions": _chat,
    "/v1/responses": _response,
    "/v1/messages": _message,
    "/v1/embeddings": _vectors,
    "/api/chat": lambda model: {**_ollama(model, "".join(WORDS)), **_DONE},
    "/api/embed": lambda model: {"model": model, "embeddings": [[0.25, -0.5]]},
}
_STREAMS = {
    "/v1/chat/completions": _chat_stream,
    "/v1/responses": _response_stream,
    "/v1/messages": _message_stream,
    "/api/chat": _ollama_stream,
}
