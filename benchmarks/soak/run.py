"""An hour at half load with a fault every ten seconds: clients, memory, and the ledger of records.

Clients keep their connections and check every response. Errors other than those that a fault must
cause (a killed worker cuts its connections once, a killed champion cannot answer) are counted, and
so is what the service says it has done: requests against responses, records sent against records
evaluated. A fault lasts for half of its interval, and is undone.

    python -m benchmarks soak [--quick]
    python -m benchmarks.soak --minutes 5
"""

from __future__ import annotations

import http.client
import random
import statistics
import sys
import tempfile
import threading
import time
from array import array
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from benchmarks.harness import Claim, Result, environment, resident_mib
from benchmarks.soak.faults import PLANE, WORKER, Fault, Faults
from tests.support.disks import Disk, disk
from tests.support.patience import eventually
from tests.support.world import Load, Model, World, total

SEED = 16
CLIENTS = 8
MINUTES = 60.0
EVERY = 10.0
QUICK_EVERY = 3.5
"""Seconds between two faults; in the short form each happens once."""
WARM_UP = 600
"""Seconds in which the evaluation plane fills its windows and stores."""
FLAT = 8.0
"""Most growth of a process' resident memory after that, in MiB."""
SETTLED = 1.0
"""Seconds after the end of a fault that still belong to it."""
EXPERIMENT = {
    "name": "soak",
    "challengers": ["other0"],
    "metrics": [{"metric": "accuracy", "margin": "20 pp", "base_rate": 0.5}],
    "label": {"prediction": "p", "threshold": 0.6},
}


@dataclass
class Happened:
    """A fault, and what clients got from its beginning until the next one."""

    fault: Fault
    latencies: array[float] = field(default_factory=lambda: array("d"))
    errors: Counter[str] = field(default_factory=Counter)

    def unexpected(self) -> int:
        """Errors that the fault need not cause."""
        excess = 0
        for outcome, count in self.errors.items():
            if outcome not in self.fault.costs:
                excess += count
            elif self.fault.each is not None:
                excess += max(0, count - self.fault.each * CLIENTS)
        return excess


class Clients(Load):
    """Clients whose responses are counted under the fault that is on."""

    def __init__(self, url: str, pause: float, first: Happened) -> None:
        self.now = first
        self._times = threading.Lock()
        super().__init__(url, CLIENTS, pause)

    def _one(self, connection: http.client.HTTPConnection, number: str) -> str:
        began = time.monotonic()
        outcome = super()._one(connection, number)
        with self._times:
            self.now.latencies.append(time.monotonic() - began)
            if outcome != "200":
                self.now.errors[outcome] += 1
        return outcome


class Memory:
    """Resident memory of the service's processes, sampled every second, in MiB."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._stop = threading.Event()
        self.seen: dict[str, list[tuple[float, float]]] = defaultdict(list)
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        while not self._stop.wait(1.0):
            for kind in (WORKER, PLANE):
                pids = [pid for pid in self._world.service.children() if kind in command_of(pid)]
                sizes = [size for pid in pids if (size := resident(pid)) > 0.0]
                if sizes:
                    self.seen[kind].append((time.monotonic(), max(sizes)))
            self.seen["supervisor"].append((time.monotonic(), resident(self._world.service.pid)))

    def stop(self) -> None:
        self._stop.set()
        self._thread.join()

    def growth(self, kind: str) -> float:
        """Median of the last quarter less that of an earlier quarter of the time, which begins when
        windows and stores have filled: in the second quarter, or half way in a run so short that
        they still fill then."""
        sizes = [size for _, size in self.seen[kind]]
        quarter = max(1, len(sizes) // 4)
        begin = quarter if quarter >= WARM_UP else 2 * quarter
        early, late = sizes[begin : begin + quarter] or sizes, sizes[-quarter:]
        return statistics.median(late) - statistics.median(early)

    def by_minute(self, kind: str) -> list[float]:
        """The median of each minute."""
        sizes = [size for _, size in self.seen[kind]]
        return [statistics.median(sizes[at : at + 60]) for at in range(0, len(sizes), 60)]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def resident(pid: int) -> float:
    try:
        return resident_mib(pid)
    except OSError:
        return 0.0


@contextmanager
def service(folder: Path) -> Iterator[tuple[World, Disk | None]]:
    """The service with its state on a disk of its own, where one can be mounted."""
    with ExitStack() as stack:
        small: Disk | None = None
        try:
            small = stack.enter_context(disk(folder / "disk", 128))
        except pytest.skip.Exception as reason:
            print(f"no full disk: {reason}", file=sys.stderr)
        where: dict[str, Any] = {"state_dir": str(small.path / "state")} if small else {}
        world = World(
            folder, Model("second"), mirror={"timeout": "5s"}, experiments=[EXPERIMENT], **where
        )
        yield stack.enter_context(world), small
        assert world.service.stop() == 0, world.service.log


def half_load(url: str, seconds: float) -> tuple[float, float]:
    """Requests per second at which the clients saturate the service, and the pause that halves
    them."""
    load = Load(url, CLIENTS, 0.0)
    load.answered(200)
    before, began = load.seen["200"], time.monotonic()
    time.sleep(seconds)
    rate = (load.seen["200"] - before) / (time.monotonic() - began)
    assert set(load.stop()) == {"200"}
    return rate, CLIENTS / rate


def answered(world: World) -> int:
    """Requests of inference that the service counts as answered by the champion. Those of hostile
    clients never are."""
    labels = {"role": "primary", "arm": "champion", "model": "m", "outcome": "ok"}
    return total(world.metrics(), "understudy_requests_total", **labels)


def soak(world: World, small: Disk | None, minutes: float, every: float) -> dict[str, Any]:
    """Run it; ``minutes`` 0: each fault once."""
    saturated, pause = half_load(world.service.url, 3.0 if minutes else 1.0)
    first = answered(world)
    faults = Faults(world, small, SEED)
    quiet = Happened(Fault("none", lambda: lambda: None))
    happened = [quiet]
    order: list[Fault] = []
    memory = Memory(world)
    clients = Clients(world.service.url, pause, quiet)
    clients.answered(100)
    chance, began = random.Random(SEED), time.monotonic()
    count = len(faults.all) if not minutes else int(minutes * 60 / every)
    try:
        for number in range(count):
            order = order or chance.sample(faults.all, len(faults.all))
            fault = order.pop()
            happened.append(Happened(fault))
            clients.now = happened[-1]
            end = fault.begin()
            time.sleep(every / 2)
            end()
            clients.all_answered()
            due = began + (number + 1) * every
            time.sleep(max(SETTLED, due - time.monotonic()))
            print(
                f"{number + 1}/{count} {fault.name}: {dict(happened[-1].errors)}", file=sys.stderr
            )
    finally:
        seen = clients.stop()
        memory.stop()
        faults.close()
    seconds = time.monotonic() - began
    status = eventually(world.settled)
    counted = answered(world) - first
    records = status["records"]
    return {
        "seconds": seconds,
        "saturated_rate": saturated,
        "rate": sum(seen.values()) / seconds,
        "faults": count,
        "responses": dict(seen),
        "unexpected_errors": sum(one.unexpected() for one in happened),
        "responses_uncounted": seen["200"] - counted,
        "records": records,
        "records_missing": records["eligible"] - records["sent"] - sum(records["dropped"].values()),
        "records_not_evaluated": records["sent"] - records["lost"] - records["evaluated"],
        "killed_workers": sum(one.fault.each == 1 for one in happened),
        "memory_growth_mib": {kind: memory.growth(kind) for kind in memory.seen},
        "memory_mib_by_minute": {kind: memory.by_minute(kind) for kind in memory.seen},
        "by_fault": by_fault(happened),
    }


def by_fault(happened: list[Happened]) -> dict[str, dict[str, Any]]:
    """Figures of each kind of fault, over all times that it happened."""
    found: dict[str, dict[str, Any]] = {}
    for name in dict.fromkeys(one.fault.name for one in happened):
        same = [one for one in happened if one.fault.name == name]
        latencies = sorted(seconds for one in same for seconds in one.latencies)
        errors = sum((one.errors for one in same), Counter[str]())
        found[name] = {
            "times": len(same),
            "requests": len(latencies),
            "p50_ms": 1000.0 * latencies[len(latencies) // 2] if latencies else None,
            "p99_ms": 1000.0 * latencies[int(len(latencies) * 0.99)] if latencies else None,
            "max_ms": 1000.0 * latencies[-1] if latencies else None,
            "errors": dict(errors),
            "unexpected": sum(one.unexpected() for one in same),
        }
    return found


def run(quick: bool = False, minutes: float = MINUTES) -> Result:
    with tempfile.TemporaryDirectory() as name, service(Path(name)) as (world, small):
        if quick:
            found = soak(world, small, 0.0, QUICK_EVERY)
        else:
            found = soak(world, small, minutes, EVERY)
    growth = found["memory_growth_mib"]
    result = Result(
        "soak",
        environment(seed=SEED, clients=CLIENTS, faults=found["faults"]),
        found,
        [
            Claim("errors that no fault must cause", found["unexpected_errors"], 0, "<="),
            Claim("records neither sent nor dropped", abs(found["records_missing"]), 0, "<="),
            Claim("records sent and not evaluated", abs(found["records_not_evaluated"]), 0, "<="),
            # A worker can be killed between a response and its count.
            Claim(
                "responses that are not counted, for each killed worker and client",
                abs(found["responses_uncounted"]) / max(1, found["killed_workers"] * CLIENTS),
                1.0,
                "<=",
            ),
            *(
                Claim(f"growth of memory: {kind} (MiB)", growth[kind], FLAT, "<=")
                for kind in sorted(growth)
            ),
        ],
    )
    rows = [
        [
            name, one["times"], one["requests"], one["p50_ms"], one["p99_ms"], one["max_ms"],
            ", ".join(f"{count} {what}" for what, count in one["errors"].items()) or "none",
            one["unexpected"],
        ]
        for name, one in found["by_fault"].items()
    ]  # fmt: skip
    header = [
        "fault",
        "times",
        "requests",
        "p50 (ms)",
        "p99 (ms)",
        "max (ms)",
        "errors",
        "unexpected",
    ]
    result.tables.append(("What clients got", header, rows))
    return result
