"""``understudy serve``: run the sidecar."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from understudy import __version__
from understudy.common.terminal import echo
from understudy.monitor.cli.options import config_option, log_format_option, log_level_option

if TYPE_CHECKING:
    from understudy.monitor.supervisor.supervisor import Supervisor


@click.command()
@config_option()
@log_level_option
@log_format_option
@click.option(
    "--part",
    type=click.Choice(["all", "data-plane", "evaluation-plane"]),
    default="all",
    show_default=True,
    help="What to run here. The two parts may run in two containers that share `state_dir` and "
    "/dev/shm.",
)
def serve(config_path: Path, log_level: str, log_format: str, part: str) -> None:
    """Run the proxy in front of a model server: forward, mirror, measure.

    SIGHUP reads the configuration again, and so does a change of the file with `reload: watch`. An
    invalid one is rejected, and the running configuration stays active. SIGTERM and Ctrl-C let
    requests finish and stop; a second one stops at once.

    Exits 0 after an orderly stop, 1 when stopped at once, 2 when it cannot start: the configuration
    is invalid, an address is taken or the state directory is in use.

    \b
    Example:
      understudy serve --config understudy.yaml
    """
    import asyncio
    import os

    from understudy.monitor.logs import set_up
    from understudy.monitor.proxy.descriptors import raise_limit
    from understudy.monitor.supervisor.companion import Companion
    from understudy.monitor.supervisor.supervisor import Supervisor

    set_up(log_level, log_format)
    # Files of the service hold payloads and headers: they are for its user, whatever the shell set.
    os.umask(0o077)
    raise_limit()

    async def run() -> int:
        if part == "evaluation-plane":
            return await Companion(config_path).run()
        return await Supervisor(config_path, _announce, separate=part == "data-plane").run()

    sys.exit(asyncio.run(run()))


def _announce(supervisor: Supervisor) -> None:
    listen, champion = supervisor.config.listen, supervisor.config.champion
    scheme = "http" if listen.tls is None else "https"
    count = len(supervisor.workers)
    control = f"http://{supervisor.control_address}"
    echo(
        f"understudy {__version__} is ready: {scheme}://{supervisor.address} -> "
        f"{champion.name} {champion.url} ({count} worker{'s' if count > 1 else ''}); "
        f"status {control}/ metrics {control}/metrics"
    )
