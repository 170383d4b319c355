"""Sidecars, brokers and evaluators killed at random under load: nothing is lost, nothing is twice.

In the end the evidence of every experiment, and everything else that is counted, has to equal that
of an offline replay of what the sidecars took in; and every row of evidence has to be in the log
exactly once. ``python -m benchmarks.kafka.chaos --seconds 60 --seed 1`` is one run.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

import click
import yaml

from benchmarks.harness import Claim, Result, environment
from benchmarks.kafka import traffic
from monitor.config.load import load
from monitor.config.model import Config
from monitor.evaluator.messages import decode_message
from monitor.evaluator.offline import Offline
from monitor.evaluator.places import PLACES
from monitor.evaluator.topics import Options
from monitor.transport.blocks import Builder
from tests.evaluator.kafka_world import committed_state, create
from tests.evaluator.world import differences
from tests.kafka import cluster
from tests.kafka.cluster import Cluster
from tests.watch.world import saved

PATIENCE = 240.0
_ORDERED = frozenset(("notes",))


def document(
    folder: Path, bootstrap: str, prefix: str, partitions: int, labels: bool
) -> dict[str, Any]:
    """With ``labels`` records are evaluated one by one, without by columns."""
    experiments: list[dict[str, Any]] = [dict(one) for one in traffic.EXPERIMENTS]
    if not labels:
        experiments[0].pop("label")
        experiments[0]["metrics"] = experiments[0]["metrics"][:3]
    return {
        "version": 1,
        "listen": "127.0.0.1:0",
        "state_dir": str(folder / "state"),
        "models": [
            {
                "name": "delays",
                "version": "1",
                "baseline": saved(folder, 4000),
                "performance": {"prediction": "p", "threshold": 0.5} if labels else None,
            }
        ],
        "champion": {"url": "http://127.0.0.1:1"},
        "challengers": [
            {"name": "candidate", "url": "http://127.0.0.1:2", "mirror": {"rate": 1.0}},
            {"name": "other", "url": "http://127.0.0.1:3", "mirror": {"rate": 0.0}},
        ],
        "experiments": experiments,
        "feedback": {"horizon": "1h"},
        "kafka": {
            "bootstrap": bootstrap.split(","),
            "prefix": prefix,
            "partitions": partitions,
            "timeout": 4.0,
        },
    }


class Process:
    """One of those that are killed."""

    def __init__(self, name: str, command: list[str], log: Path) -> None:
        self.name = name
        self._command = command
        self._log = log
        self.process: subprocess.Popen[bytes] | None = None
        self.start()

    def start(self) -> None:
        with self._log.open("ab") as log:
            self.process = subprocess.Popen(
                self._command, stdout=log, stderr=log, cwd=Path(__file__).parents[2]
            )

    def send(self, number: signal.Signals) -> None:
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(number)

    def kill(self) -> None:
        self.send(signal.SIGKILL)
        if self.process is not None:
            self.process.wait()

    @property
    def alive(self) -> bool:
        return self.process is not None and self.process.poll() is None

    def stop(self, patience: float = 60.0) -> int:
        """SIGTERM; the exit code, or -9 when it had to be killed."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        assert self.process is not None
        try:
            return self.process.wait(patience)
        except subprocess.TimeoutExpired:
            self.kill()
            return -9


class Chaos:
    """What happens, by the seed: one thing at a time ends before the same thing happens again."""

    def __init__(
        self, seed: int, kafka: Cluster, sidecars: list[Process], evaluators: list[Process]
    ) -> None:
        self.chance = random.Random(seed)
        self.kafka = kafka
        self.sidecars = sidecars
        self.evaluators = evaluators
        self.happened: Counter[str] = Counter()
        self._later: list[tuple[float, Any]] = []
        self._busy: dict[Any, float] = {}

    def step(self, now: float) -> None:
        """Undo what is due, and do the next thing."""
        for due in [item for item in self._later if item[0] <= now]:
            self._later.remove(due)
            due[1]()
        what = self.chance.choice(
            ("kill evaluator", "pause evaluator", "kill sidecar", "kill broker", "pause broker")
        )
        wait = self.chance.uniform(1.0, 6.0)
        pool: list[Any] = {"evaluator": self.evaluators, "sidecar": self.sidecars}.get(
            what.split()[1], self.kafka.nodes
        )
        target = self.chance.choice(pool)
        brokers = [n for n in self.kafka.nodes if self._busy.get(n, 0.0) > now]
        if self._busy.get(target, 0.0) > now or (what.endswith("broker") and brokers):
            return
        self.happened[what] += 1
        # A broker needs time to be in sync again before the next one goes.
        self._busy[target] = now + wait + (6.0 if what.endswith("broker") else 0.5)
        if what.startswith("kill"):
            target.kill()
            self._later.append((now + wait, target.start))
        elif target in self.evaluators:
            target.send(signal.SIGSTOP)
            self._later.append((now + wait, lambda: target.send(signal.SIGCONT)))
        else:
            target.pause()
            self._later.append((now + wait, target.resume))

    def heal(self) -> None:
        """Everything back."""
        for _, undo in self._later:
            undo()
        self._later.clear()
        self.kafka.heal()
        for process in (*self.sidecars, *self.evaluators):
            process.send(signal.SIGCONT)
            if not process.alive:
                process.start()


def expected(config: Config, order: dict[str, Any]) -> tuple[dict[str, Any], Counter[Any], int]:
    """The state, the rows of evidence and the number of records of an offline replay."""
    offline = Offline(config)
    rows: Counter[Any] = Counter()
    records = 0
    partition = offline.partitions[0]
    drained = partition.drain

    def noted() -> Any:
        sheets = drained()
        for sheet in sheets:
            rows.update(_rows(sheet))
        return sheets

    partition.drain = noted  # type: ignore[method-assign]
    began, ticks = order["began"], order["ticks"]
    sidecars, requests, seed = order["sidecars"], order["requests"], order["seed"]
    builders = [Builder(f"pod-{n}", "replay", 1) for n in range(sidecars)]
    labels = [Builder(f"pod-{n}", "replay-labels", 1) for n in range(sidecars)]
    try:
        for number in range(ticks):
            now = began + (number + 1) * traffic.TICK_SECONDS
            for sidecar, builder in enumerate(builders):
                made = traffic.batch(seed, sidecar, number, began, requests)
                records += len(made.exchanges)
                blocks: list[Any] = []
                for record, of_request, of_response in made.exchanges:
                    blocks += builder.add(traffic.NAMES, record, of_request, of_response, now)
                blocks += builder.flush(now, everything=True)
                offline.take(0, blocks)
                if made.labels:
                    pairs = [(now, label) for label in made.labels]
                    offline.take(0, labels[sidecar].labels(pairs, now), of_labels=True)
                offline.take(0, builder.heartbeats(now, now - 2.0))
            if number % 10 == 9:
                offline.pass_on(0)
                offline.advance()
        offline.finish()
        state = offline.judges[0].to_dict()["pipeline"]
        return state, rows, records
    finally:
        offline.close()


def _rows(sheet: Any) -> list[Any]:
    if sheet.kind[0] in _ORDERED:
        return []
    sides = sheet.side.tolist()
    return [(sheet.kind, one, side) for one, side in zip(sheet.ids, sides, strict=True)]


def evidence_rows(config: Config) -> Counter[Any]:
    """Every row of evidence that is committed."""
    from kafka import KafkaConsumer, TopicPartition

    options = Options(config.kafka, "reader")  # type: ignore[arg-type]
    consumer = KafkaConsumer(
        **options.client(), isolation_level="read_committed", enable_auto_commit=False
    )
    places = [TopicPartition(options.topics.evidence, place) for place in range(PLACES)]
    consumer.assign(places)
    consumer.seek_to_beginning(*places)
    ends = consumer.end_offsets(places)
    rows: Counter[Any] = Counter()
    while any(consumer.position(place) < ends[place] for place in places):
        for messages in consumer.poll(timeout_ms=500).values():
            for message in messages:
                for _, sheet in decode_message(message.value).sheets:
                    rows.update(_rows(sheet))
    consumer.close()
    return rows


def counted(state: dict[str, Any]) -> dict[str, Any]:
    """What does not depend on the order of rows."""
    experiments = {}
    for name, one in state["experiments"].items():
        split = one["evidence"]["split"]
        experiments[name] = {
            "split": split["counts"] if split and "counts" in split else None,
            "carried_over": one["carried_over"],
            "contests": {
                challenger: {
                    "pairs": contest["pairs"],
                    "served": contest["served"],
                    "measures": {
                        mode: {
                            metric: {
                                key: value
                                for key, value in measure.items()
                                if key in ("n", "outside", "carried", "histograms")
                            }
                            | {"tests": [_sums(test) for test in measure.get("tests", ())]}
                            for metric, measure in measures.items()
                        }
                        for mode, measures in contest["measures"].items()
                    },
                }
                for challenger, contest in one["evidence"]["contests"].items()
            },
        }
    (watch,) = state["judge"]["watches"]["watches"]
    performance = watch["performance"] or {}
    return {
        "records": state["records"],
        "features": state["features"],
        "predictions": state["predictions"],
        "undecodable": sorted(state["undecodable"]),
        "experiments": experiments,
        "watched": watch["state"]["rows"],
        "labels": performance.get("labels"),
        "predicted": performance.get("predictions"),
        "tally": performance.get("whole"),
    }


def _sums(test: dict[str, Any]) -> dict[str, Any]:
    kept = ("kind", "counts", "records", "successes", "moments")
    return {key: test[key] for key in kept if key in test}


def one_run(
    seconds: float,
    seed: int,
    sidecars: int = 2,
    evaluators: int = 2,
    requests: int = 8,
    partitions: int = 4,
    calm: bool = False,
) -> dict[str, Any]:
    """One run; ``differences`` is empty when all is as it should be."""
    folder = Path(tempfile.mkdtemp(prefix="understudy-chaos-"))
    cluster.PATIENCE = PATIENCE  # the machine may have other things to do
    with Cluster(folder / "kafka") as kafka:
        path = folder / "understudy.yaml"
        path.write_text(
            yaml.safe_dump(
                document(folder, kafka.bootstrap, kafka.prefix(), partitions, bool(seed % 2))
            )
        )
        config = load(path)
        create(config)
        order = {
            "seed": seed,
            "sidecars": sidecars,
            "requests": requests,
            "began": float(int(time.time()) + 2),
            "ticks": int(seconds / traffic.TICK_SECONDS),
        }
        ports = [_port() for _ in range(evaluators)]
        judges = [
            Process(
                f"evaluator-{n}",
                [
                    *(sys.executable, "-m", "monitor", "evaluate", "-c", str(path)),
                    *("--instance", f"evaluator-{n}", "--listen", f"127.0.0.1:{port}"),
                    *("--session", "4", "--commit", "0.5"),
                ],
                folder / f"evaluator-{n}.log",
            )
            for n, port in enumerate(ports)
        ]
        pods = [
            Process(
                f"sidecar-{n}",
                [
                    *(sys.executable, "-m", "benchmarks.kafka.sidecar", str(path)),
                    json.dumps({**order, "sidecar": n}),
                ],
                folder / f"sidecar-{n}.log",
            )
            for n in range(sidecars)
        ]
        chaos = Chaos(seed, kafka, pods, judges)
        try:
            end = order["began"] + seconds
            time.sleep(max(0.0, order["began"] - time.time()))
            while time.time() < end:
                if not calm:
                    chaos.step(time.time())
                time.sleep(chaos.chance.uniform(0.5, 2.0))
            chaos.heal()
            quiet = time.monotonic()
            caught_up = _wait(ports, end + 3.0, quiet + PATIENCE)
            healed = time.monotonic() - quiet
            exits = [pod.stop() for pod in pods] + [judge.stop() for judge in judges]
            kafka.heal()
            state = committed_state(config)
            rows = evidence_rows(config)
        finally:
            for process in (*pods, *judges):
                process.send(signal.SIGCONT)
                process.kill()
    wanted, wanted_rows, records = expected(config, order)
    found = (
        differences(counted(wanted), counted(state["pipeline"]), 1e-6) if state else ["no state"]
    )
    twice = [row for row, count in (rows - wanted_rows).items() if count]
    lost = [row for row, count in (wanted_rows - rows).items() if count]
    return {
        "seed": seed,
        "seconds": seconds,
        "records": records,
        "rows": sum(wanted_rows.values()),
        "rows_twice_or_strange": len(twice),
        "rows_lost": len(lost),
        "differences": found[:20],
        "late_rows": state["late"] if state else None,
        "caught_up": caught_up,
        "seconds_to_catch_up": round(healed, 1),
        "exits": exits,
        "happened": dict(chaos.happened),
        "folder": str(folder),
        "examples": [repr(row) for row in (*twice[:5], *lost[:5])],
    }


def _port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def _wait(ports: list[int], until: float, deadline: float) -> bool:
    """Until everything is judged up to that unix time and nothing waits."""
    while time.monotonic() < deadline:
        done: set[int] = set()
        for port in ports:
            try:
                with urllib.request.urlopen(
                    f"http://127.0.0.1:{port}/v1/evaluator", timeout=2
                ) as reply:
                    found = json.load(reply)
            except (OSError, ValueError):
                continue
            for judge in found.get("judges", ()):
                if (judge["judged"] or 0.0) >= until and not judge["waiting"]:
                    done.add(judge["place"])
        if len(done) == PLACES:
            return True
        time.sleep(0.5)
    return False


def run(quick: bool = False) -> Result:
    """Several runs with different seeds."""
    seeds, seconds = (2, 20.0) if quick else (5, 75.0)
    return of_runs([one_run(seconds, seed) for seed in range(1, seeds + 1)])


def of_runs(runs: list[dict[str, Any]]) -> Result:
    result = Result("kafka-chaos", environment())
    right = [
        r
        for r in runs
        if not r["differences"] and not r["rows_lost"] and not r["rows_twice_or_strange"]
    ]
    result.measurements = {"runs": [{k: v for k, v in r.items() if k != "folder"} for r in runs]}
    result.claims = [
        Claim(
            "runs whose evidence equals the offline replay, of all",
            len(right) / len(runs),
            1.0,
            ">=",
        ),
        Claim("rows of evidence lost", sum(r["rows_lost"] for r in runs), 0, "<="),
        Claim("rows of evidence twice", sum(r["rows_twice_or_strange"] for r in runs), 0, "<="),
        Claim(
            "runs of ten minutes with different seeds",
            sum(r["seconds"] >= 600 for r in runs),
            20,
            ">=",
        ),
    ]
    header = ["seed", "seconds", "records", "rows", "lost", "twice", "late", "different", "faults"]
    result.tables = [
        (
            "Runs",
            header,
            [
                [
                    r["seed"],
                    r["seconds"],
                    r["records"],
                    r["rows"],
                    r["rows_lost"],
                    r["rows_twice_or_strange"],
                    r["late_rows"],
                    len(r["differences"]),
                    ", ".join(f"{n} × {what}" for what, n in sorted(r["happened"].items())),
                ]
                for r in runs
            ],
        )
    ]
    return result


@click.command()
@click.option("--seconds", default=60.0, show_default=True)
@click.option("--seed", "seeds", multiple=True, type=int, default=(1,), show_default=True)
@click.option("--sidecars", default=2, show_default=True)
@click.option("--evaluators", default=2, show_default=True)
@click.option("--calm", is_flag=True, help="Without any fault.")
@click.option("--write", is_flag=True, help="Add the runs to benchmarks/results.")
def main(
    seconds: float, seeds: tuple[int, ...], sidecars: int, evaluators: int, calm: bool, write: bool
) -> None:
    """Run with each seed, and say what came of it."""
    runs = []
    for seed in seeds:
        runs.append(one_run(seconds, seed, sidecars, evaluators, calm=calm))
        click.echo(json.dumps(runs[-1]))
    if write:
        of_runs(runs).write()
    bad = any(r["differences"] or r["rows_lost"] or r["rows_twice_or_strange"] for r in runs)
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
