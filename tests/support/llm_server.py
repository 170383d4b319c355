"""A server of a language model for tests of the gate: it streams as vLLM does, with known delays."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

from tests.support.load_server import Served

_SERVER = """
import asyncio, itertools, json, sys
port, how, log = int(sys.argv[1]), json.loads(sys.argv[2]), sys.argv[3]
numbers = itertools.count()
def event(value):
    data = value if isinstance(value, str) else json.dumps(value)
    text = ("data: " + data + "\\n\\n").encode()
    return b"%x\\r\\n%s\\r\\n" % (len(text), text)
def chunk(finish=None, **delta):
    return {"id": "c", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}
async def main():
    slots = asyncio.Semaphore(how.get("slots", 1000))
    async def serve(reader, writer):
        try:
            while True:
                head = await reader.readuntil(b"\\r\\n\\r\\n")
                length = 0
                for line in head.split(b"\\r\\n"):
                    if line.lower().startswith(b"content-length:"):
                        length = int(line.split(b":")[1])
                request = json.loads(await reader.readexactly(length))
                number = next(numbers)
                with open(log, "a") as file:
                    file.write(json.dumps(request) + "\\n")
                if not request.get("stream"):
                    whole = b'{"choices": [{"message": {"content": "word"}}]}'
                    writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-type: application/json\\r\\n"
                                 b"content-length: %d\\r\\n\\r\\n%s" % (len(whole), whole))
                    continue
                async with slots:
                    writer.write(b"HTTP/1.1 200 OK\\r\\ncontent-type: text/event-stream\\r\\n"
                                 b"transfer-encoding: chunked\\r\\n\\r\\n")
                    writer.write(event(chunk(role="assistant", content="")))
                    await writer.drain()
                    await asyncio.sleep(how.get("first", 0))
                    tokens = request.get("max_tokens", 4)
                    bad = number % how.get("every", 1) == 0 and number >= how.get("after", 0)
                    kind = how.get("bad") if bad else None
                    for index in range(tokens):
                        writer.write(event(chunk(content="word ")))
                        await writer.drain()
                        if kind == "stall" and index == 0:
                            await asyncio.sleep(how["stalled"])
                        if kind == "error" and index == 1:
                            writer.write(event({"error": {"message": "boom", "code": 500}}))
                            break
                        if kind == "cut" and index == 1:
                            writer.close()
                            return
                        if index + 1 < tokens:
                            await asyncio.sleep(how.get("gap", 0))
                    if kind is None or kind == "stall":
                        writer.write(event(chunk("length")))
                    if kind != "truncated" and request.get("stream_options") and how.get("usage", True):
                        words = sum(len(m["content"].split()) for m in request.get("messages", ()))
                        writer.write(event({"choices": [], "usage": {
                            "prompt_tokens": words, "completion_tokens": tokens}}))
                    if kind != "truncated":
                        writer.write(event("[DONE]"))
                    writer.write(b"0\\r\\n\\r\\n")
                    await writer.drain()
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()
    server = await asyncio.start_server(serve, "127.0.0.1", port, backlog=1024)
    await server.serve_forever()
asyncio.run(main())
"""


_NUMBERS = itertools.count()
"""One of each server of this process, for the name of its log."""


class LlmServer(Served):
    """Streams ``max_tokens`` words, the first ``first`` seconds after the role chunk, the others
    ``gap`` seconds apart; ``slots`` requests are worked on at the same time, the rest wait.

    ``bad`` is what goes wrong in every request whose number is a multiple of ``every`` and at least
    ``after`` (the first one, of the preflight, is 0): ``error``
    (an error in the stream), ``truncated`` (no end mark), ``cut`` (the connection ends) or
    ``stall`` (``stalled`` seconds of silence after the first token). Requests are kept in
    ``log``, one a line.
    """

    def __init__(self, folder: Path, **how: object) -> None:
        self.log = folder / f"requests-{next(_NUMBERS)}.jsonl"
        super().__init__(_SERVER, json.dumps(how), str(self.log))

    def requests(self) -> list[dict[str, object]]:
        return [json.loads(line) for line in self.log.read_text().splitlines()]
