"""Records per second of CPU of an evaluator: 20 features, a baseline, one experiment, by columns.

CPU time is that of the evaluators' processes (all their threads: client, decompression, both
stages, commits), from when they are members of their group and idle to when everything is judged.
The stages alone, without a broker, are measured in this process.
"""

from __future__ import annotations

import json
import os
import signal
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from benchmarks.harness import Claim, Result, environment
from benchmarks.kafka.world import Process
from tests.support.ports import free_port
from understudy.common.codecs import Reason, Table, Undecodable
from understudy.monitor.baseline.builder import Builder as Baselines
from understudy.monitor.config.load import load
from understudy.monitor.config.model import Config
from understudy.monitor.evidence.blocks import Builder, decode, encode
from understudy.monitor.evidence.partition import Partition
from understudy.monitor.kafka.consumer import EvidenceConsumer
from understudy.monitor.kafka.messages import decode_message, messages_of
from understudy.monitor.kafka.options import Options
from understudy.monitor.kafka.partitions import (
    EVIDENCE_PARTITIONS,
    EXPERIMENTS,
    HEALTH,
    evidence_partition,
    partition_config,
)
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import Record

FEATURES = tuple(f"feature_{n}" for n in range(20))
NAMES = Names(1, (("delays", "1", "auto"),), ("champion", "candidate"))
BEGAN = 1_700_000_000.0
RATE = 10_000.0
PARTITIONS = 8
PATIENCE = 300.0


def document(folder: Path, bootstrap: str, prefix: str) -> dict[str, Any]:
    path = folder / "baseline.json"
    rng = np.random.default_rng(1)
    builder = Baselines(model="delays", roles={"p": "prediction"}, source="benchmark")
    cells = rng.normal(size=(10_000, 20)).T.tolist()
    builder.add((*FEATURES, "p"), [*cells, rng.beta(2, 5, 10_000).tolist()])
    builder.finish().save(path)
    return {
        "version": 1,
        "listen": "127.0.0.1:0",
        "state_dir": str(folder / "state"),
        "models": [{"name": "delays", "version": "1", "baseline": str(path)}],
        "champion": {"url": "http://127.0.0.1:1"},
        "challengers": [
            {"name": "candidate", "url": "http://127.0.0.1:2", "mirror": {"rate": 1.0}}
        ],
        "experiments": [{"name": "shadowed", "challengers": ["candidate"]}],
        "kafka": {
            "bootstrap": bootstrap.split(","),
            "prefix": prefix,
            "partitions": PARTITIONS,
            "replication": 1,
            "timeout": "30s",
        },
    }


def blocks_of(requests: int, partitions: int, seed: int = 2) -> list[tuple[int, bytes]]:
    """Blocks as a sidecar publishes them: each request with its copy; partition and bytes."""
    rng = np.random.default_rng(seed)
    rows = rng.normal(size=(requests, 20)).tolist()
    scores = rng.beta(2, 5, requests).tolist()
    seconds = rng.lognormal(-4.0, 0.5, (requests, 2))
    builder = Builder("pod-0", "run-1", partitions, 1024)
    results: list[tuple[int, bytes]] = []
    empty = Undecodable(Reason.EMPTY)
    now = BEGAN

    def give(blocks: Sequence[Any]) -> None:
        results.extend((block.head.partition, encode(block)) for block in blocks)

    give(builder.heartbeats(now, now))
    for number in range(requests):
        now = BEGAN + number / RATE
        for role in (0, 1):
            one = Record()
            one.proxy_id = 0
            one.model, one.arm, one.role, one.outcome, one.assigned = 0, role, role, 0, 0
            one.status, one.started = 200, now
            one.duration_ns = int(seconds[number, role] * 1e9)
            one.first_byte_ns = one.queue_ns = one.request_size = one.response_size = 0
            one.request_id, one.target = b"%032x" % number, b"/v2/models/delays/infer"
            one.trace_id = one.unit = b""
            asked = Table(FEATURES, 1, rows[number]) if role == 0 else empty
            give(builder.add(NAMES, one, asked, Table(("p",), 1, [scores[number]]), now))
        if number % int(RATE) == int(RATE) - 1:
            give(builder.flush(now, everything=True))
            give(builder.heartbeats(now, now - 1.0))
    give(builder.flush(now, everything=True))
    give(builder.heartbeats(now + 10.0, now + 10.0))
    return results


def stages(config: Config, requests: int) -> dict[str, float]:
    """CPU seconds per record of the two stages, without a broker; bytes per record."""
    data = [block for _, block in blocks_of(requests, 1)]
    records = 2 * requests
    partition = Partition(config, "records/0")
    began = time.process_time()
    evidence: list[list[bytes]] = [[] for _ in range(EVIDENCE_PARTITIONS)]
    for offset, block in enumerate(data):
        partition.take(decode(block), offset)
        if offset % 20 == 19 or offset == len(data) - 1:
            batches = partition.drain()
            for place in range(EVIDENCE_PARTITIONS):
                mine = [
                    s
                    for s in batches
                    if evidence_partition(partition.is_for_experiment(s), EVIDENCE_PARTITIONS)
                    == place
                ]
                messages = messages_of("records/0", partition.complete, mine)
                evidence[place] += [message.encode() for message in messages]
    first = time.process_time() - began
    partition.close()
    consumers = [
        EvidenceConsumer(partition_config(config, number, EVIDENCE_PARTITIONS), ["records/0"])
        for number in range(EVIDENCE_PARTITIONS)
    ]
    spent = []
    for consumer, encoded in zip(consumers, evidence, strict=True):
        began = time.process_time()
        for offset, data_ in enumerate(encoded):
            consumer.take(decode_message(data_), offset)
            consumer.advance()
        consumer.finish()
        spent.append((time.process_time() - began) / records)
    steering, watching = consumers
    contest = steering.experiments.live["shadowed"].experiment.contests["candidate"]
    assert contest.pairs == requests
    (watch,) = watching.findings_loop.watches.watches.values()
    assert watch.rows == requests
    size = sum(len(json.dumps(consumer.dump_state())) for consumer in consumers)
    for consumer in consumers:
        consumer.close()
    return {
        "prepare": first / records,
        "experiments": spent[EXPERIMENTS],
        "watches": spent[HEALTH],
        "bytes_of_blocks": sum(map(len, data)) / records,
        "bytes_of_evidence": sum(len(m) for messages in evidence for m in messages) / records,
        "bytes_of_the_judges_state": float(size),
    }


def _cpu(process: Process) -> float:
    assert process.process is not None
    parts = Path(f"/proc/{process.process.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(parts[11]) + int(parts[12])) / os.sysconf("SC_CLK_TCK")


def group(folder: Path, kafka: Any, requests: int, evaluators: int) -> dict[str, Any]:
    """CPU and wall-clock of evaluators over a broker."""
    from kafka import KafkaProducer

    from tests.support.kafka_world import create

    path = folder / f"understudy-{evaluators}.yaml"
    path.write_text(yaml.safe_dump(document(folder, kafka.bootstrap, kafka.prefix())))
    config = load(path)
    create(config)
    ports = [free_port() for _ in range(evaluators)]
    running = [
        Process(
            f"evaluator-{n}",
            [
                *(sys.executable, "-m", "understudy", "evaluate", "-c", str(path)),
                *("--instance", f"evaluator-{n}", "--listen", f"127.0.0.1:{port}"),
                *("--session", "30"),
            ],
            folder / f"evaluator-{evaluators}-{n}.log",
        )
        for n, port in enumerate(ports)
    ]
    try:
        _until(
            lambda: _owned(ports) == (PARTITIONS, EVIDENCE_PARTITIONS, evaluators),
            "all are members",
        )
        options = Options(config.kafka, "publisher")  # type: ignore[arg-type]
        data = blocks_of(requests, PARTITIONS)
        before = [_cpu(one) for one in running]
        began = time.monotonic()
        producer = KafkaProducer(
            **options.client(), batch_size=1 << 20, max_request_size=8 << 20, linger_ms=20
        )
        for partition, block in data:
            producer.send(options.topics.records, value=block, partition=partition)
        producer.flush(120)
        producer.close()
        _until(lambda: _judged(ports) == requests, "everything is judged")
        wall = time.monotonic() - began
        spent = [_cpu(one) - b for one, b in zip(running, before, strict=True)]
    finally:
        for one in running:
            one.stop()
    return {
        "evaluators": evaluators,
        "records": 2 * requests,
        "cpu": spent,
        "records_per_cpu_second": 2 * requests / sum(spent),
        "busiest": 2 * requests / max(spent),
        "wall": wall,
    }


def _get(port: int, path: str) -> dict[str, Any]:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}{path}", timeout=5) as reply:
            result: dict[str, Any] = json.load(reply)
            return result
    except (OSError, ValueError):
        return {}


def _owned(ports: list[int]) -> tuple[int, int, int]:
    results = [_get(port, "/v1/evaluator") for port in ports]
    inputs = [len(one.get("partitions", ())) for one in results]
    judges = [len(one.get("judges", ())) for one in results]
    members = sum(a + b > 0 for a, b in zip(inputs, judges, strict=True))
    return sum(inputs), sum(judges), members


def _judged(ports: list[int]) -> int:
    """Requests that both have judged: each evaluator answers for the group."""
    compared = _get(ports[0], "/v1/experiments/shadowed")
    watched = _get(ports[0], "/v1/drift")
    if not (compared and watched and watched["models"]):
        return 0
    pairs = compared["challengers"][0]["requests"]["pairs"]
    return min(int(pairs), int(watched["models"][0]["rows"]))


def _until(check: Any, what: str) -> None:
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        if check():
            return
        time.sleep(0.5)
    raise RuntimeError(f"did not come true: {what}")


def run(quick: bool = False) -> Result:
    """The stages alone, then one and two evaluators over a broker."""
    from tests.support.kafka_cluster import Cluster

    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = "1"
    requests = 50_000 if quick else 200_000
    folder = Path(tempfile.mkdtemp(prefix="understudy-evaluate-"))
    with Cluster(
        folder / "kafka", nodes=1, quick=False, settings={"min.insync.replicas": "1"}
    ) as kafka:
        plain = folder / "plain.yaml"
        plain.write_text(yaml.safe_dump(document(folder, kafka.bootstrap, "plain")))
        alone = stages(load(plain), min(requests, 50_000))
        groups = [group(folder, kafka, requests, count) for count in (1, 2)]
    result = Result("kafka-evaluate", environment())
    one, two = groups
    result.measurements = {"stages": alone, "groups": groups}
    per_core = 1.0 / (alone["prepare"] + alone["experiments"] + alone["watches"])
    result.claims = [
        Claim(
            "records per second of an evaluator's CPU, everything included",
            one["records_per_cpu_second"],
            50_000,
            ">=",
        ),
        Claim(
            "records per second of CPU, the two stages without the broker", per_core, 50_000, ">="
        ),
        Claim(
            "records per CPU second of two evaluators, of that of one",
            two["records_per_cpu_second"] / one["records_per_cpu_second"],
            0.8,
            ">=",
        ),
        Claim(
            "throughput of two evaluators by the busiest one's CPU, of that of one",
            two["busiest"] / one["busiest"],
            1.6,
            ">=",
        ),
    ]
    result.tables = [
        (
            "CPU per record",
            ["part", "µs"],
            [
                ["prepare: decode, pair, to batches", alone["prepare"] * 1e6],
                ["judge of experiments: order, statistics", alone["experiments"] * 1e6],
                [
                    "judge of the model: order, quality and drift of 21 columns",
                    alone["watches"] * 1e6,
                ],
                ["evaluator, all of it, alone", 1e6 / one["records_per_cpu_second"]],
                ["evaluators, all of it, two", 1e6 / two["records_per_cpu_second"]],
            ],
        ),
        (
            "Groups",
            ["evaluators", "records", "CPU seconds", "records / CPU second", "wall seconds"],
            [
                [
                    g["evaluators"],
                    g["records"],
                    " + ".join(f"{c:.1f}" for c in g["cpu"]),
                    g["records_per_cpu_second"],
                    g["wall"],
                ]
                for g in groups
            ],
        ),
        (
            "Bytes per record",
            ["what", "bytes"],
            [
                ["blocks", alone["bytes_of_blocks"]],
                ["evidence", alone["bytes_of_evidence"]],
                ["states of the judges, once a second", alone["bytes_of_the_judges_state"]],
            ],
        ),
    ]
    return result


if __name__ == "__main__":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    print(run("--quick" in sys.argv).markdown())
