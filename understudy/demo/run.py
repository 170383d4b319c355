"""Runs a scenario from its start to the summary."""

from __future__ import annotations

import json
import os
import signal
import sys
from typing import Any

from understudy.common.terminal import echo
from understudy.demo.scenarios import SCENARIOS, scenario
from understudy.demo.story import LEAST_HEIGHT, LEAST_WIDTH, Story, duration
from understudy.demo.world import Clients, DemoFailed, World
from understudy.monitor.errors import UnderstudyError

_INTERRUPTED = 130


def run(name: str, *, keep: bool, as_json: bool) -> int:
    """Run the scenario ``name``, and tell it; the exit code."""
    stream = sys.stderr if as_json else sys.stdout
    story = Story(name, screen=stream.isatty() and _large_enough(stream.fileno()), err=as_json)
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    result: dict[str, Any] = {"scenario": name, "passed": False, "error": ""}
    with World(story) as world:
        story.places = [
            ("page", world.page),
            ("clients send to", f"http://127.0.0.1:{world.listen}"),
            ("or in a terminal", world.top),
            ("configuration", str(world.config)),
        ]
        story.open()
        told = False
        try:
            story.demo(f"{SCENARIOS[name].capitalize()}.")
            scenario(name)(world)
            told = True
            if keep:
                _stay(world)
            result = _finish(world, result)
        except KeyboardInterrupt:
            if not told:
                story.close()
                echo("Stopped. Everything is removed.", err=as_json)
                return _INTERRUPTED
            result = _finish(world, result)
        except (UnderstudyError, OSError) as error:
            result["error"] = str(error)
        finally:
            story.close()
        _summary(world, result, as_json)
    if as_json:
        echo(json.dumps(result))
    return 0 if result["passed"] else 1


def _large_enough(number: int) -> bool:
    size = os.get_terminal_size(number)
    return size.columns >= LEAST_WIDTH and size.lines >= LEAST_HEIGHT


def _stay(world: World) -> None:
    """Stay up until Ctrl-C."""
    world.story.ending = "The story is over; everything stays up until Ctrl-C"
    world.story.note("The story is over. Everything stays up, with traffic, until Ctrl-C.")
    while True:
        world.pause(1.0)


def _finish(world: World, result: dict[str, Any]) -> dict[str, Any]:
    """Stop everything in the right order; the result."""
    clients, sidecar = world.clients, world.sidecar
    if clients is None or sidecar is None:
        raise DemoFailed("nothing was started")
    clients.stop()
    world.look()
    found = {
        **result,
        "seconds": round(world.story.seconds, 2),
        "ready_seconds": world.ready_seconds,
        "clients": _seen(clients),
        "events": [event.to_dict() for event in world.story.events],
        "expected": [{"what": what, "met": met} for what, met in world.expected],
        "undecided": world.undecided,
        "status": world.status,
        "experiments": world.experiments,
        "findings": world.findings(),
        "config": world.config.read_text(encoding="utf-8"),
    }
    code = sidecar.stop()
    if code != 0:
        raise DemoFailed(f"understudy serve ended with exit code {code}:\n{sidecar.tail()}")
    # What a slow machine had no time for is not wrong.
    return {**found, "passed": all(met for _, met in world.expected)}


def _seen(clients: Clients) -> dict[str, Any]:
    return {
        "answered": clients.answered,
        "failed": clients.failed,
        "errors": clients.errors,
        "labels": clients.labels,
        "p50": clients.quantile(0.5),
        "p99": clients.quantile(0.99),
        "rate": clients.rate,
        "wanted_rate": clients.wanted,
        "lowered": clients.lowered,
    }


def _summary(world: World, result: dict[str, Any], err: bool) -> None:
    """What came of it, for a person."""
    story, clients = world.story, world.clients
    if story.on_screen:
        for event in story.events:
            story.print(event)
    echo(err=err)
    if clients is not None:
        failed = f"{clients.failed:,} failed" if clients.failed else "none failed"
        echo(
            f"Clients sent {clients.answered:,} requests: {failed}, p50 "
            f"{duration(clients.quantile(0.5))}, p99 {duration(clients.quantile(0.99))}.",
            err=err,
        )
        if clients.lowered:
            echo(
                f"This machine was busy: {clients.lowest:.0f} requests/s at times, not "
                f"{clients.wanted:.0f}.",
                err=err,
            )
    for what, met in world.expected:
        echo(f"  {'✓' if met else '✗'} {what}", err=err)
    for what in world.undecided:
        echo(f"  – not decided, for want of requests: {what}", err=err)
    if result["error"]:
        echo(f"FAILED: {result['error']}", err=err)
    elif not result["passed"]:
        echo("FAILED: Understudy did not say what it should have said (✗).", err=err)
    others = " | ".join(name for name in SCENARIOS if name != story.scenario)
    echo(f"Next: understudy demo --scenario {others}", err=err)
    echo("      understudy try URL     the sidecar in front of your own model server", err=err)
