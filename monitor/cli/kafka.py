"""``understudy kafka``: create the topics, and show their state."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from understudy.monitor.cli.kafka_import import import_
from understudy.monitor.cli.options import FILE, json_option
from understudy.monitor.errors import ConfigError, KafkaTroubleError, MissingExtraError

if TYPE_CHECKING:
    from understudy.monitor.config.kafka import Kafka
    from understudy.monitor.config.model import Config

_OK, _WRONG = 0, 1
_SETTLE_SECONDS = 10.0


@click.group()
def kafka() -> None:
    """Manage the topics for `evaluation: kafka`.

    \b
    Examples:
      understudy kafka init understudy.yaml --dry-run
      understudy kafka status understudy.yaml
      understudy kafka import understudy.yaml --once
    """


@kafka.command()
@click.argument("config", type=FILE)
@click.option("--dry-run", is_flag=True, help="Print what would be done, and change nothing.")
@click.option("--alter", is_flag=True, help="Change settings of existing topics to what is needed.")
@json_option
def init(config: Path, dry_run: bool, alter: bool, as_json: bool) -> None:
    """Create the topics that CONFIG needs.

    It can be called again at any time: existing topics stay as they are. Settings that differ from
    those that are needed are printed, and the exit code is 1. --alter changes settings; partitions
    and replication are never changed, since records would no longer meet their labels.

    \b
    Examples:
      understudy kafka init understudy.yaml --dry-run
      understudy kafka init understudy.yaml
      understudy kafka init understudy.yaml --alter --json
    """
    whole, of_kafka = _config(config)
    with _admin(of_kafka) as admin:
        from understudy.monitor.kafka.topics import wanted

        topics = wanted(of_kafka, whole.feedback.horizon)
        missing = admin.missing(topics)
        brokers = admin.brokers()
        if missing and of_kafka.replication > brokers:
            raise KafkaTroubleError(
                f"kafka.replication is {of_kafka.replication}, but there are {brokers} brokers: set"
                f" it to {brokers} at most"
            )
        differences = admin.differences(topics)
        if not dry_run:
            admin.create(missing)
            if alter:
                admin.alter(differences)
            until = time.monotonic() + _SETTLE_SECONDS
            while admin.missing(topics) and time.monotonic() < until:
                time.sleep(0.1)  # new topics propagate from broker to broker
    left = [one for one in differences if dry_run or not (alter and one.fixable)]
    if as_json:
        _print(
            {
                "dry_run": dry_run,
                "created": [_topic(topic) for topic in missing],
                "unchanged": [t.name for t in topics if t not in missing],
                "altered": [_difference(one) for one in differences if one not in left],
                "differences": [_difference(one) for one in left],
            }
        )
    else:
        would = "would be created" if dry_run else "created"
        for topic in topics:
            shape = f"{topic.partitions} partitions, {topic.replication} copies each"
            text = f"{would}: {shape}, {topic.config['cleanup.policy']}"
            click.echo(f"{topic.name}: {text if topic in missing else 'is there'}")
        for one in differences:
            if one not in left:
                click.echo(f"{one.topic}: {one.what} was {one.is_}, is {one.wanted} now")
        for one in left:
            how = "--alter changes it" if one.fixable else _cure(one.what)
            text = f"{one.topic}: {one.what} is {one.is_}, and should be {one.wanted}: {how}"
            click.echo(text, err=True)
    raise SystemExit(_WRONG if left else _OK)


@kafka.command()
@click.argument("config", type=FILE)
@json_option
def status(config: Path, as_json: bool) -> None:
    """Show topics, partitions, and the lag of the evaluators.

    The exit code is 1 when a topic is missing, or a partition has no leader or too few replicas.

    \b
    Examples:
      understudy kafka status understudy.yaml
      understudy kafka status understudy.yaml --json | jq .topics
    """
    _, of_kafka = _config(config)
    with _admin(of_kafka) as admin:
        result = admin.status()
    if as_json:
        _print(result)
    else:
        _show(result)
    raise SystemExit(_WRONG if result["problems"] else _OK)


kafka.add_command(import_)


def _config(path: Path) -> tuple[Config, Kafka]:
    from understudy.monitor.config.load import load

    config = load(path)
    if config.kafka is None:
        message = "is missing: name the brokers, as in `kafka: {bootstrap: host:9092}`"
        raise ConfigError(str(path), [("kafka", message)])
    return config, config.kafka


@contextmanager
def _admin(of_kafka: Kafka) -> Iterator[Any]:
    try:
        from understudy.monitor.kafka.client import silence_kafka_log
        from understudy.monitor.kafka.topics import Admin
    except ImportError as error:
        raise MissingExtraError(
            "Kafka needs kafka-python: pip install 'understudy-serving[kafka]'"
        ) from error
    silence_kafka_log()  # we report errors ourselves, once
    admin = Admin(of_kafka)
    try:
        yield admin
    finally:
        admin.close()


def _cure(what: str) -> str:
    if what == "partitions":
        return "set kafka.partitions to it, or use another kafka.prefix"
    return "set kafka.replication to it, or move partitions with Kafka's own tools"


def _topic(topic: Any) -> dict[str, Any]:
    return {
        "topic": topic.name,
        "partitions": topic.partitions,
        "replication": topic.replication,
        "config": dict(topic.config),
    }


def _difference(one: Any) -> dict[str, Any]:
    return {
        "topic": one.topic,
        "what": one.what,
        "is": one.is_,
        "wanted": one.wanted,
        "fixable": one.fixable,
    }


def _show(found: dict[str, Any]) -> None:
    click.echo(f"{found['brokers']} brokers; group {found['group']}: {found['members']} members")
    for topic in found["topics"]:
        if topic["partitions"] is None:
            click.echo(f"{topic['topic']}: missing")
            continue
        lag = "" if topic["lag"] is None else f", lag {topic['lag']:,}"
        click.echo(
            f"{topic['topic']}: {topic['partitions']} partitions, {topic['messages']:,} messages"
            f"{lag}"
        )
    for problem in found["problems"]:
        click.echo(problem, err=True)


def _print(document: dict[str, Any]) -> None:
    click.echo(json.dumps(document, indent=2))
