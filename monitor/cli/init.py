"""``understudy init``: write a configuration for a model server."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal, cast

import click

from understudy.common.terminal import echo, echo_lines
from understudy.monitor.cli.model_server import find, is_grpc, with_scheme
from understudy.monitor.cli.options import (
    FILE,
    json_option,
    model_option,
    protocol_option,
)
from understudy.monitor.errors import ConfigError

_MODES = ("shadow", "split", "canary")


@click.command()
@click.argument("url", required=False)
@click.option(
    "--output",
    "-o",
    type=FILE,
    default=Path("understudy.yaml"),
    show_default=True,
    help="The file to write; - for standard output.",
)
@click.option(
    "--challenger",
    "challengers",
    multiple=True,
    metavar="[NAME=]URL",
    help="A candidate model server. Repeat it for several.",
)
@click.option(
    "--mode",
    type=click.Choice(_MODES),
    default="shadow",
    show_default=True,
    help="How challengers are compared: mirrored requests, fixed shares, or a growing share.",
)
@model_option
@protocol_option
@click.option(
    "--listen",
    default="127.0.0.1:8080",
    show_default=True,
    metavar="HOST:PORT",
    help="Where clients connect.",
)
@click.option(
    "--control",
    default="127.0.0.1:9090",
    show_default=True,
    metavar="HOST:PORT",
    help="Where the page, metrics and control API are.",
)
@click.option("--force", is_flag=True, help="Overwrite the file.")
@json_option
def init(
    url: str | None,
    output: Path,
    challengers: tuple[str, ...],
    mode: str,
    models: tuple[str, ...],
    protocol: str | None,
    listen: str,
    control: str,
    force: bool,
    as_json: bool,
) -> None:
    """Write a commented configuration for the model server at URL.

    The server is asked what it speaks and which models it has: Open Inference Protocol (MLServer,
    Triton, KServe, OpenVINO; by grpc:// over gRPC), KServe V1, TensorFlow Serving (with --model),
    MLflow, OpenAI's API, TorchServe. On a terminal, what is missing is asked. The file passes
    `understudy config check`.

    Exits 0 when the file was written, 1 when the server cannot be reached or is not recognised, 2
    when the file exists or an argument is wrong.

    \b
    Examples:
      understudy init http://127.0.0.1:8081
      understudy init http://127.0.0.1:8081 --challenger new=http://127.0.0.1:8082 --mode canary
      understudy init grpc://127.0.0.1:8001
      understudy init http://127.0.0.1:8501 --model delays
      understudy init http://models.internal --protocol openai --model chat -o chat.yaml
    """
    from understudy.monitor.config.load import parse
    from understudy.monitor.discovery.template import Wanted, configuration

    to_stdout = str(output) == "-"
    if not to_stdout and output.exists() and not force:
        raise ConfigError(str(output), [("", "exists already: add --force to overwrite it")])
    if url is None:
        if not sys.stdin.isatty():
            raise click.UsageError("name the URL of the model server: understudy init URL")
        url = click.prompt("URL of the model server", default="http://127.0.0.1:8081")
        given = click.prompt("URL of a challenger (empty: none)", default="", show_default=False)
        if given:
            challengers = (*challengers, given)
            mode = click.prompt("How it is compared", type=click.Choice(_MODES), default=mode)
    server = find(with_scheme(url), models, protocol)
    text = configuration(
        Wanted(
            url=server.url,
            models=server.models,
            challengers=_named(challengers),
            mode=cast(Literal["shadow", "split", "canary"], mode),
            listen=listen,
            control=control,
            about=server.description,
        )
    )
    parse(text, f"{output} (not written)", Path.cwd())
    if to_stdout:
        echo_lines(text, end="")
        return
    output.write_text(text, encoding="utf-8")
    if as_json:
        found = {
            "file": str(output),
            "url": server.url,
            "product": server.product,
            "ready": server.ready,
            "protocols": server.protocols,
            "models": [model.name for model in server.models],
        }
        echo(json.dumps(found))
        return
    echo(f"found   {server.description}")
    if server.ready is False:
        echo("        it says that it is not ready", err=True)
    echo(f"wrote   {output}")
    echo(f"next    understudy doctor {output}")
    echo(f"        understudy serve --config {output}")
    instead = f"calls to {listen}" if is_grpc(server.url) else f"requests to http://{listen}"
    echo(f"        send {instead} instead of {server.url}")
    echo(f"        page: http://{control}/")


def _named(given: tuple[str, ...]) -> list[tuple[str, str]]:
    """Names and URLs of challengers; without a name, they are candidate, candidate-2, ..."""
    found: list[tuple[str, str]] = []
    for number, text in enumerate(given, 1):
        name, separator, url = text.partition("=")
        if not separator or "/" in name or ":" in name:
            name, url = "candidate" if number == 1 else f"candidate-{number}", text
        found.append((name, with_scheme(url)))
    return found
