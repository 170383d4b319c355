"""``python -m understudy.demo.text_server PORT MILLISECONDS``: a chat model that streams.

It answers ``/v1/chat/completions`` as servers with OpenAI's API do, one token after another, each
after about MILLISECONDS. The "model" is a Markov chain over the words of ``data/speeches.txt``: the
next word is drawn from those that follow the last two. After SIGUSR1 the next stream stalls in the
middle.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
from collections.abc import AsyncIterator
from importlib.resources import files
from typing import Any

from understudy.demo.http_server import Answer, serve

MODEL = "prompter"
_FEWEST, _MOST = 20, 40
"""Tokens of an answer."""
_STALL_SECONDS = 3_600.0
_FIRST_TOKENS = 5
"""The first token takes as long as so many others: the prompt is read before it."""


class Chain:
    """Words, by the two words before them."""

    def __init__(self, text: str, seed: int) -> None:
        words = text.split()
        self._next: dict[tuple[str, str], list[str]] = {}
        for first, second, third in zip(words, words[1:], words[2:], strict=False):
            self._next.setdefault((first, second), []).append(third)
        self._starts = [pair for pair in self._next if pair[0][0].isupper()]
        self._chance = random.Random(seed)  # noqa: S311  # words, not secrets

    def words(self) -> list[str]:
        """An answer."""
        pair = self._chance.choice(self._starts)
        words = list(pair)
        for _ in range(self._chance.randint(_FEWEST, _MOST) - 2):
            pair = pair[1], self._chance.choice(self._next.get(pair) or [self._starts[0][0]])
            words.append(pair[1])
        return words


class TextServer:
    """Streams words of ``chain``, one each ``seconds`` on average."""

    def __init__(self, chain: Chain, seconds: float) -> None:
        self._chain = chain
        self._seconds = seconds
        self._stalls = False
        self._count = 0

    def stall(self) -> None:
        """Let the next stream stall."""
        self._stalls = True

    async def __call__(self, method: str, path: str, body: bytes) -> Answer:
        """Answer one request."""
        if method == "GET" and path == "/v1/models":
            model = {"id": MODEL, "object": "model", "owned_by": "understudy-demo"}
            return Answer(200, {"object": "list", "data": [model]})
        if method == "GET" and path == "/health":
            return Answer(200, {"status": "ok"})
        if method != "POST" or path != "/v1/chat/completions":
            return Answer(404, {"error": {"message": f"not found: {method} {path}"}})
        try:
            asked = json.loads(body)
            streams = bool(asked.get("stream"))
            tells = bool((asked.get("stream_options") or {}).get("include_usage"))
        except (ValueError, AttributeError) as error:
            return Answer(400, {"error": {"message": f"the request cannot be read: {error}"}})
        self._count += 1
        words = self._chain.words()
        prompt = sum(len(str(m.get("content")).split()) for m in asked.get("messages") or ())
        usage = {
            "prompt_tokens": prompt,
            "completion_tokens": len(words),
            "total_tokens": prompt + len(words),
        }
        stalls, self._stalls = self._stalls, False
        if streams:
            return Answer(
                200,
                events=self._events(f"chat-{self._count}", words, stalls, usage if tells else None),
            )
        await asyncio.sleep(self._seconds * (len(words) + _FIRST_TOKENS))
        message = {"role": "assistant", "content": " ".join(words)}
        choice = {"index": 0, "message": message, "finish_reason": "stop"}
        whole = {"object": "chat.completion", "model": MODEL, "choices": [choice], "usage": usage}
        return Answer(200, whole)

    async def _events(
        self, number: str, words: list[str], stalls: bool, usage: dict[str, int] | None
    ) -> AsyncIterator[bytes]:
        await asyncio.sleep(self._seconds * _FIRST_TOKENS)
        for place, word in enumerate(words):
            if stalls and place == len(words) // 2:
                await asyncio.sleep(_STALL_SECONDS)
            yield _event(number, {"content": word + " "}, None)
            await asyncio.sleep(self._seconds)
        yield _event(number, {}, "stop")
        if usage is not None:
            yield _encoded({**_chunk(number), "choices": [], "usage": usage})
        yield b"data: [DONE]\n\n"


def _event(number: str, delta: dict[str, Any], reason: str | None) -> bytes:
    choice = {"index": 0, "delta": delta, "finish_reason": reason}
    return _encoded({**_chunk(number), "choices": [choice]})


def _chunk(number: str) -> dict[str, Any]:
    return {"id": number, "object": "chat.completion.chunk", "model": MODEL}


def _encoded(chunk: dict[str, Any]) -> bytes:
    return f"data: {json.dumps(chunk)}\n\n".encode()


if __name__ == "__main__":
    text = (files("understudy.demo") / "data" / "speeches.txt").read_text(encoding="utf-8")
    server = TextServer(Chain(text, seed=int(sys.argv[1])), float(sys.argv[2]) / 1e3)
    serve(int(sys.argv[1]), server, {signal.SIGUSR1: server.stall})
