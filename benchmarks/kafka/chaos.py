"""Sidecars, brokers and evaluators killed at random under load: nothing is lost, nothing is twice.

In the end the evidence of every experiment, and everything else that is counted, has to equal that
of an offline replay of what the sidecars took in; and every row of evidence has to be in the log
exactly once. What happens is decided by the seed; a paused broker is one behind a network that
swallows everything.

    python -m benchmarks.kafka.chaos --runs 3 --seconds 600 --first-seed 7 --out part-2.json
    python -m benchmarks.kafka.combine part-1.json part-2.json

Several of the first may run side by side, with other seeds each: every one has its own cluster.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import click
import yaml

from benchmarks.harness import Claim, Result, environment
from benchmarks.kafka import traffic
from benchmarks.kafka.comparison import compare, equal
from benchmarks.kafka.world import Process, document, judged
from tests.support.kafka_cluster import Cluster
from tests.support.kafka_world import create
from tests.support.ports import free_port
from understudy.monitor.config.load import load

PATIENCE = 600.0
"""Several runs may share the machine, and then catching up takes its time."""


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
        for process in (*self.sidecars, *self.evaluators):
            if process.fallen:
                process.start()  # as Kubernetes does
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


def one_run(
    seconds: float,
    seed: int,
    sidecars: int = 2,
    evaluators: int = 2,
    requests: int = 8,
    partitions: int = 4,
    calm: bool = False,
) -> dict[str, Any]:
    """One run; ``differences`` is empty when all is as it should be. The folder with the logs and
    the state stays where it is not."""
    folder = Path(tempfile.mkdtemp(prefix="understudy-chaos-"))
    with Cluster(folder / "kafka", patience=PATIENCE) as kafka:
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
        ports = [free_port() for _ in range(evaluators)]
        judges = [
            Process(
                f"evaluator-{n}",
                [
                    *(sys.executable, "-m", "understudy", "evaluate", "-c", str(path)),
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
            caught_up = judged(ports, end + 3.0, quiet + PATIENCE)
            healed = time.monotonic() - quiet
            exits = [pod.stop() for pod in pods]
            # What they handed over last has to be judged too.
            caught_up = caught_up and judged(ports, end + 3.0, time.monotonic() + PATIENCE)
            exits += [judge.stop() for judge in judges]
            kafka.heal()
            compared = compare(config, order)
        finally:
            for process in (*pods, *judges):
                process.send(signal.SIGCONT)
                process.kill()
    if equal(compared):
        shutil.rmtree(folder, ignore_errors=True)
    return {
        "seed": seed,
        "seconds": seconds,
        **compared,
        "caught_up": caught_up,
        "seconds_to_catch_up": round(healed, 1),
        "exits": exits,
        "happened": dict(chaos.happened),
        "fell": {one.name: one.fell for one in (*pods, *judges) if one.fell},
        "folder": str(folder),
    }


def run(quick: bool = False) -> Result:
    """Several runs with different seeds."""
    seeds, seconds = (2, 20.0) if quick else (5, 75.0)
    return of_runs([one_run(seconds, seed) for seed in range(1, seeds + 1)])


def of_runs(runs: list[dict[str, Any]]) -> Result:
    """The result of runs, wherever they were."""
    result = Result("kafka-chaos", environment())
    right = [r for r in runs if equal(r)]
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
            len({r["seed"] for r in runs if r["seconds"] >= 600}),
            20,
            ">=",
        ),
    ]
    header = ["seed", "seconds", "records", "rows", "lost", "twice", "late", "different",
              "histograms with other edges", "faults"]  # fmt: skip
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
                    r.get("other_edges", 0),
                    ", ".join(f"{n} × {what}" for what, n in sorted(r["happened"].items())),
                ]
                for r in runs
            ],
        )
    ]
    return result


@click.command()
@click.option("--seconds", default=60.0, show_default=True, help="Of load, each run.")
@click.option("--runs", "count", default=1, show_default=True, help="One after the other.")
@click.option("--first-seed", default=1, show_default=True, help="The others follow it.")
@click.option("--sidecars", default=2, show_default=True)
@click.option("--evaluators", default=2, show_default=True)
@click.option("--calm", is_flag=True, help="Without any fault.")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Keep the runs here, for benchmarks.kafka.combine.",
)
def main(
    seconds: float,
    count: int,
    first_seed: int,
    sidecars: int,
    evaluators: int,
    calm: bool,
    out: Path | None,
) -> None:
    """Run with each seed, and say what came of it."""
    runs: list[dict[str, Any]] = []
    for seed in range(first_seed, first_seed + count):
        runs.append(one_run(seconds, seed, sidecars, evaluators, calm=calm))
        click.echo(json.dumps(runs[-1]))
        if out is not None:
            # After each run: what is broken off later has not been for nothing.
            whole = json.dumps({"environment": environment(), "runs": runs}, indent=2)
            out.write_text(whole + "\n")
    sys.exit(0 if all(map(equal, runs)) else 1)


if __name__ == "__main__":
    os.environ.setdefault("PYTHONUNBUFFERED", "1")
    main()
