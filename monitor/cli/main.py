"""The ``understudy`` command: one table of its commands. Each is imported when it is run."""

from __future__ import annotations

import importlib
import importlib.util
import io
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

import click

from understudy import __version__
from understudy.common.terminal import echo, echo_lines
from understudy.common.text import visible
from understudy.monitor.errors import ConfigError, MissingExtraError, UnderstudyError

if TYPE_CHECKING:
    from importlib.metadata import EntryPoint

CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 100}
PLUGINS = "understudy.commands"
"""The group of entry points by which other distributions add commands."""


class Entry(NamedTuple):
    """A command: its name, the first line of its docstring, and its location as module:attribute.

    ``needs`` is a package of the extra ``extra`` that it requires.
    """

    name: str
    help: str
    target: str
    needs: str = ""
    extra: str = ""

    def missing(self) -> str:
        """How to install a missing package; empty when nothing is missing."""
        if not self.needs or importlib.util.find_spec(self.needs) is not None:
            return ""
        return f"{self.name} needs {self.needs}: pip install 'understudy-serving[{self.extra}]'"


_CLI = "understudy.monitor.cli"
_LOADTEST = "understudy.loadtest"
COMMANDS = (
    Entry(
        "baseline",
        "Describe what the inputs and predictions of a model usually look like",
        f"{_CLI}.baseline:baseline",
    ),
    Entry(
        "completion",
        "Print the completion script of SHELL, or install it; by default for the shell in $SHELL",
        f"{_CLI}.completion:completion",
    ),
    Entry("config", "Check the configuration file, or print its schema", f"{_CLI}.config:config"),
    Entry(
        "demo",
        "Show on this machine what Understudy does, in about a minute",
        "understudy.demo.cli:demo",
    ),
    Entry(
        "doctor",
        "Check CONFIG against reality: servers, ports, disk, Kafka, notifications, Prometheus",
        f"{_CLI}.doctor:doctor",
    ),
    Entry("drift", "Compare files for changes of inputs and predictions", f"{_CLI}.drift:drift"),
    Entry(
        "evaluate",
        "Evaluate what sidecars with `evaluation: kafka` publish",
        f"{_CLI}.evaluate:evaluate",
    ),
    Entry(
        "experiment",
        "Compare challengers with the champion, and decide",
        f"{_CLI}.experiment:experiment",
    ),
    Entry(
        "fault-proxy",
        "Run a TCP proxy whose connections can be slowed, cut, truncated or corrupted",
        f"{_LOADTEST}.faultproxy.cli:fault_proxy",
    ),
    Entry(
        "findings",
        "See what is silently wrong with a model, and record what is known about it",
        f"{_CLI}.findings:findings",
    ),
    Entry(
        "gate",
        "Load test a model server, inject faults, and decide if it is ready for production",
        f"{_LOADTEST}.gate.cli:gate",
        needs="chaoslib",
        extra="load",
    ),
    Entry(
        "ingest",
        "Make records of requests that do not pass the sidecar",
        f"{_CLI}.ingest:ingest",
    ),
    Entry(
        "init",
        "Write a commented configuration for the model server at URL",
        f"{_CLI}.init:init",
    ),
    Entry(
        "inject",
        "Put the sidecar into pods that ask for it by the annotation understudy/inject",
        f"{_CLI}.inject:inject",
    ),
    Entry("kafka", "Manage the topics for `evaluation: kafka`", f"{_CLI}.kafka:kafka"),
    Entry(
        "objectives",
        "Show accuracy, errors, latency, cost and energy of all arms side by side",
        f"{_CLI}.objectives:objectives",
    ),
    Entry(
        "records", "Read the log of records that `records.log` writes", f"{_CLI}.records:records"
    ),
    Entry(
        "replay",
        "Run the whole evaluation over LOG, written by `records.log`, in the time of the log",
        f"{_CLI}.replay:replay",
    ),
    Entry(
        "serve",
        "Run the proxy in front of a model server: forward, mirror, measure",
        f"{_CLI}.serve:serve",
    ),
    Entry(
        "slo",
        "Turn objectives into rules and alerts, explain them, and test them",
        f"{_CLI}.slo:slo",
    ),
    Entry(
        "top",
        "Show live rates, errors, tail latencies, mirror health and drops",
        f"{_CLI}.top:top",
    ),
    Entry(
        "try",
        "Run the sidecar with defaults in front of the model server at URL, and open the page",
        f"{_CLI}.try_out:try_out",
    ),
    Entry(
        "validate",
        "Send the validation cases to the champion and every challenger, once",
        f"{_CLI}.validate:validate",
    ),
    Entry(
        "version",
        "Print the version, and the form of the data plane that runs",
        f"{_CLI}.version:version",
    ),
)
_ENTRIES = {entry.name: entry for entry in COMMANDS}


def _plugins() -> dict[str, EntryPoint]:
    """Commands of other distributions; they cannot replace ours."""
    from importlib.metadata import entry_points

    found = entry_points(group=PLUGINS)
    return {point.name: point for point in found if point.name not in _ENTRIES}


def _load(entry: Entry) -> click.Command:
    needed = entry.missing()
    if needed:
        raise MissingExtraError(needed)
    module, _, name = entry.target.partition(":")
    command: click.Command = getattr(importlib.import_module(module), name)
    return command


class _Main(click.Group):
    """Imports a command when it runs, and turns our exceptions into a message and an exit code."""

    def main(self, *args: Any, **extra: Any) -> Any:
        """Run the command line; a terminal that cannot show a character shows ``?`` for it."""
        for stream in (sys.stdout, sys.stderr):
            if isinstance(stream, io.TextIOWrapper):
                stream.reconfigure(errors="replace")
        return super().main(*args, **extra)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return [name for name, _ in self._helps()]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name in _ENTRIES:
            return _load(_ENTRIES[cmd_name])
        point = _plugins().get(cmd_name)
        if point is None:
            return None
        command: click.Command = point.load()
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Take short helps from the table, without importing the commands."""
        with formatter.section("Commands"):
            formatter.write_dl(list(self._helps()))

    def _helps(self) -> Iterator[tuple[str, str]]:
        helps = {entry.name: entry.missing() or entry.help for entry in COMMANDS}
        for name, point in _plugins().items():
            helps[name] = f"Of {point.dist.name}" if point.dist is not None else ""
        yield from sorted(helps.items())

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except UnderstudyError as error:
            _fail(error)
        except click.ClickException as error:
            vars(error)["message"] = visible(error.message, lines=True)
            raise


@click.group(context_settings=CONTEXT, cls=_Main)
@click.version_option(__version__, prog_name="understudy")
def main() -> None:
    """Monitor a model in production, and learn whether a new one may replace it.

    \b
    Examples:
      understudy config check understudy.yaml
      understudy serve --config understudy.yaml
      understudy top
      understudy experiment watch candidate-canary
    """


def _fail(error: UnderstudyError) -> NoReturn:
    if isinstance(error, ConfigError):
        for path, message in error.problems:
            echo(
                f"{error.source}: {path}: {message}" if path else f"{error.source}: {message}",
                err=True,
            )
    else:
        echo_lines(f"understudy: {error}", err=True)
    sys.exit(error.exit_code)
