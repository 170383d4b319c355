"""A model server that can misbehave, as a separate process, so that it can be killed and stopped.

``model_server.py PORT [MODE]`` answers V2 requests with the request's ``id``, so that every answer
can be checked. Modes: ``right``, ``second`` (another prediction), ``slow``, ``hang``, ``garbage``,
``big``, ``drop`` (reads and closes), ``picky`` (fails on bodies above 300 bytes), ``text`` (answers
with something that is no prediction), and those of :data:`tests.support.hostile.ANSWERS`. A request
to ``/hostile/MODE`` gets an answer of that mode. A chunked body is read until the connection ends.
"""

from __future__ import annotations

import asyncio
import json
import sys

from tests.support.hostile import ANSWERS, send, yield_to_others

PADDING = b" " * 2_000_000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"


async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mode: str) -> None:
    try:
        while True:
            head = await reader.readuntil(b"\r\n\r\n")
            if b"transfer-encoding: chunked" in head.lower():
                while await reader.read(1 << 16):
                    pass
            target = head.split(b" ", 2)[1].decode()
            hostile = target.removeprefix("/hostile/") if target.startswith("/hostile/") else mode
            length = int(head.lower().partition(b"content-length:")[2].split(b"\r\n")[0] or 0)
            body = await reader.readexactly(length)
            if hostile in ANSWERS:
                await send(writer, *ANSWERS[hostile])
                continue
            if mode == "hang":
                await asyncio.sleep(3600)
            if mode == "drop":
                break
            if mode == "slow":
                await asyncio.sleep(0.3)
            if mode == "garbage":
                writer.write(b"\x00\x01 this is not HTTP \r\n\r\n")
                break
            try:
                payload = json.loads(body)
                number = payload.get("id", "") if isinstance(payload, dict) else ""
            except ValueError:
                number = ""
            score = 0.7 if mode == "second" else 0.5
            output = {"name": "p", "shape": [1], "datatype": "FP64", "data": [score]}
            answer: dict[str, object] = {"model_name": "m", "id": number, "outputs": [output]}
            if b"x-echo: size" in head.lower():
                answer["size"] = len(body)
            data = json.dumps(answer).encode() + (PADDING if mode == "big" else b"")
            if mode == "text":
                data = b"certainly"
            head_line = HEAD % len(data)
            if mode == "picky" and length > 300:
                head_line = head_line.replace(b"200 OK", b"500 No")
            writer.write(head_line + data)
            await writer.drain()
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        writer.close()


async def main(port: int, mode: str) -> None:
    server = await asyncio.start_server(
        lambda r, w: serve(r, w, mode), "127.0.0.1", port, limit=1 << 20, backlog=1024
    )
    async with server:
        await server.serve_forever()


if __name__ == "__main__":
    if "--idle" in sys.argv:
        sys.argv.remove("--idle")
        yield_to_others()
    asyncio.run(main(int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else "right"))
