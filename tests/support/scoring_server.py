"""A model server with two answers that depend on the inputs: ``scoring_server.py PORT BIAS``.

It speaks the Open Inference Protocol: ``p_late``, a probability, and ``label``, a class. Every
hundredth request of a connection is answered with 500, and the connection closed.
"""

from __future__ import annotations

import asyncio
import json
import math
import sys
from typing import Any

HEAD = b"HTTP/1.1 %d %s\r\nContent-Type: application/json\r\nContent-Length: %d\r\n%s\r\n"


def answer(body: bytes, bias: float) -> dict[str, Any]:
    payload = json.loads(body)
    values = {tensor["name"]: tensor["data"][0] for tensor in payload["inputs"]}
    score = bias + 0.04 * (values["delay"] or 0.0) - 0.0004 * values["distance"]
    probability = 1.0 / (1.0 + math.exp(-score))
    return {
        "model_name": "delays",
        "model_version": "1",
        "id": payload.get("id", ""),
        "outputs": [
            {"name": "p_late", "shape": [1], "datatype": "FP64", "data": [probability]},
            {
                "name": "label",
                "shape": [1],
                "datatype": "BYTES",
                "data": ["late" if probability > 0.5 else "on time"],
            },
        ],
    }


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, bias: float) -> None:
    served = 0
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            body = await reader.readexactly(length)
            served += 1
            try:
                data, status = json.dumps(answer(body, bias)).encode(), (200, b"OK")
            except (TypeError, KeyError):
                data, status = b'{"error": "no inputs"}', (400, b"Bad Request")
            tired = served % 100 == 0
            if tired:
                data, status = b'{"error": "out of luck"}', (500, b"Internal Server Error")
            more = b"Connection: close\r\n" if tired else b""
            writer.write(HEAD % (*status, len(data), more) + data)
            await writer.drain()
            if tired:
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main(port: int, bias: float) -> None:
    server = await asyncio.start_server(
        lambda reader, writer: serve(reader, writer, bias), "127.0.0.1", port, backlog=256
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), float(sys.argv[2])))
