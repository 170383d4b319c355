"""``understudy config``: check the configuration file, or print its schema."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import click

from understudy.common.terminal import echo, echo_lines
from understudy.monitor.cli.options import FILE, json_option
from understudy.monitor.errors import ConfigError, StateError

if TYPE_CHECKING:
    from understudy.monitor.config.model import Config


@click.group()
def config() -> None:
    """Check the configuration file, or print its schema.

    \b
    Examples:
      understudy config check understudy.yaml
      understudy config schema > understudy.schema.json
    """


@config.command("check")
@click.argument("file", type=FILE)
@json_option
def check(file: Path, as_json: bool) -> None:
    """Check FILE, and print one line for each problem, or the limits in it. Exits 0 or 2.

    Warnings name limits that differ between champion and challengers, experiments that may decide
    before a time limit has passed, challengers that serve clients without their credentials, and
    values of headers and variables that cannot be used here; the exit code stays 0. The last lines
    say what results for OpenTelemetry from FILE and the environment of this command.

    \b
    Example:
      understudy config check understudy.yaml --json
    """
    from understudy.monitor.config.checks import warnings_of
    from understudy.monitor.config.declared import unfit
    from understudy.monitor.config.header_values import values_of
    from understudy.monitor.config.load import load
    from understudy.monitor.config.otel import open_telemetry
    from understudy.monitor.routing.routes import Routes

    problems: list[tuple[str, str]] = []
    warnings: list[tuple[str, str]] = []
    limits: dict[str, str] = {}
    result: dict[str, str] = {}
    given = False
    try:
        config = load(file)
        limits = _limits(config)
        # The environment is that of the service, which may be another machine's.
        telemetry = open_telemetry(config, os.environ)
        result = telemetry.lines()
        given = config.telemetry != type(config.telemetry)()
        warnings = [
            *warnings_of(config),
            *values_of(config, os.environ)[1],
            *telemetry.warnings,
            *telemetry.problems,
        ]
        # With the experiments that run now, where the service's state is on this machine.
        problems = unfit(config, Routes.load(Path(config.state_dir)))
    except ConfigError as error:
        problems = error.problems
    except StateError as error:
        problems = [("state_dir", str(error))]
    if as_json:
        listed, doubts = (
            [{"path": path, "message": message} for path, message in found]
            for found in (problems, warnings)
        )
        found = {"file": str(file), "valid": not problems, "problems": listed, "warnings": doubts}
        echo(json.dumps({**found, "limits": limits, "telemetry": result}))
    elif problems:
        for path, message in problems:
            echo(f"{file}: {path}: {message}" if path else f"{file}: {message}", err=True)
    else:
        for path, message in warnings:
            echo(f"{file}: {path}: warning: {message}", err=True)
        echo(f"{file}: valid")
        shown = result if given or len(result) > 1 else {}
        for path, limit in (limits | shown).items():
            echo(f"  {path}: {limit}")
    sys.exit(2 if problems else 0)


def _limits(config: Config) -> dict[str, str]:
    """The durations, shares and rates that the file sets, as they were understood."""
    from understudy.common.limits import limits_of
    from understudy.monitor.config.objective import Objective

    found = dict(limits_of(config, given=True))
    for metric, text in config.objectives.items():
        found[f"objectives.{metric}"] = str(Objective.parse(metric, text))
    return found


@config.command("schema")
def schema() -> None:
    """Print the JSON Schema of the configuration file, for editors and checks.

    \b
    Example:
      understudy config schema > understudy.schema.json
    """
    from understudy.monitor.config.schema import json_schema

    echo_lines(json.dumps(json_schema(), indent=2))
