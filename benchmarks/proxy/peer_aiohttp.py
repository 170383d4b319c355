"""A reverse proxy as one would write it with aiohttp: ``peer_aiohttp.py PORT UPSTREAM_PORT``."""

from __future__ import annotations

import sys

import aiohttp
import uvloop
from aiohttp import web

HOP = {"connection", "keep-alive", "transfer-encoding", "te", "upgrade", "content-length", "host"}


def kept(headers: object) -> dict[str, str]:
    return {k: v for k, v in headers.items() if k.lower() not in HOP}  # type: ignore[attr-defined]


async def main(port: int, upstream: int) -> web.Application:
    session = aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=256), auto_decompress=False
    )

    async def forward(request: web.Request) -> web.Response:
        url = f"http://127.0.0.1:{upstream}{request.rel_url}"
        body = await request.read()
        async with session.request(
            request.method, url, headers=kept(request.headers), data=body
        ) as answer:
            content = await answer.read()
            return web.Response(status=answer.status, headers=kept(answer.headers), body=content)

    app = web.Application(client_max_size=1 << 30)
    app.router.add_route("*", "/{path:.*}", forward)
    return app


if __name__ == "__main__":
    own, other = int(sys.argv[1]), int(sys.argv[2])
    uvloop.install()
    web.run_app(main(own, other), host="127.0.0.1", port=own, access_log=None, print=None)
