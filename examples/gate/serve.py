"""Stand-ins to try the plans on: answers that stream like those of a language model, and a small model.

    python -m examples.gate.serve --port 8080

``POST /v1/completions`` streams ``max_tokens`` events, the first after 80 ms, then one each 4 ms,
and their number;
``POST /v2/models/m/infer`` answers like a model at the edge, after 3 ms.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
from typing import Any

FIRST, EACH, EDGE = 0.08, 0.004, 0.003
_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: %s\r\n"


async def _stream(asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(FIRST)
    writer.write(_HEAD % b"text/event-stream" + b"transfer-encoding: chunked\r\n\r\n")
    count = int(asked.get("max_tokens", 16))
    for number in range(count):
        event = b"data: " + json.dumps({"choices": [{"text": f"t{number} "}]}).encode() + b"\n\n"
        writer.write(b"%x\r\n%s\r\n" % (len(event), event))
        await writer.drain()
        await asyncio.sleep(EACH)
    end = {"choices": [], "usage": {"prompt_tokens": len(asked["prompt"].split()),
                                    "completion_tokens": count}}  # fmt: skip
    event = b"data: " + json.dumps(end).encode() + b"\n\n"
    writer.write(b"%x\r\n%s\r\n" % (len(event), event))
    writer.write(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n")


async def _infer(asked: dict[str, Any], writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(EDGE)
    (tensor,) = asked["inputs"]
    score = 1.0 / (1.0 + math.exp(-sum(tensor["data"])))
    output = {"name": "y", "shape": [1, 1], "datatype": "FP32", "data": [score]}
    body = json.dumps({"model_name": "m", "outputs": [output]}).encode()
    writer.write(_HEAD % b"application/json" + b"content-length: %d\r\n\r\n" % len(body) + body)


async def _serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            lines = head.decode("latin-1").lower().split("\r\n")
            length = next(
                (int(x.split(":")[1]) for x in lines if x.startswith("content-length:")), 0
            )
            asked = json.loads(await reader.readexactly(length) or b"{}")
            path = head.split(b" ")[1]
            if path == b"/v1/completions":
                await _stream(asked, writer)
            elif path.startswith(b"/v2/models/m"):
                await _infer(asked, writer)
            else:
                writer.write(b"HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n")
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()


async def _main(port: int) -> None:
    server = await asyncio.start_server(_serve, "127.0.0.1", port, backlog=1024)
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--port", type=int, default=8080)
    try:
        asyncio.run(_main(parser.parse_args().port))
    except KeyboardInterrupt:
        pass
