"""``understudy fault-proxy``: faults for TCP connections, by Toxiproxy's API."""

from __future__ import annotations

import contextlib
import sys

import click

from understudy.common.terminal import echo, echo_lines
from understudy.loadtest.errors import LoadTestError

PORT = 8474
"""Default port of the API, as in Toxiproxy."""


@click.command("fault-proxy")
@click.option("--host", default="127.0.0.1", show_default=True, help="Address of the API.")
@click.option("--port", default=PORT, show_default=True, help="Port of the API.")
def fault_proxy(host: str, port: int) -> None:
    """Run a TCP proxy whose connections can be slowed, cut, truncated or corrupted.

    It speaks the HTTP API of Toxiproxy, so that its clients and chaostoolkit-toxiproxy drive it.
    It runs until it is interrupted. Exit code 2: the port cannot be used.

    \b
    Examples:
      understudy fault-proxy
      curl -d '{"name": "model", "listen": "127.0.0.1:9000", "upstream": "127.0.0.1:8080"}' \\
          http://127.0.0.1:8474/proxies
      curl -d '{"type": "latency", "attributes": {"latency": 200, "jitter": 50}}' \\
          http://127.0.0.1:8474/proxies/model/toxics
    """

    import asyncio

    from understudy.loadtest.faultproxy.server import FaultProxy

    def ready(url: str) -> None:
        echo(f"fault proxy: API on {url}", err=True)

    try:
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(FaultProxy(host, port).serve(ready))
    except LoadTestError as error:
        echo_lines(f"understudy: {error}", err=True)
        sys.exit(2)
