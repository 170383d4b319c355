"""What publishing costs a sidecar: CPU per record from the decoded record until Kafka has it.

A real cluster of three nodes on this machine takes what is published; its own time is not counted,
being in other processes. The publisher is the service's own: blocks, spool with a sync at each
flush, one idempotent producer. Beside it kafka-python sends one JSON message per record, well
batched. As in the service, each batch of records is decoded just before it is handed over, so that
its objects lie in the caches; what it takes to make these and to give them back is measured apart
and not counted, being paid in any mode. The loop is uvloop's, and the garbage collector is set as
there.
"""

from __future__ import annotations

import asyncio
import gc
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import orjson
import uvloop
from kafka import KafkaProducer

from benchmarks.harness import Claim, Result, environment, median, median_ratio
from benchmarks.kafka.blocks import NAMES, batches, numeric, rows_of
from tests.support.kafka_cluster import Cluster
from understudy.monitor.config.kafka import Kafka
from understudy.monitor.evidence.blocks import Builder, Row, encode
from understudy.monitor.evidence.blocks.block import Decoded
from understudy.monitor.gc_tuning import freeze_gc
from understudy.monitor.kafka.client import silence_kafka_log
from understudy.monitor.kafka.connect import Topics, connection
from understudy.monitor.kafka.publisher import MAX_BLOCK_RECORDS, Publisher
from understudy.monitor.kafka.topics import Admin, wanted
from understudy.monitor.records.record import Record

CHUNK = 200
"""Records in a batch of a worker."""
PARTITIONS = 12
TARGET_US = 3.0
RATES = (1000, 5000)
"""Records per second, for what it costs where blocks are not full."""


class Account:
    """CPU seconds of this process (all threads) and what Kafka got."""

    def __init__(self) -> None:
        self.cpu = 0.0
        self.parts: dict[str, float] = {}
        self.records = 0
        self.messages = 0
        self.bytes = 0

    @property
    def us(self) -> float:
        """CPU microseconds per record."""
        return self.cpu / self.records * 1e6


class Hand:
    """Batches of workers, decoded one at a time."""

    def __init__(self, batches: list[bytes]) -> None:
        self._batches = batches
        self.cpu = 0.0
        """Seconds that decoding has taken, and giving back what it made."""

    def __iter__(self) -> Iterator[list[tuple[Record, Decoded, Decoded]]]:
        for batch in self._batches:
            begun = time.thread_time()
            rows = [row[1:] for row in rows_of(batch)]
            self.cpu += time.thread_time() - begun
            yield rows
            begun = time.thread_time()
            rows.clear()
            self.cpu += time.thread_time() - begun


async def ours(kafka: Kafka, batches: list[bytes], folder: Path, rate: float | None) -> Account:
    """Hand over all records, as fast as can be or ``rate`` a second; until Kafka has them."""
    publisher = Publisher(kafka, folder, "run")
    publisher.start()
    while publisher.sender.state != "sending":
        await asyncio.sleep(0.01)
    gc.collect()
    account = Account()
    begun, due = time.process_time(), time.monotonic()

    async def flushing() -> None:
        while True:
            try:
                await asyncio.wait_for(publisher.early.wait(), kafka.linger)
            except TimeoutError:
                pass
            await publisher.flush()

    flusher = asyncio.get_running_loop().create_task(flushing())
    hand = Hand(batches)
    for rows in hand:
        publisher.extend(NAMES, rows, time.time())
        if rate is not None:
            due += CHUNK / rate
            await asyncio.sleep(max(0.0, due - time.monotonic()))
        elif publisher.early.is_set():
            while publisher.early.is_set():  # as fast as the disk takes it, and no faster
                await asyncio.sleep(0.005)
        else:
            await asyncio.sleep(0)
    flusher.cancel()
    await publisher.flush()
    while publisher.waiting:
        await asyncio.sleep(0.02)
    account.cpu = time.process_time() - begun - hand.cpu
    figures = publisher.sender.figures
    account.records, account.messages = figures.records, figures.messages
    account.bytes = figures.bytes
    assert account.records == len(batches) * CHUNK
    await publisher.stop(0.0)
    return account


def building(batches: list[bytes]) -> float:
    """CPU microseconds per record of the blocks alone: from the decoded record to their bytes."""
    gc.collect()
    builder = Builder("sidecar", "run", PARTITIONS, MAX_BLOCK_RECORDS)
    hand = Hand(batches)
    begun, now = time.process_time(), time.time()
    for rows in hand:
        for block in builder.extend(NAMES, rows, now):
            encode(block)
    for block in builder.flush(now, everything=True):
        encode(block)
    return (time.process_time() - begun - hand.cpu) / (len(batches) * CHUNK) * 1e6


def theirs(kafka: Kafka, rows: list[Row]) -> Account:
    """One JSON message per record, by kafka-python's own means."""
    producer = KafkaProducer(
        **connection(kafka),
        acks="all",
        linger_ms=100,
        batch_size=256 * 1024,
        max_request_size=8 * 1024 * 1024,
        compression_type="zstd",
        metrics_enabled=False,
    )
    topic = Topics(kafka.prefix).dead
    producer.partitions_for(topic)
    gc.collect()
    account = Account()
    begun = time.process_time()
    for _, record, of_request, of_response in rows:
        document: dict[str, Any] = {
            "request_id": record.request_id.decode(),
            "trace_id": record.trace_id.decode(),
            "started": record.started,
            "duration_ns": record.duration_ns,
            "status": record.status,
            "features": dict(zip(of_request.names, of_request.values, strict=True)),  # type: ignore[union-attr]
            "predictions": dict(zip(of_response.names, of_response.values, strict=True)),  # type: ignore[union-attr]
        }
        value = orjson.dumps(document)
        account.bytes += len(value)
        producer.send(topic, value, key=record.request_id)
    producer.flush()
    account.cpu = time.process_time() - begun
    account.records = account.messages = len(rows)
    producer.close()
    return account


def run(quick: bool) -> Result:
    """Rounds of both, then ours at rates at which blocks are not full."""
    silence_kafka_log()
    rounds, count = (2, 60) if quick else (5, 300)
    made = batches(count, CHUNK, numeric)
    rows = [row for batch in made[: max(20, count // 4)] for row in rows_of(batch)]
    freeze_gc()
    fast: list[Account] = []
    blocks: list[float] = []
    json_: list[Account] = []
    paced: dict[int, Account] = {}
    with Cluster(quick=False, heap="512m") as cluster, tempfile.TemporaryDirectory() as folder:
        kafka = Kafka.model_validate(
            {"bootstrap": cluster.bootstrap, "prefix": "bench", "partitions": PARTITIONS}
        )
        admin = Admin(kafka)
        admin.create(wanted(kafka, 3600.0))
        admin.close()

        def mine(some: list[bytes], rate: float | None = None) -> Account:
            place = Path(tempfile.mkdtemp(dir=folder))
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                return runner.run(ours(kafka, some, place, rate))

        mine(made[:10])  # everything is loaded and connected once
        theirs(kafka, rows[: 5 * CHUNK])
        for _ in range(rounds):
            fast.append(mine(made))
            blocks.append(building(made))
            json_.append(theirs(kafka, rows))
        for rate in RATES:
            paced[rate] = mine(made[: rate * (3 if quick else 8) // CHUNK], float(rate))
    gc.unfreeze()
    cost = min(one.us for one in fast)  # a busy machine only adds
    result = Result(
        "kafka-publish",
        environment(features=20, partitions=PARTITIONS, records=count * CHUNK, rounds=rounds),
    )
    ratio = median_ratio([one.us for one in fast], [one.us for one in json_])
    result.claims = [
        Claim("publishing, from decoded record to Kafka, CPU µs", cost, TARGET_US, "<="),
        Claim(
            "of that spooling and sending, beyond the bytes of blocks, CPU µs",
            cost - min(blocks),
            TARGET_US,
            "<=",
        ),
        Claim("ratio to one JSON message per record by kafka-python", ratio, 0.2, "<="),
    ]
    table: list[list[Any]] = [
        _row("blocks, as fast as can be", fast),
        ["of that the blocks themselves", median(blocks), None, None],
        *(_row(f"blocks, {rate:,} records a second", [one]) for rate, one in paced.items()),
        _row("kafka-python, a JSON message each", json_),
    ]
    head = ["way", "CPU µs per record", "records per message", "bytes per record"]
    result.tables = [("Per record", head, table)]
    result.measurements = {
        "cpu_us": {
            "blocks": [one.us for one in fast],
            "building": blocks,
            "json": [one.us for one in json_],
            "paced": {str(rate): one.us for rate, one in paced.items()},
        },
        "records_per_message": [one.records / one.messages for one in fast],
        "bytes_per_record": [one.bytes / one.records for one in fast],
    }
    return result


def _row(name: str, accounts: list[Account]) -> list[Any]:
    return [
        name,
        median([one.us for one in accounts]),
        median([one.records / one.messages for one in accounts]),
        median([one.bytes / one.records for one in accounts]),
    ]
