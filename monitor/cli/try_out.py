"""``understudy try``: the sidecar with defaults in front of a model server, and nothing kept."""

from __future__ import annotations

import os
import shlex
import signal
import sys
import tempfile
import time
import webbrowser
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from understudy.common.terminal import echo
from understudy.common.units import percent, spoken
from understudy.monitor.cli.model_server import ModelServerError, find, with_scheme
from understudy.monitor.cli.options import model_option, protocol_option
from understudy.monitor.errors import ApiError

if TYPE_CHECKING:
    from understudy.common.processes import Process
    from understudy.monitor.cli.client import Client
    from understudy.monitor.discovery.server import FoundServer

_FILE = "understudy.yaml"
_LISTEN, _CONTROL = 8080, 9090
_START_SECONDS = 60.0
_LOOK_SECONDS = 1.0
_SAY_SECONDS = 10.0


@click.command("try")
@click.argument("url")
@model_option
@protocol_option
@click.option("--no-browser", is_flag=True, help="Do not open the page.")
def try_out(url: str, models: tuple[str, ...], protocol: str | None, no_browser: bool) -> None:
    """Run the sidecar with defaults in front of the model server at URL, and open the page.

    Asks the server what it speaks, says where to send requests, and then what it sees: rates,
    latencies, errors, findings. State is in a temporary folder, which Ctrl-C removes; nothing is
    written to the working directory. To keep a configuration, use `understudy init`.

    Exits 0 after Ctrl-C, 1 when the model server does not answer or the sidecar ends.

    \b
    Examples:
      understudy try http://127.0.0.1:8081
      understudy try http://127.0.0.1:8501 --model delays --no-browser
    """
    from understudy.common.processes import port_or_free
    from understudy.monitor.discovery.template import Wanted, configuration

    server = find(with_scheme(url), models, protocol)
    listen, control = port_or_free(_LISTEN), port_or_free(_CONTROL)
    echo(f"found   {server.url}: {server.description}")
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    with tempfile.TemporaryDirectory(prefix="understudy-try-") as name:
        folder = Path(name)
        (folder / _FILE).write_text(
            configuration(
                Wanted(
                    url=server.url,
                    models=server.models,
                    listen=f"127.0.0.1:{listen}",
                    control=f"127.0.0.1:{control}",
                    state="state",
                    about=server.description,
                )
            ),
            encoding="utf-8",
        )
        try:
            _run(server, folder, listen, f"http://127.0.0.1:{control}", no_browser)
        except KeyboardInterrupt:
            echo("Stopped. Everything is removed.")


def _run(server: FoundServer, folder: Path, listen: int, page: str, no_browser: bool) -> None:
    """Run the sidecar until it ends, or Ctrl-C."""
    from understudy.common.processes import Process, ProcessFailed
    from understudy.monitor.cli.client import Client

    client = Client(page)
    command = [sys.executable, "-P", "-m", "understudy", "serve", "--config", _FILE]
    process = Process("understudy serve", command, folder / "log", cwd=folder)
    try:
        process.wait_until(lambda: _answers(client), _START_SECONDS)
        _tell(server, listen, page)
        if not no_browser and _has_browser():
            webbrowser.open(page)
        _follow(process, client)
        raise ModelServerError(f"understudy serve has ended:\n{process.tail()}")
    except ProcessFailed as error:
        raise ModelServerError(str(error)) from error
    finally:
        process.stop()


def _answers(client: Client) -> bool:
    try:
        return bool(client.get("/v1/status", 2.0)["workers"])
    except ApiError:
        return False


def _has_browser() -> bool:
    """Whether a browser can open a window: in a terminal alone, one would take it over."""
    return any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER"))


def _tell(server: FoundServer, listen: int, page: str) -> None:
    from understudy.monitor.discovery.sample import sample_of

    echo(f"send    requests to http://127.0.0.1:{listen} instead, such as:")
    sample = sample_of(server.models[0])
    target = f"http://127.0.0.1:{listen}{sample.path}"
    echo(f"        curl -H 'Content-Type: application/json' {target} \\")
    echo(f"          -d {shlex.quote(sample.body.decode())}")
    if not sample.fits:
        echo("        (with inputs of your model: the server does not describe them)")
    echo(f"page    {page}/")
    echo("end     Ctrl-C")


def _follow(process: Process, client: Client) -> None:
    """Say what it sees, as long as it runs: figures now and then, and what is new."""
    said: set[str] = set()
    count, last = 0, 0.0
    while process.alive:
        time.sleep(_LOOK_SECONDS)
        try:
            status = client.get("/v1/status", 5.0)
        except ApiError:
            continue
        window = status["arms"][0]["windows"]["start"]
        if window["count"] > count and time.monotonic() - last >= (_SAY_SECONDS if count else 0.0):
            count, last = window["count"], time.monotonic()
            echo(f"{_clock()}  {_figures(status)}")
        findings = [one["headline"] for one in status["findings"].get("incidents", ())]
        for text in (*status["problems"], *status["warnings"], *findings):
            if text not in said:
                said.add(text)
                echo(f"{_clock()}  {text}")


def _figures(status: dict[str, Any]) -> str:
    arm = status["arms"][0]
    whole, recent = arm["windows"]["start"], arm["windows"]["10s"]
    errors = percent(whole["errors"] / whole["count"], 3)
    predictions = sum(one["count"] for one in status["predictions"])
    read = f"; {predictions:,} predictions read" if predictions else ""
    return (
        f"{whole['count']:,} requests, {recent['rate'] or 0.0:.3g}/s, p50 "
        f"{_time(whole['p50'])}, p99 {_time(whole['p99'])}, "
        f"errors {errors}{read}"
    )


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _time(seconds: float) -> str:
    return spoken(float(f"{seconds:.2g}"))
