"""``understudy ingest``: records of requests that pass another proxy."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import click

from understudy.common.terminal import echo
from understudy.monitor.cli.options import (
    client_options,
    config_option,
    json_option,
    log_format_option,
    log_level_option,
)
from understudy.monitor.errors import MissingExtraError

if TYPE_CHECKING:
    from understudy.monitor.cli.client import Client


@click.group()
def ingest() -> None:
    """Make records of requests that do not pass the sidecar.

    \b
    Example:
      understudy ingest ext-proc --config understudy.yaml
    """


@ingest.command("ext-proc")
@config_option("The configuration of the service that gets the records.")
@click.option(
    "--listen",
    default="127.0.0.1:9191",
    show_default=True,
    metavar="ADDRESS",
    help="Where Envoy finds the processor: host:port, or unix:/path.",
)
@click.option(
    "--arm",
    "arms",
    multiple=True,
    metavar="CLUSTER=ARM",
    help="The arm behind a cluster of Envoy; a cluster with the name of an arm is that arm. Repeat "
    "it for several. Everything else is the champion.",
)
@click.option(
    "--mirrored",
    metavar="ARM",
    help="All requests are mirrored ones, which this arm answers: for the Envoy in front of a "
    "challenger.",
)
@client_options
@json_option
@log_level_option
@log_format_option
def ext_proc(
    config_path: Path,
    listen: str,
    client: Client,
    arms: tuple[str, ...],
    mirrored: str | None,
    as_json: bool,
    log_level: str,
    log_format: str,
) -> None:
    """Run an external processor for an Envoy, or Istio, that is there already.

    Envoy tells it in observability mode what passes: path, headers and bodies become records, and
    no request waits for it. They are posted to the control API of the service with the same
    configuration. Bodies are kept up to capture.max_body.

    SIGTERM and Ctrl-C send what is left, and exit 0.

    \b
    Examples:
      understudy ingest ext-proc --config understudy.yaml
      understudy ingest ext-proc --listen 0.0.0.0:9191 --arm delays-v2=candidate
    """
    import asyncio

    from understudy.monitor.config.load import load
    from understudy.monitor.evidence.settings import Settings
    from understudy.monitor.ingest.poster import RecordPoster
    from understudy.monitor.ingest.service import EXTERNAL_PROCESSOR
    from understudy.monitor.logs import set_up

    set_up(log_level, log_format)
    try:
        from understudy.monitor.ingest.processor_server import (
            ExternalProcessor,
            serve,
            summary,
        )
    except ImportError as error:
        raise MissingExtraError(
            "ingest ext-proc needs grpcio: pip install 'understudy-serving[grpc]'"
        ) from error
    config = load(config_path)
    settings = Settings.from_json(config.model_dump(mode="json", by_alias=True))
    known = settings.arms
    by_cluster = {name: name for name in known} | dict(_pair(text, known) for text in arms)
    if mirrored is not None and mirrored not in known:
        raise click.BadParameter(_unknown(mirrored, known), param_hint="--mirrored")
    extra = {} if mirrored is None else {"arm": mirrored, "role": "mirror"}
    poster = RecordPoster(client.url, client.token, EXTERNAL_PROCESSOR)
    processor = ExternalProcessor(
        poster, config.capture.max_body, {} if mirrored else by_cluster, extra
    )

    async def run() -> None:
        stop = asyncio.Event()
        for number in (signal.SIGINT, signal.SIGTERM):
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
        await serve(listen, processor, poster, stop)

    try:
        asyncio.run(run())
    finally:
        poster.close()
    found = summary(processor, poster)
    if as_json:
        echo(json.dumps(found))
    else:
        echo(f"{found['sent']:,} records sent, {found['dropped']:,} dropped")


def _pair(text: str, known: tuple[str, ...]) -> tuple[str, str]:
    cluster, equals, arm = text.partition("=")
    if not cluster or not equals:
        raise click.BadParameter(f"{text!r} is not CLUSTER=ARM", param_hint="--arm")
    if arm not in known:
        raise click.BadParameter(_unknown(arm, known), param_hint="--arm")
    return cluster, arm


def _unknown(arm: str, known: tuple[str, ...]) -> str:
    return f"{arm!r} is not an arm of the configuration: {', '.join(known)}"
