"""``understudy top``: a live view of a running service in the terminal."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import click

from understudy.monitor.cli.options import (
    client_options,
    interval_option,
    json_option,
    once_option,
)

if TYPE_CHECKING:
    from understudy.monitor.cli.client import Client


@click.command()
@client_options
@interval_option(1.0)
@once_option
@json_option
def top(client: Client, interval: float, once: bool, as_json: bool) -> None:
    """Show live rates, errors, tail latencies, mirror health and drops.

    With --json, and where standard output is not a terminal, it prints the state once.

    \b
    Examples:
      understudy top
      understudy top --url http://127.0.0.1:9090 --once
      understudy top --json
    """
    from understudy.monitor.cli.top_view import run

    sys.exit(run(client, once=once, as_json=as_json, interval=interval))
