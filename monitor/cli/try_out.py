"""``understudy try``: the sidecar with defaults in front of a model server, and nothing kept."""

from __future__ import annotations

import json
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

from understudy.common.terminal import echo, echo_lines
from understudy.common.units import percent, spoken
from understudy.monitor.cli.model_server import ModelServerError, find, is_grpc, with_scheme
from understudy.monitor.cli.options import json_lines_option, model_option, protocol_option
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
@json_lines_option
def try_out(
    url: str, models: tuple[str, ...], protocol: str | None, no_browser: bool, as_json: bool
) -> None:
    """Run the sidecar with defaults in front of the model server at URL, and open the page.

    Asks the server what it speaks, says where to send requests, and then what it sees: rates,
    latencies, errors, findings. State is in a temporary folder, which Ctrl-C removes; nothing is
    written to the working directory. To keep a configuration, use `understudy init`.

    With --json, each line has an `event`: found (the server), started (the addresses and a request
    to send), figures, message (a problem, warning or finding), stopped.

    Exits 0 after Ctrl-C, 1 when the model server does not answer or the sidecar ends.

    \b
    Examples:
      understudy try http://127.0.0.1:8081
      understudy try grpc://127.0.0.1:8001
      understudy try http://127.0.0.1:8501 --model delays --no-browser --json
    """
    from understudy.common.processes import port_or_free
    from understudy.monitor.discovery.template import Wanted, configuration

    server = find(with_scheme(url), models, protocol)
    listen, control = port_or_free(_LISTEN), port_or_free(_CONTROL)
    tell = _Teller(as_json)
    tell(
        "found",
        f"found   {server.url}: {server.description}",
        url=server.url,
        product=server.product,
        protocols=list(server.protocols),
        models=[model.name for model in server.models],
    )
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
            _run(server, folder, listen, f"http://127.0.0.1:{control}", no_browser, tell)
        except KeyboardInterrupt:
            tell("stopped", "Stopped. Everything is removed.")


class _Teller:
    """Says what happens: to a person, or with ``as_json`` to a program."""

    def __init__(self, as_json: bool) -> None:
        self._as_json = as_json

    def __call__(self, event: str, text: str, /, **document: Any) -> None:
        if self._as_json:
            echo(json.dumps({"event": event, **document}))
        else:
            echo_lines(text)


def _run(
    server: FoundServer, folder: Path, listen: int, page: str, no_browser: bool, tell: _Teller
) -> None:
    """Run the sidecar until it ends, or Ctrl-C."""
    from understudy.common.processes import Process, ProcessFailed
    from understudy.monitor.cli.client import Client

    client = Client(page)
    command = [sys.executable, "-P", "-m", "understudy", "serve", "--config", _FILE]
    process = Process("understudy serve", command, folder / "log", cwd=folder)
    try:
        process.wait_until(lambda: _answers(client), _START_SECONDS)
        _started(server, f"http://127.0.0.1:{listen}", page, tell)
        if not no_browser and _has_browser():
            webbrowser.open(page)
        _follow(process, client, tell)
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


def _started(server: FoundServer, url: str, page: str, tell: _Teller) -> None:
    from understudy.monitor.discovery.sample import sample_of

    sample = sample_of(server.models[0])
    body = sample.body.decode()
    if is_grpc(server.url):
        _started_grpc(url.partition("//")[2], page, body, sample.fits, tell)
        return
    lines = [
        f"send    requests to {url} instead, such as:",
        f"        curl -H 'Content-Type: application/json' {url}{sample.path} \\",
        f"          -d {shlex.quote(body)}",
    ]
    if not sample.fits:
        lines.append("        (with inputs of your model: the server does not describe them)")
    text = "\n".join([*lines, f"page    {page}/", "end     Ctrl-C"])
    request = {"path": sample.path, "body": body, "described": sample.fits}
    tell("started", text, url=url, page=f"{page}/", request=request)


def _started_grpc(target: str, page: str, body: str, fits: bool, tell: _Teller) -> None:
    from understudy.common.grpc_messages import INFER

    text = (
        f"send    calls to {target} instead, such as with the Python client of Triton:\n"
        f'        tritonclient.grpc.InferenceServerClient("{target}")\n'
        f"page    {page}/\nend     Ctrl-C"
    )
    request = {"path": INFER, "body": body, "described": fits}
    tell("started", text, url=f"grpc://{target}", page=f"{page}/", request=request)


def _follow(process: Process, client: Client, tell: _Teller) -> None:
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
            figures = _figures(status)
            tell("figures", f"{_clock()}  {_line(figures)}", time=time.time(), **figures)
        findings = [one["headline"] for one in status["findings"].get("incidents", ())]
        for text in (*status["problems"], *status["warnings"], *findings):
            if text not in said:
                said.add(text)
                tell("message", f"{_clock()}  {text}", time=time.time(), text=text)


def _figures(status: dict[str, Any]) -> dict[str, Any]:
    """What it has seen so far; times in seconds, the rate per second over the last ten."""
    arm = status["arms"][0]
    whole, recent = arm["windows"]["start"], arm["windows"]["10s"]
    return {
        "requests": whole["count"],
        "rate": recent["rate"],
        "p50": whole["p50"],
        "p99": whole["p99"],
        "errors": whole["errors"],
        "predictions": sum(one["count"] for one in status["predictions"]),
    }


def _line(figures: dict[str, Any]) -> str:
    errors = percent(figures["errors"] / figures["requests"], 3)
    predictions = figures["predictions"]
    read = f"; {predictions:,} predictions read" if predictions else ""
    return (
        f"{figures['requests']:,} requests, {figures['rate'] or 0.0:.3g}/s, p50 "
        f"{_time(figures['p50'])}, p99 {_time(figures['p99'])}, "
        f"errors {errors}{read}"
    )


def _clock() -> str:
    return time.strftime("%H:%M:%S")


def _time(seconds: float) -> str:
    return spoken(float(f"{seconds:.2g}"))
