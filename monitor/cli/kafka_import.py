"""``understudy kafka import``."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
from pathlib import Path

import click

from understudy.common.terminal import echo
from understudy.monitor.cli.options import FILE, json_option
from understudy.monitor.errors import ConfigError


@click.command("import")
@click.argument("config", type=FILE)
@click.option(
    "--instance",
    help="Unique name of this importer, which must stay the same after a restart. Default: host "
    "and process id.",
)
@click.option("--once", is_flag=True, help="Exit when all messages that exist now are imported.")
@json_option
@click.option(
    "--session",
    type=click.FloatRange(1, 300),
    default=15.0,
    show_default=True,
    help="Seconds without a heartbeat after which the group takes over its partitions.",
)
def import_(config: Path, instance: str | None, once: bool, as_json: bool, session: float) -> None:
    """Import the topics of `sources:` in CONFIG for the evaluators.

    Messages that others have logged become records and labels as if a sidecar had published them,
    each exactly once; what cannot be used goes to the dead letter topic with a reason. Several
    importers divide the partitions. Evaluators do this themselves; use this command for a separate
    process or a single run. SIGTERM and Ctrl-C finish, commit and leave.

    \b
    Examples:
      understudy kafka import understudy.yaml
      understudy kafka import understudy.yaml --once --json
    """
    from understudy.monitor.config.load import load
    from understudy.monitor.kafka.evaluator import topic_partitions
    from understudy.monitor.kafka.importing import Importer
    from understudy.monitor.kafka.options import Options, kafka_of
    from understudy.monitor.kafka.retrying import RetryingConsumer
    from understudy.monitor.logs import set_up

    set_up("info", "text")
    logging.getLogger("kafka").setLevel(logging.ERROR)
    whole = load(config)
    if not whole.sources:
        message = "is missing: name the topics to import, and how to read them"
        raise ConfigError(str(config), [("sources", message)])
    name = instance or f"{socket.gethostname()}-{os.getpid()}"
    options = Options(kafka_of(whole), name, 1.0, session, max(10.0, session))
    topic_partitions(options)
    keeper = RetryingConsumer(lambda: Importer(whole, options))
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: keeper.stop())
    keeper.run((lambda member, count: count == 0 and member.remaining() == 0) if once else None)
    taken = keeper.counts()
    if as_json:
        echo(json.dumps({sort: taken[sort] for sort in ("records", "labels", "dead")}))
    else:
        echo(
            f"imported {taken['records']:,} records and {taken['labels']:,} labels; "
            f"{taken['dead']:,} messages went to the dead-letter topic"
        )
