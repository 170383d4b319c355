"""A model server that can misbehave, as a separate process, so that it can be killed and stopped.

``model_server.py PORT [MODE [HOST]]`` answers V2 requests with the request's ``id``, so that every
answer can be checked, and HOST as the model's version. SIGTERM ends it as servers
end: it accepts no more connections, closes those that are idle, and the others behind their answer.
Modes: ``right``, ``second`` (another prediction), ``slow``, ``hang``, ``garbage``,
``big``, ``drop`` (reads and closes), ``picky`` (fails on bodies above 300 bytes), ``half`` (fails at
every second request), ``text`` (answers with something that is no prediction), and those of :data:`tests.support.hostile.ANSWERS`. A request
to ``/hostile/MODE`` gets an answer of that mode, one of a chat :data:`CHAT`. A chunked body is read until the connection ends.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import signal
import sys

from tests.support.hostile import ANSWERS, send, yield_to_others

PADDING = b" " * 2_000_000
HEAD = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
CHAT = json.dumps(
    {
        "object": "chat.completion",
        "choices": [{"index": 0, "message": {"content": "yes"}, "finish_reason": "stop"}],
        "usage": {"prompt_tokens": 3, "completion_tokens": 1, "total_tokens": 4},
    }
).encode()


ending = asyncio.Event()
requests = itertools.count()
idle: set[asyncio.StreamWriter] = set()
"""Connections without a request."""


async def serve(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, mode: str, host: str
) -> None:
    try:
        while True:
            idle.add(writer)
            head = await reader.readuntil(b"\r\n\r\n")
            idle.discard(writer)
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
            if target.endswith("/chat/completions"):
                writer.write(HEAD % len(CHAT) + CHAT)
                continue
            try:
                payload = json.loads(body)
                number = payload.get("id", "") if isinstance(payload, dict) else ""
            except ValueError:
                number = ""
            score = 0.7 if mode == "second" else 0.5
            output = {"name": "p", "shape": [1], "datatype": "FP64", "data": [score]}
            answer: dict[str, object] = {"model_name": "m", "id": number, "outputs": [output]}
            answer["model_version"] = host
            if b"x-echo: size" in head.lower():
                answer["size"] = len(body)
            data = json.dumps(answer).encode() + (PADDING if mode == "big" else b"")
            if mode == "text":
                data = b"certainly"
            head_line = HEAD % len(data)
            if (mode == "picky" and length > 300) or (mode == "half" and next(requests) % 2):
                head_line = head_line.replace(b"200 OK", b"500 No")
            if ending.is_set():
                head_line = head_line.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n")
            writer.write(head_line + data)
            await writer.drain()
            if ending.is_set():
                break
    except (asyncio.IncompleteReadError, ConnectionError):
        pass
    finally:
        idle.discard(writer)
        writer.close()


async def main(port: int, mode: str, host: str) -> None:
    server = await asyncio.start_server(
        lambda r, w: serve(r, w, mode, host), host, port, limit=1 << 20, backlog=1024
    )
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ending.set)
    await ending.wait()
    server.close()
    for writer in tuple(idle):
        writer.close()
    while len(asyncio.all_tasks()) > 1:
        await asyncio.sleep(0.01)


if __name__ == "__main__":
    if "--idle" in sys.argv:
        sys.argv.remove("--idle")
        yield_to_others()
    given = sys.argv[1:]
    port, mode, host = given + ["", "right", "127.0.0.1"][len(given) :]
    asyncio.run(main(int(port), mode, host))
