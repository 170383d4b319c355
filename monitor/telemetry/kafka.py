"""What is published to Kafka, as metric families."""

from __future__ import annotations

import time
from collections.abc import Iterator

from prometheus_client.core import Metric

from understudy.monitor.kafka.publishing import Publishing
from understudy.monitor.telemetry.families import counter, gauge

_STATES = ("connecting", "sending", "stalled", "error")


def kafka_families(mode: Publishing) -> Iterator[Metric]:
    """Names begin with ``understudy_kafka_``."""
    publisher, steering = mode.publisher, mode.steering
    figures = publisher.sender.figures
    for name, text, value in (
        ("taken", "Records received for publishing.", publisher.taken),
        (
            "recovered",
            "Records and labels left in the spool by an earlier process.",
            publisher.recovered,
        ),
        ("published_records", "Records that Kafka has.", figures.records),
        ("published_labels", "Labels that Kafka has.", figures.labels),
        ("published_bytes", "Bytes of messages that Kafka has.", figures.bytes),
        ("published_messages", "Messages that Kafka has, without heartbeats.", figures.messages),
        ("heartbeats", "Heartbeats that were sent.", figures.heartbeats),
    ):
        yield counter(f"kafka_{name}", text, (), [([], value)])
    yield counter(
        "kafka_dropped",
        "Records and labels that will not reach Kafka.",
        ("reason",),
        [([reason], value) for reason, value in publisher.drops().items()],
    )
    yield counter(
        "kafka_errors",
        "Restarts of sending, and messages rejected, by error.",
        ("error",),
        [([error], value) for error, value in sorted(figures.failures.items())],
    )
    yield gauge(
        "kafka_waiting_records",
        "Records and labels that Kafka does not have yet.",
        (),
        [([], publisher.waiting)],
    )
    yield gauge(
        "kafka_spool_bytes", "Bytes of the spool on disk.", (), [([], publisher.spool.size)]
    )
    limit = publisher.kafka.spool.max_size
    yield gauge("kafka_spool_limit_bytes", "Bytes that the spool may hold.", (), [([], limit)])
    state = publisher.sender.state
    yield gauge(
        "kafka_state",
        "1 for what the connection is doing: stalled is connected, but without answers.",
        ("state",),
        [([one], float(one == state)) for one in _STATES],
    )
    if figures.last_answer:
        yield gauge(
            "kafka_last_answer_seconds",
            "Time since Kafka last accepted a message.",
            (),
            [([], time.monotonic() - figures.last_answer)],
        )
    if steering is not None:
        reader = steering.reader
        yield gauge(
            "kafka_routes_epoch",
            "Epoch of the active controller; -1 for none.",
            (),
            [([], reader.table.epoch)],
        )
        yield gauge(
            "kafka_routes_caught_up",
            "1 when all routes were read.",
            (),
            [([], float(reader.caught_up and reader.error is None))],
        )
        yield counter(
            "kafka_routes_refused",
            "Routes rejected because their controller was replaced.",
            (),
            [([], reader.table.refused)],
        )
