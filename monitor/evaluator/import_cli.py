"""``understudy kafka import``."""

from __future__ import annotations

import json
import logging
import os
import signal
import socket
import time
from pathlib import Path
from typing import Any

import click

from monitor.config.load import load
from monitor.errors import ConfigError, KafkaTroubleError, LostError

log = logging.getLogger(__name__)

_PAUSE_SECONDS = 2.0


@click.command("import")
@click.argument("config", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--instance",
    help="Name among the importers; the same again after a restart. By default host and process.",
)
@click.option("--once", is_flag=True, help="End when everything that is there was brought in.")
@click.option(
    "--json", "as_json", is_flag=True, help="Print what was brought in as JSON at the end."
)
@click.option(
    "--session",
    type=click.FloatRange(1, 300),
    default=15.0,
    show_default=True,
    help="Seconds of silence after which the group goes on without this importer.",
)
def import_(config: Path, instance: str | None, once: bool, as_json: bool, session: float) -> None:
    """Bring the topics of `sources:` in CONFIG to the evaluators.

    Messages that others have logged become records and labels as if a sidecar had published them,
    each exactly once; what cannot be used goes to the topic of dead letters with a reason. Several
    importers divide the partitions. SIGTERM and Ctrl-C finish, commit and leave.

    \b
    Examples:
      understudy kafka import understudy.yaml
      understudy kafka import understudy.yaml --once --json
    """
    from kafka.errors import KafkaError

    from monitor.evaluator.importing import Importer
    from monitor.evaluator.topics import Options, kafka_of
    from monitor.logs import set_up
    from monitor.transport.kafka.client import told

    set_up("info", "text")
    logging.getLogger("kafka").setLevel(logging.ERROR)
    whole = load(config)
    if not whole.sources:
        message = "are not there: name the topics to bring in, and how to read them"
        raise ConfigError(str(config), [("sources", message)])
    name = instance or f"{socket.gethostname()}-{os.getpid()}"
    options = Options(kafka_of(whole), name, 1.0, session, max(10.0, session))
    stopping: list[int] = []
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda which, _: stopping.append(which))
    done = [0, 0, 0]
    while True:
        importer: Importer | None = None
        try:
            importer = Importer(whole, options)
            _run(importer, stopping, once)
            break
        except (KafkaError, LostError) as error:
            if importer is None and once:
                raise KafkaTroubleError(f"Kafka cannot be used: {told(error)}") from error
            log.warning("begins anew at what is committed: %s", told(error))
            if importer is not None:
                importer.abandon()
            if stopping:
                break
            time.sleep(_PAUSE_SECONDS)
        finally:
            if importer is not None:
                done = [a + b for a, b in zip(done, importer.committed, strict=True)]
    records, labels, dead = done
    if as_json:
        click.echo(json.dumps({"records": records, "labels": labels, "dead": dead}))
    else:
        click.echo(
            f"{records:,} records and {labels:,} labels were brought in, {dead:,} messages could "
            "not be used"
        )


def _run(importer: Any, stopping: list[int], once: bool) -> None:
    while not stopping:
        if importer.step() == 0 and once and importer.lag() == 0:
            break
    importer.leave()
