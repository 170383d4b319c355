"""A small ASGI application that shows what reached it; run by uvicorn in the differential test."""

from __future__ import annotations

import hashlib
import json
from typing import Any


async def app(scope: dict[str, Any], receive: Any, send: Any) -> None:
    if scope["type"] == "lifespan":
        while True:
            message = await receive()
            await send({"type": f"{message['type']}.complete"})
            if message["type"] == "lifespan.shutdown":
                return
    body = b""
    while True:
        message = await receive()
        body += message.get("body", b"")
        if not message.get("more_body"):
            break
    path = scope["path"]
    seen = {
        "method": scope["method"],
        "path": scope["raw_path"].decode("latin-1"),
        "query": scope["query_string"].decode("latin-1"),
        "headers": sorted(
            [k.decode("latin-1"), v.decode("latin-1")]
            for k, v in scope["headers"]
            if k not in (b"x-request-id", b"traceparent", b"connection", b"transfer-encoding")
        ),
        "length": len(body),
        "sha": hashlib.sha256(body).hexdigest(),
    }
    status = int(path[8:11]) if path.startswith("/status/") else 200
    content = b"" if status in (204, 304) else json.dumps(seen).encode()
    headers = [(b"x-case", b"Kept"), (b"set-cookie", b"a=1"), (b"set-cookie", b"b=2")]
    stream = path == "/stream"
    if not stream and status != 204:
        headers.append((b"content-length", str(len(content)).encode()))
    await send({"type": "http.response.start", "status": status, "headers": headers})
    if stream:
        for _ in range(5):
            await send({"type": "http.response.body", "body": content, "more_body": True})
        await send({"type": "http.response.body", "body": b""})
    else:
        await send({"type": "http.response.body", "body": content})
