"""``python -m examples.flights`` (or ``make demo``): see the README beside this file."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import click
import yaml

from examples.flights import gate
from examples.flights.acts import FAULTY, GOOD, Act, Labels, post
from examples.flights.environment import HERE, HOME, StepFailed, prepare, train
from examples.flights.machine import Others
from examples.flights.replay import Tally, Traffic, read_flights
from examples.flights.serving import MODEL, ModelServer, Process, free_port
from examples.flights.silent import (
    FAULT_SECONDS,
    LANDS_LATE,
    MONITORING,
    PERFORMANCE,
    QUIET_SECONDS,
    SilentFailure,
    build_baseline,
    spoil,
)
from examples.flights.story import line, summary
from examples.flights.telling import Teller
from understudy.demo.traffic import SLOWEST, Pace

MOST = 200.0
"""Flights per second, at most."""
CAPACITY_SECONDS = 2.0
SECONDS = 80.0
"""Of the replay at the highest rate, if its challengers are not decided earlier."""
LATE_SECONDS = 3.0
"""How long a request may wait before fewer are sent: longer than the champion is stopped."""
BUSY = 0.25
"""The share of the machine in the hands of others from which a slow answer says nothing."""

SHOWN = (
    "understudy_requests_total",
    "understudy_mirror_total",
    "understudy_experiment_decision",
    "understudy_findings_open",
)


class Demo:
    """Everything that runs, so that everything can be stopped."""

    def __init__(self, seconds: float | None, rate: float | None, teller: Teller) -> None:
        self.seconds = seconds or SECONDS
        self._extends = seconds is None
        self.wanted = rate
        self.teller = teller
        self.pace = Pace(rate or MOST, LATE_SECONDS)
        self.logs = HOME / "logs"
        self.models = HOME / "models"
        self.servers: list[ModelServer] = []
        self.features: list[str] = []
        self.sidecar: Process | None = None
        self.port = free_port()
        self.control = free_port()
        self.address = f"http://127.0.0.1:{self.control}"
        self.silent = SilentFailure(self.address, teller)
        self.acts = [Act(declared, self.address, teller) for declared in (GOOD, FAULTY)]
        self.baseline: tuple[Path, str] | Exception = StepFailed("has not run")
        self.gated = gate.NOT_MEASURED
        self.seen: dict[str, Any] = {}
        """The status after the last flight, before the gate."""
        self.others = 0.0
        """The largest share of the machine that others used while the gate ran."""

    def serve(self, python: Path, features: list[str]) -> None:
        """Start the model servers and the sidecar; wait until all are ready."""
        self.features = features
        self.servers = [
            ModelServer(name, python, self.models / name, self.logs)
            for name in ("champion", "challenger", "faulty")
        ]
        self.teller.does("three model servers start (MLServer, one model each)")
        for server in self.servers:
            server.start()
        # What the champion usually sees is described meanwhile.
        describing = threading.Thread(target=self._describe, daemon=True)
        describing.start()
        for server in self.servers:
            self.teller.detail(
                f"{server.name} is ready on port {server.port}: {server.wait():.1f} s"
            )
        describing.join()
        # Each run tells its story from the beginning.
        shutil.rmtree(HOME / "state", ignore_errors=True)
        config = HOME / "understudy.yaml"
        config.write_text(yaml.safe_dump(self.config(features), sort_keys=False))
        command = [sys.executable, "-m", "understudy", "serve", "--config", str(config)]
        log = self.logs / "understudy.log"
        log.unlink(missing_ok=True)
        self.sidecar = Process("understudy", command, log, cwd=HERE.parent.parent)
        self.sidecar.wait_until(self.control, "/readyz")
        self.teller.does("Understudy runs in between; look at it while it works:")
        program = Path(sys.executable).parent / "understudy"
        self.teller.plain(f"        page     {self.address}/")
        self.teller.plain(f"        metrics  {self.address}/metrics")
        self.teller.plain(f"        live     {program} top --url {self.address}")
        self.teller.detail(f"its configuration: {config}")

    def _describe(self) -> None:
        try:
            self.baseline = build_baseline(self.models, MODEL)
        except (OSError, subprocess.CalledProcessError) as error:
            self.baseline = error

    def measure(self) -> None:
        """Choose the rate: a third of what the champion carries, since the challenger, the sidecar
        and the clients want the rest."""
        if self.wanted is not None:
            return
        flights = read_flights(self.models / "mixed.jsonl")[:500]
        direct = Traffic("127.0.0.1", self.servers[0].port)
        carried = asyncio.run(direct.carried(flights, CAPACITY_SECONDS))
        self.pace.wanted = self.pace.rate = max(SLOWEST, min(MOST, carried / 3.0))
        if self._extends:  # the story needs a number of flights rather than a time
            self.seconds = min(1.5 * SECONDS, SECONDS * MOST / self.pace.rate)
        self.teller.does(
            f"the champion alone answers {carried:,.0f} flights/s here: a third of that is sent, at "
            f"most {MOST:.0f}/s"
        )

    def config(self, features: list[str]) -> dict[str, Any]:
        champion, challenger, faulty = self.servers
        return {
            "version": 1,
            "listen": f"127.0.0.1:{self.port}",
            "control": {"listen": f"127.0.0.1:{self.control}"},
            "workers": 1,
            "state_dir": str(HOME / "state"),
            "models": [
                {
                    "name": MODEL,
                    "version": "1",
                    "protocol": "open-inference-v2",
                    "features": features,
                    "predictions": ["p_on_time", "p_late"],
                }
            ],
            "champion": {"url": f"http://127.0.0.1:{champion.port}"},
            "challengers": [
                {
                    "name": "challenger",
                    "url": f"http://127.0.0.1:{challenger.port}",
                    "mirror": {"rate": 1.0, "breaker": {"failures": 5, "open": "2s"}},
                },
                {
                    "name": "faulty",
                    "url": f"http://127.0.0.1:{faulty.port}",
                    "mirror": {"rate": 0.0},
                },
            ],
        }

    def get(self, path: str) -> str:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.control}{path}", timeout=30) as answer:
            return str(answer.read().decode())

    def status(self) -> dict[str, Any]:
        result: dict[str, Any] = json.loads(self.get("/v1/status"))
        return result

    async def replay(self) -> Traffic:
        """The traffic, with what goes wrong on the way."""
        flights = read_flights(self.models / "replay.jsonl")
        self.teller.does(
            f"the second half of 2013 is replayed: {self.pace.rate:.0f} flights/s for "
            f"{self.seconds:.0f} s, or until both challengers are decided"
        )
        labels = Labels(lambda path, data: post(self.address + path, data))
        traffic = Traffic("127.0.0.1", self.port, labels.departed)
        started = time.monotonic()
        pacing = asyncio.create_task(self._keep_pace(traffic))
        others = [
            asyncio.create_task(part) for part in (self._watch(traffic, started), labels.run())
        ]
        story = asyncio.create_task(self._story(started))
        await traffic.run(flights, lambda: self.pace.rate, self.seconds, story.done)
        for task in others:
            task.cancel()
        await story
        await self._fail_silently(traffic, labels)
        pacing.cancel()
        return traffic

    async def _settled(self) -> dict[str, Any]:
        """The status once every request and every copy has ended."""
        # The windows and the record queue are read once a second or less; copies may take longer.
        await asyncio.sleep(2.5)
        until = time.monotonic() + 60.0
        while True:
            found = await asyncio.to_thread(self.status)
            waits = (
                one["in_flight"] or (one["mirror"] or {}).get("queue") for one in found["arms"]
            )
            if not any(waits) or time.monotonic() > until:
                return found
            await asyncio.sleep(0.5)

    async def _keep_pace(self, traffic: Traffic) -> None:
        """Send less while the machine does not carry it."""
        lowered = self.pace.lowered
        while True:
            await asyncio.sleep(0.5)
            self.pace.look(time.monotonic(), traffic.behind())
            if self.pace.lowered > lowered:
                lowered = self.pace.lowered
                self.teller.does(
                    f"the machine is busy with other things: {self.pace.rate:.0f} flights/s for now"
                )

    async def _fail_silently(self, traffic: Traffic, labels: Labels) -> None:
        """A quiet stretch, then inputs that are wrong; the model answers as before."""
        for act in self.acts:
            if act.lasts:
                await asyncio.to_thread(act.end)  # the champion has all flights from now on
        if isinstance(self.baseline, Exception):
            raise StepFailed(f"understudy baseline build: {self.baseline}")
        path, summary_ = self.baseline
        self.teller.does("from now on the champion is compared with what it saw and said before")
        self.teller.detail(summary_.strip().splitlines()[-1])
        config = HOME / "understudy.yaml"
        wanted = yaml.safe_load(config.read_text())
        wanted["models"][0] |= {"baseline": str(path), "performance": PERFORMANCE}
        wanted["monitoring"] = MONITORING
        config.write_text(yaml.safe_dump(wanted, sort_keys=False))
        await asyncio.to_thread(post, self.address + "/v1/config/reload", {})
        flights = read_flights(self.models / "mixed.jsonl")
        scale = min(1.0, self.seconds / 40.0)
        quiet, fault = QUIET_SECONDS * scale, FAULT_SECONDS * scale
        labels.lands_after = LANDS_LATE * scale
        watching = asyncio.create_task(self.silent.watch())
        posting = asyncio.create_task(labels.run())
        count = len(flights) * 2 // 5
        self.teller.does(f"a quiet stretch of {quiet:.0f} s: flights in mixed order")
        await traffic.run(flights[:count], lambda: self.pace.rate, quiet)
        self.silent.began = time.time()
        self.teller.does(
            "an upstream job sends Celsius from now on, and loses the delay at the gate now and then"
        )
        later = spoil(flights[count:], self.features)
        await traffic.run(later, lambda: self.pace.rate, fault)
        landed = time.monotonic() + labels.lands_after + 3.0
        self.seen = await self._settled()
        # The flights land; meanwhile, the gate.
        self.silent.gate_began = time.time()
        await asyncio.to_thread(self.gate)
        await asyncio.sleep(max(0.0, landed - time.monotonic()))
        await asyncio.to_thread(self.silent.look)
        for task in (watching, posting):
            task.cancel()

    async def _watch(self, traffic: Traffic, started: float) -> None:
        while True:
            await asyncio.sleep(5)
            status = await asyncio.to_thread(self.status)
            self.teller.detail(line(time.monotonic() - started, traffic.tally, status))

    async def _story(self, started: float) -> None:
        """First trouble, then a good challenger, then a faulty one."""
        await self._trouble(started)
        await self._mirrored_again(started + 0.4 * self.seconds)
        good, faulty = self.acts
        self.teller.does("the challenger is tried: in the shadow, then on a share of the flights")
        end = started + self.seconds
        phase = await good.run(min(end, started + 0.8 * self.seconds))
        if phase in ("promoted", "rolled_back"):
            await asyncio.sleep(min(3.0, 0.03 * self.seconds))
            await asyncio.to_thread(good.end)
            self.teller.does("a second challenger is tried, which is slow now and then")
            await faulty.run(end)

    async def _mirrored_again(self, until: float) -> None:
        """Wait until the circuit breaker of the challenger that was dead is closed: what is not
        mirrored at the beginning of an experiment counts as unknown."""
        while time.monotonic() < until:
            challenger = (await asyncio.to_thread(self.status))["arms"][1]
            if list(challenger["mirror"]["breaker"]) == ["closed"]:
                return
            await asyncio.sleep(0.5)

    async def _trouble(self, started: float) -> None:
        champion, challenger = (server.process for server in self.servers[:2])
        assert champion is not None
        assert challenger is not None
        await asyncio.sleep(max(0.0, started + 0.05 * self.seconds - time.monotonic()))
        self.teller.does("the challenger is killed (kill -9)")
        challenger.kill()
        await asyncio.sleep(min(4.0, 0.04 * self.seconds))
        self.teller.does("the challenger is started again")
        self.servers[1].start()
        loading = asyncio.create_task(asyncio.to_thread(self.servers[1].wait))
        await asyncio.sleep(min(2.0, 0.02 * self.seconds))
        self.teller.does("the champion is stopped for one second (SIGSTOP)")
        champion.send(signal.SIGSTOP)
        await asyncio.sleep(1)
        champion.send(signal.SIGCONT)
        await asyncio.sleep(3)
        await loading

    def gate(self) -> None:
        """May it go live? Load and a fault, and a report."""
        self.teller.does("a gate: load on the sidecar, and the champion stops for a second")
        champion = self.servers[0]
        flights = read_flights(self.models / "mixed.jsonl")
        plan = gate.prepare(HOME, flights, champion.port, self.pace.wanted)
        for _ in range(2):
            others = Others()
            self.gated = gate.run(f"http://127.0.0.1:{self.port}", plan, self.teller)
            self.others = others.share()
            # What could not be measured by chance is measured once more.
            if self.gated != gate.NOT_MEASURED or self.others >= BUSY:
                break

    def faults(self, tally: Tally) -> list[str]:
        """What is wrong. A machine that is busy with other things is not."""
        found = []
        if tally.errors:
            found.append(f"a client saw {tally.errors[0]}")
        if self.gated == gate.FAILED and self.others < BUSY:
            found.append("the gate did not pass")
        return found

    def doubts(self) -> list[str]:
        """What could not be judged, and why."""
        if self.gated == gate.PASSED or (self.gated == gate.FAILED and self.others < BUSY):
            return []
        return [f"the gate has no verdict: others used {self.others:.0%} of the machine"]

    def stop(self) -> int:
        """Stop everything; return the sidecar's exit code."""
        code = self.sidecar.stop() if self.sidecar is not None else 0
        for server in self.servers:
            if server.process is not None:
                server.process.stop(10)
        return code


@click.command(context_settings={"help_option_names": ["-h", "--help"]})
@click.option(
    "--seconds",
    type=click.FloatRange(10, 3600),
    help="Length of the replay at most; default: 80, and up to 120 where the machine carries little.",
)
@click.option(
    "--rate",
    type=click.FloatRange(1, 2000),
    help="Flights per second; default: a third of what the champion carries on this machine.",
)
@click.option("--keep", is_flag=True, help="Stay up after the summary, until Ctrl-C.")
@click.option("--verbose", "-v", is_flag=True, help="Details of every event, and of the summary.")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document and nothing else.")
def main(
    seconds: float | None, rate: float | None, keep: bool, verbose: bool, as_json: bool
) -> None:
    """Real flights through Understudy, in front of two real model servers.

    Sets up what it needs below .demo/ (once), trains a champion and a challenger, replays the
    months that follow, and shows what Understudy sees while the challenger dies and the champion
    stalls; then lets a better challenger go on stage, and takes a faulty one off; then lets the
    champion fail silently, and ends with a gate. It sends what the machine carries, and less while
    others use it. Exits 0, or 1 when a client saw an error or a step failed.

    \b
    Examples:
      python -m examples.flights
      python -m examples.flights --seconds 30 --rate 80
      python -m examples.flights --keep --verbose
    """
    teller = Teller(verbose)
    demo = Demo(seconds, rate, teller)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = True
    try:
        python = prepare(teller.does)
        training = train(python, teller.does)
        demo.serve(python, training["features"])
        demo.measure()
        traffic = asyncio.run(demo.replay())
        tally, status = traffic.tally, demo.seen
        teller.plain(summary(tally, status, training, demo.acts, demo.silent, verbose))
        if verbose:
            metrics = [
                sample
                for sample in demo.get("/metrics").splitlines()
                if sample.startswith(SHOWN) and not sample.endswith(" 0.0")
            ]
            teller.plain("A few lines of /metrics\n  " + "\n  ".join(metrics[:8]))
        for doubt in demo.doubts():
            teller.plain(f"Not judged: {doubt}")
        faults = demo.faults(tally)
        for fault in faults:
            teller.plain(f"FAILED: {fault}")
        failed = bool(faults)
        if not failed:
            teller.plain(f"The demo has passed. The gate's report: {HOME / 'gate-report.html'}")
        if as_json:
            click.echo(
                json.dumps(
                    {
                        "sent": tally.sent,
                        "answered": tally.answered,
                        "errors": tally.errors,
                        "rate": demo.pace.wanted,
                        "lowered": demo.pace.lowered,
                        "gate": demo.gated,
                        "training": training,
                        "status": status,
                        "experiments": {act.name: act.found for act in demo.acts},
                        "findings": list(demo.silent.found.values()),
                        "false_alarms": demo.silent.before,
                    }
                )
            )
        if keep:
            teller.plain("Staying up (without traffic) until Ctrl-C.")
            signal.pause()
    except StepFailed as error:
        teller.plain(f"FAILED: {error}")
    except KeyboardInterrupt:
        teller.plain("\nStopping.")
    finally:
        code = demo.stop()
        if code != 0:
            teller.plain(
                f"FAILED: understudy ended with exit code {code}; see {demo.logs}/understudy.log"
            )
            failed = True
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
