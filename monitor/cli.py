"""The ``understudy`` command. Each subcommand imports what it needs when it runs."""

from __future__ import annotations

import json
import logging
import sys
from pathlib import Path
from typing import NoReturn

import click

from monitor import __version__
from monitor.errors import ConfigError, UnderstudyError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_FILE = click.Path(dir_okay=False, path_type=Path)


@click.group(context_settings=CONTEXT)
@click.version_option(__version__, prog_name="understudy")
def main() -> None:
    """Watch a model in production, and learn whether a new one may replace it.

    \b
    Examples:
      understudy config check understudy.yaml
      understudy serve --config understudy.yaml
      understudy top
    """


@main.command()
@click.option(
    "--config",
    "-c",
    "config_path",
    type=_FILE,
    default=Path("understudy.yaml"),
    show_default=True,
    help="The configuration file.",
)
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
)
@click.option(
    "--log-format", type=click.Choice(["text", "json"]), default="text", show_default=True
)
def serve(config_path: Path, log_level: str, log_format: str) -> None:
    """Stand in front of a model server: forward, mirror, measure.

    SIGHUP reads the configuration again, SIGTERM and Ctrl-C let requests finish and stop; a second
    signal stops at once. Exits 0 after an orderly stop, 2 when the configuration is invalid or the
    address is taken.

    \b
    Example:
      understudy serve --config understudy.yaml
    """
    import asyncio

    from monitor.logs import set_up
    from monitor.supervisor import Supervisor

    set_up(log_level, log_format)

    def announce(supervisor: Supervisor) -> None:
        control = f"http://{supervisor.config.control.listen}"
        champion = supervisor.config.champion
        click.echo(
            f"ready: {supervisor.address} -> {champion.name} {champion.url} "
            f"({len(supervisor.workers)} workers); status {control}/  metrics {control}/metrics",
            err=True,
        )

    async def run() -> None:
        await Supervisor(config_path, announce).run()

    try:
        asyncio.run(run())
    except UnderstudyError as error:
        _fail(error)


@main.group()
def config() -> None:
    """Check the configuration file, or print its schema."""


@config.command("check")
@click.argument("file", type=_FILE)
@click.option("--json", "as_json", is_flag=True, help="For machines.")
def check(file: Path, as_json: bool) -> None:
    """Say whether FILE is valid, with one line for each problem. Exits 0 or 2.

    \b
    Example:
      understudy config check understudy.yaml --json
    """
    from monitor.config.load import load

    problems: list[tuple[str, str]] = []
    try:
        load(file)
    except ConfigError as error:
        problems = error.problems
    if as_json:
        listed = [{"path": path, "message": message} for path, message in problems]
        click.echo(json.dumps({"file": str(file), "valid": not problems, "problems": listed}))
    elif problems:
        for path, message in problems:
            click.echo(f"{file}: {path}: {message}" if path else f"{file}: {message}", err=True)
    else:
        click.echo(f"{file}: valid")
    sys.exit(2 if problems else 0)


@config.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors and checks.

    \b
    Example:
      understudy config schema > understudy.schema.json
    """
    from monitor.config.schema import json_schema

    click.echo(json.dumps(json_schema(), indent=2))


@main.command()
@click.option(
    "--url", default="http://127.0.0.1:9090", show_default=True, help="The control address."
)
@click.option(
    "--interval",
    type=click.FloatRange(0.1, 60),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Print one look and end.")
@click.option("--json", "as_json", is_flag=True, help="Print one look as JSON and end.")
def top(url: str, interval: float, once: bool, as_json: bool) -> None:
    """Show live rates, errors, tail latencies, mirror health and drops.

    \b
    Examples:
      understudy top
      understudy top --url http://127.0.0.1:9090 --once
    """
    from monitor import top as view

    sys.exit(view.run(url, once=once, as_json=as_json, interval=interval))


def _fail(error: UnderstudyError) -> NoReturn:
    if isinstance(error, ConfigError):
        for path, message in error.problems:
            click.echo(
                f"{error.source}: {path}: {message}" if path else f"{error.source}: {message}",
                err=True,
            )
    else:
        click.echo(f"understudy: {error}", err=True)
    sys.exit(error.exit_code)


if __name__ == "__main__":
    logging.captureWarnings(True)
    main()
