"""``python -m examples.flights`` (or ``make demo``): see the README beside this file."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

import click
import yaml

from examples.flights import gate
from examples.flights.acts import FAULTY, GOOD, Act, Labels, post
from examples.flights.environment import HERE, HOME, StepFailed, prepare, run_step
from examples.flights.replay import Traffic, read_flights
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

SHOWN = (
    "understudy_requests_total",
    "understudy_mirror_total",
    "understudy_experiment_decision",
    "understudy_findings_open",
)


def say(text: str) -> None:
    click.echo(text, err=True)


class Demo:
    """Everything that runs, so that everything can be stopped."""

    def __init__(self, seconds: float, rate: float) -> None:
        self.seconds = seconds
        self.rate = rate
        self.logs = HOME / "logs"
        self.models = HOME / "models"
        self.servers: list[ModelServer] = []
        self.features: list[str] = []
        self.sidecar: Process | None = None
        self.port = free_port()
        self.control = free_port()
        self.address = f"http://127.0.0.1:{self.control}"
        self.silent = SilentFailure(self.address, say)
        self.acts = [Act(declared, self.address, say) for declared in (GOOD, FAULTY)]

    def train(self, python: Path) -> dict[str, Any]:
        """Train if that has not been done, and say how good the models are."""
        done = self.models / "summary.json"
        source = HERE / "train.py"
        if not done.exists() or done.stat().st_mtime < source.stat().st_mtime:
            done.unlink(missing_ok=True)
            command = [str(python), str(source), str(self.models)]
            run_step("training on the first half of 2013", command, self.logs / "train.log", say)
        training: dict[str, Any] = json.loads(done.read_text())
        for name, quality in training["quality"].items():
            say(
                f"  {name:<10} AUC {quality['auc']}  accuracy {quality['accuracy']} on later months"
            )
        return training

    def serve(self, python: Path, features: list[str]) -> None:
        """Start the model servers and the sidecar; wait until all are ready."""
        self.features = features
        self.servers = [
            ModelServer(name, python, self.models / name, self.logs)
            for name in ("champion", "challenger", "faulty")
        ]
        say("starting three model servers (MLServer) …")
        for server in self.servers:
            server.start()
        for server in self.servers:
            say(f"  {server.name} ready on port {server.port} after {server.wait():.1f} s")
        # Each run tells its story from the beginning.
        shutil.rmtree(HOME / "state", ignore_errors=True)
        config = HOME / "understudy.yaml"
        config.write_text(yaml.safe_dump(self.config(features), sort_keys=False))
        command = [sys.executable, "-m", "understudy", "serve", "--config", str(config)]
        log = self.logs / "understudy.log"
        log.unlink(missing_ok=True)
        self.sidecar = Process("understudy", command, log, cwd=HERE.parent.parent)
        self.sidecar.wait_until(self.control, "/readyz")
        say(f"understudy is in between, on port {self.port}; its configuration: {config}")
        say(f"  look at  http://127.0.0.1:{self.control}/          the status page")
        say(f"           http://127.0.0.1:{self.control}/metrics   what Prometheus scrapes")
        say(
            f"           {Path(sys.executable).parent}/understudy top "
            f"--url http://127.0.0.1:{self.control}"
        )
        say(
            f"           {Path(sys.executable).parent}/understudy experiment watch {GOOD['name']} "
            f"--url http://127.0.0.1:{self.control}"
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
        say(
            f"replaying the second half of 2013: {self.rate:.0f} flights/s for {self.seconds:.0f} s"
        )
        labels = Labels(lambda path, data: post(self.address + path, data))
        traffic = Traffic("127.0.0.1", self.port, labels.departed)
        started = time.monotonic()
        others = [
            asyncio.create_task(part) for part in (self._watch(traffic, started), labels.run())
        ]
        story = asyncio.create_task(self._story(started))
        await traffic.run(flights, self.rate, self.seconds)
        for task in others:
            task.cancel()
        await story
        await self._fail_silently(traffic, labels)
        # The windows and the record queue are read once a second or less; copies may take longer.
        await asyncio.sleep(2.5)
        until = time.monotonic() + 60.0
        while time.monotonic() < until:
            arms = (await asyncio.to_thread(self.status))["arms"]
            if not any(arm["in_flight"] or (arm["mirror"] or {}).get("queue") for arm in arms):
                break
            await asyncio.sleep(0.5)
        return traffic

    async def _fail_silently(self, traffic: Traffic, labels: Labels) -> None:
        """A quiet stretch, then inputs that are wrong; the model answers as before."""
        for act in self.acts:
            if act.lasts:
                await asyncio.to_thread(act.end)  # the champion has all flights from now on
        say("  >>> the champion is compared with what it saw and said before:")
        path, summary_ = await asyncio.to_thread(build_baseline, self.models, MODEL)
        say("      " + summary_.strip().splitlines()[-1])
        config = HOME / "understudy.yaml"
        wanted = yaml.safe_load(config.read_text())
        wanted["models"][0] |= {"baseline": str(path), "performance": PERFORMANCE}
        wanted["monitoring"] = MONITORING
        config.write_text(yaml.safe_dump(wanted, sort_keys=False))
        await asyncio.to_thread(post, self.address + "/v1/config/reload", {})
        flights = read_flights(self.models / "mixed.jsonl")
        scale = min(1.0, self.seconds / 60.0)
        quiet, fault = QUIET_SECONDS * scale, FAULT_SECONDS * scale
        labels.lands_after = LANDS_LATE * scale
        watching = asyncio.create_task(self.silent.watch())
        posting = asyncio.create_task(labels.run())
        count = int(self.rate * quiet)
        say(f"  >>> a quiet stretch: {count:,} flights in mixed order")
        await traffic.run(flights[:count], self.rate, quiet)
        self.silent.began = time.time()
        say("  >>> an upstream job now sends Celsius, and loses the delay at the gate now and then")
        later = spoil(flights[count : count + int(self.rate * fault)], self.features)
        await traffic.run(later, self.rate, fault)
        await asyncio.sleep(labels.lands_after + 3.0)
        await asyncio.to_thread(self.silent.look)
        for task in (watching, posting):
            task.cancel()

    async def _watch(self, traffic: Traffic, started: float) -> None:
        while True:
            await asyncio.sleep(5)
            status = await asyncio.to_thread(self.status)
            say(line(time.monotonic() - started, traffic.tally, status))

    async def _story(self, started: float) -> None:
        """First trouble, then a good challenger, then a faulty one."""
        await self._trouble(started)
        good, faulty = self.acts
        say("  >>> the challenger is tried: in the shadow first, then on a share of the flights")
        end = started + self.seconds
        phase = await good.run(min(end, started + 0.8 * self.seconds))
        if phase in ("promoted", "rolled_back"):
            await asyncio.sleep(min(3.0, 0.03 * self.seconds))
            await asyncio.to_thread(good.end)
            say(
                "  >>> a second challenger is tried; it is slow now and then, which is not known yet"
            )
            await faulty.run(end)

    async def _trouble(self, started: float) -> None:
        champion, challenger = (server.process for server in self.servers[:2])
        assert champion is not None
        assert challenger is not None
        await asyncio.sleep(max(0.0, started + 0.08 * self.seconds - time.monotonic()))
        say("  >>> the challenger is killed (kill -9)")
        challenger.kill()
        await asyncio.sleep(min(4.0, 0.04 * self.seconds))
        say("  >>> the challenger is started again")
        self.servers[1].start()
        await asyncio.to_thread(self.servers[1].wait)
        await asyncio.sleep(max(0.0, started + 0.2 * self.seconds - time.monotonic()))
        say("  >>> the champion is stopped for one second (SIGSTOP)")
        champion.send(signal.SIGSTOP)
        await asyncio.sleep(1)
        champion.send(signal.SIGCONT)
        await asyncio.sleep(3)

    def gate(self) -> bool:
        """May it go live? Load and a fault, and a report."""
        say("  >>> a gate: load on the sidecar, and the champion stops for a second")
        champion = self.servers[0]
        flights = read_flights(self.models / "mixed.jsonl")
        plan = gate.prepare(HOME, flights, champion.port, self.rate)
        return gate.run(f"http://127.0.0.1:{self.port}", plan, say)

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
    default=125.0,
    show_default=True,
    help="Length of the replay.",
)
@click.option(
    "--rate",
    type=click.FloatRange(1, 2000),
    default=150.0,
    show_default=True,
    help="Flights per second.",
)
@click.option("--keep", is_flag=True, help="Stay up after the summary, until Ctrl-C.")
@click.option("--json", "as_json", is_flag=True, help="The result as JSON on standard output.")
def main(seconds: float, rate: float, keep: bool, as_json: bool) -> None:
    """Real flights through Understudy, in front of two real model servers.

    Sets up what it needs below .demo/ (once), trains a champion and a challenger, replays the
    months that follow, and shows what Understudy sees while the challenger dies and the champion
    stalls; then lets a better challenger go on stage, and takes a faulty one off; then lets the
    champion fail silently, and ends with a gate. Exits 0, or 1 when a client saw an error or a step failed.

    \b
    Examples:
      python -m examples.flights
      python -m examples.flights --seconds 30 --rate 80
      python -m examples.flights --keep
    """
    demo = Demo(seconds, rate)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    failed = True
    try:
        python = prepare(say)
        training = demo.train(python)
        demo.serve(python, training["features"])
        traffic = asyncio.run(demo.replay())
        status = demo.status()
        say(summary(traffic.tally, status, training, demo.acts, demo.silent))
        metrics = [
            sample
            for sample in demo.get("/metrics").splitlines()
            if sample.startswith(SHOWN) and not sample.endswith(" 0.0")
        ]
        say("\nA few lines of /metrics\n  " + "\n  ".join(metrics[:8]))
        passed = demo.gate()
        failed = bool(traffic.tally.errors) or not passed
        if not passed:
            say("\nFAILED: the gate did not pass")
        if traffic.tally.errors:
            say(f"\nFAILED: a client saw {traffic.tally.errors[0]}")
        if as_json:
            tally = traffic.tally
            click.echo(
                json.dumps(
                    {
                        "sent": tally.sent,
                        "answered": tally.answered,
                        "errors": tally.errors,
                        "training": training,
                        "status": status,
                        "experiments": {act.name: act.found for act in demo.acts},
                        "findings": list(demo.silent.found.values()),
                        "false_alarms": demo.silent.before,
                    }
                )
            )
        if keep:
            say("\nStaying up (without traffic) until Ctrl-C.")
            signal.pause()
    except StepFailed as error:
        say(f"FAILED: {error}")
    except KeyboardInterrupt:
        say("\nStopping.")
    finally:
        code = demo.stop()
        if code != 0:
            say(f"FAILED: understudy ended with exit code {code}; see {demo.logs}/understudy.log")
            failed = True
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
