"""The ``understudy`` command. Each subcommand imports what it needs when it runs."""

from __future__ import annotations

import importlib
import importlib.metadata
import json
import sys
from pathlib import Path
from typing import Any, NoReturn

import click

from understudy import __version__
from understudy.monitor.errors import ConfigError, MissingExtraError, UnderstudyError

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
_FILE = click.Path(dir_okay=False, path_type=Path)


_LATER = {
    "baseline": "understudy.monitor.cli.baseline:baseline",
    "evaluate": "understudy.monitor.cli.evaluate:evaluate",
    "drift": "understudy.monitor.cli.drift:drift",
    "experiment": "understudy.monitor.cli.experiment:experiment",
    "findings": "understudy.monitor.cli.findings:findings",
    "inject": "understudy.monitor.cli.inject:inject",
    "kafka": "understudy.monitor.cli.kafka:kafka",
    "objectives": "understudy.monitor.cli.objectives:objectives",
    "records": "understudy.monitor.cli.records:records",
    "replay": "understudy.monitor.cli.replay:replay",
    "slo": "understudy.monitor.cli.slo:slo",
    "validate": "understudy.monitor.cli.validate:validate",
}
"""Commands that are imported when they are used: what they need takes time to import."""


def _others() -> dict[str, importlib.metadata.EntryPoint]:
    """Commands of other packages, which this one does not import: the load tests are a client
    program of their own."""
    found = importlib.metadata.entry_points(group="understudy.commands")
    return {point.name: point for point in found}


def _other(point: importlib.metadata.EntryPoint) -> click.Command:
    try:
        found: click.Command = point.load()
        return found
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] == point.module.partition(".")[0]:
            raise
        needs = f"{point.name} needs {error.name}: pip install 'understudy[load]'"

    # Without the extra the list of commands is shown all the same, and says what is missing.
    @click.command(point.name, short_help=needs, add_help_option=False,
                   context_settings={"ignore_unknown_options": True})  # fmt: skip
    @click.argument("_", nargs=-1)
    def missing(_: tuple[str, ...]) -> None:
        raise MissingExtraError(needs)

    return missing


class _Main(click.Group):
    """Turns our own errors into a line and an exit code."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return sorted([*super().list_commands(ctx), *_LATER, *_others()])

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        place = _LATER.get(cmd_name)
        if place is None and cmd_name in (others := _others()):
            return _other(others[cmd_name])
        if place is None:
            return super().get_command(ctx, cmd_name)
        module, _, name = place.partition(":")
        command: click.Command = getattr(importlib.import_module(module), name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UnderstudyError as error:
            _fail(error)


@click.group(context_settings=CONTEXT, cls=_Main)
@click.version_option(__version__, prog_name="understudy")
def main() -> None:
    """Watch a model in production, and learn whether a new one may replace it.

    \b
    Examples:
      understudy config check understudy.yaml
      understudy serve --config understudy.yaml
      understudy top
      understudy experiment watch candidate-canary
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
    envvar="UNDERSTUDY_LOG_LEVEL",
    show_envvar=True,
    help="What is logged to standard error.",
)
@click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    envvar="UNDERSTUDY_LOG_FORMAT",
    show_envvar=True,
    help="Lines for people or for machines.",
)
def serve(config_path: Path, log_level: str, log_format: str) -> None:
    """Stand in front of a model server: forward, mirror, measure.

    SIGHUP reads the configuration again; an invalid one is refused and the running one stays.
    SIGTERM and Ctrl-C let requests finish and stop; a second one stops at once.

    Exits 0 after an orderly stop, 1 when stopped at once, 2 when it cannot start: the configuration
    is invalid, an address is taken or the state directory is in use.

    \b
    Example:
      understudy serve --config understudy.yaml
    """
    import asyncio

    from understudy.monitor.logs import set_up
    from understudy.monitor.supervisor.supervisor import Supervisor

    set_up(log_level, log_format)

    def announce(supervisor: Supervisor) -> None:
        listen, champion = supervisor.config.listen, supervisor.config.champion
        scheme = "http" if listen.tls is None else "https"
        count = len(supervisor.workers)
        control = f"http://{supervisor.control_address}"
        click.echo(
            f"understudy {__version__} is ready: {scheme}://{supervisor.address} -> "
            f"{champion.name} {champion.url} ({count} worker{'s' if count > 1 else ''}); "
            f"status {control}/ metrics {control}/metrics"
        )

    async def run() -> int:
        return await Supervisor(config_path, announce).run()

    try:
        sys.exit(asyncio.run(run()))
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
    from understudy.monitor.config.load import load

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
    from understudy.monitor.config.schema import json_schema

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
    from understudy.monitor.cli.top import run

    sys.exit(run(url, once=once, as_json=as_json, interval=interval))


@main.command()
def version() -> None:
    """Print the version."""
    click.echo(f"understudy {__version__}")


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
