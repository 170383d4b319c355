"""Services beside the model servers: Kafka and Prometheus."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

from understudy.common.http import call
from understudy.monitor.config.fields import split_address
from understudy.monitor.config.model import Config
from understudy.monitor.doctor.check import Check, fault, ok, warning
from understudy.monitor.errors import KafkaTroubleError

_TIMEOUT_SECONDS = 10.0


def kafka(config: Config, file: str) -> Iterator[Check]:
    """Check the cluster and its topics, if the configuration names one."""
    if config.kafka is None:
        return
    try:
        from understudy.monitor.kafka.client import silence_kafka_log
        from understudy.monitor.kafka.topics import Admin, wanted
    except ImportError:
        yield fault(
            "Kafka",
            "the package for Kafka is not installed",
            "pip install 'understudy-serving[kafka]'",
        )
        return
    silence_kafka_log()
    try:
        admin = Admin(config.kafka)
        try:
            brokers = admin.brokers()
            topics = wanted(config.kafka, config.feedback.horizon)
            missing = [topic.name for topic in admin.missing(topics)]
        finally:
            admin.close()
    except KafkaTroubleError as error:
        yield fault("Kafka", str(error), "start the brokers, or correct `kafka.bootstrap`")
        return
    yield ok("Kafka", f"{brokers} broker{'s' if brokers > 1 else ''} can be reached")
    if missing:
        yield fault(
            "topics", f"missing: {', '.join(missing)}", f"run `understudy kafka init {file}`"
        )
    else:
        yield ok("topics", f"all {len(topics)} exist")


def prometheus(config: Config, url: str | None) -> Iterator[Check]:
    """Check that the server at ``url``, if one is given, scrapes this service."""
    if url is None:
        return
    port = split_address(config.control.listen)[1]
    address = f"{url.rstrip('/')}/api/v1/targets?state=active"
    try:
        reply = call(address, timeout_seconds=_TIMEOUT_SECONDS, outside=True)
        targets: list[dict[str, Any]] = reply.json()["data"]["activeTargets"]
    except OSError as error:
        yield fault("Prometheus", f"no answer from {url} ({error})", "start it, or correct the URL")
        return
    except (ValueError, LookupError, TypeError):
        yield fault("Prometheus", f"{url} does not answer as Prometheus does", "correct the URL")
        return
    ours = [one for one in targets if urlsplit(str(one.get("scrapeUrl"))).port == port]
    if not ours:
        yield fault(
            "Prometheus",
            f"none of its {len(targets)} targets is port {port}",
            "add to scrape_configs: {job_name: understudy, static_configs: "
            f'[{{targets: ["{config.control.listen}"]}}]}}',
        )
        return
    for one in ours:
        if one.get("health") == "up":
            yield ok("Prometheus", f"it scrapes {one['scrapeUrl']}")
        else:
            yield warning(
                "Prometheus",
                f"it cannot scrape {one['scrapeUrl']}: {one.get('lastError') or 'not yet tried'}",
                "start the service, or make control.listen reachable from Prometheus",
            )
