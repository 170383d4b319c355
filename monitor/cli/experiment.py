"""``understudy experiment``: begin, see, decide."""

from __future__ import annotations

import getpass
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
from rich.console import Console

from understudy.monitor.cli import experiment_watch as watching
from understudy.monitor.cli.client import DEFAULT_URL, TOKEN, Client, path_of
from understudy.monitor.cli.experiment_offline import (
    EXIT_CODES,
    decision_table,
    load_experiment,
    plan_command,
    replay_command,
)

_url = click.option("--url", default=DEFAULT_URL, show_default=True, help="The control address.")
_json = click.option("--json", "as_json", is_flag=True, help="JSON on standard output.")


@click.group("experiment")
def experiment() -> None:
    """Compare challengers with the champion, and decide.

    Calls that change something take the bearer token from UNDERSTUDY_TOKEN.

    \b
    Examples:
      understudy experiment plan experiment.yaml --rate 50
      understudy experiment start experiment.yaml
      understudy experiment watch candidate-canary
      understudy experiment abort candidate-canary --why "a wrong build"
    """


assert TOKEN == "UNDERSTUDY_TOKEN"  # as the help says
experiment.add_command(plan_command)
experiment.add_command(replay_command)


@experiment.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@_url
@_json
def start(file: Path, url: str, as_json: bool) -> None:
    """Begin the experiment in FILE, a YAML mapping as below `experiments:` of the configuration.

    \b
    Example:
      understudy experiment start experiment.yaml --url http://127.0.0.1:9090
    """
    declared = load_experiment(file).model_dump(mode="json", exclude_unset=True)
    found = Client(url).post(f"/v1/experiments?who={_who()}", declared)
    if as_json:
        click.echo(json.dumps(found))
    else:
        click.echo(f"{found['name']} has begun; see: understudy experiment watch {found['name']}")


@experiment.command()
@click.argument("name", required=False)
@_url
@_json
@click.option(
    "--exit-code",
    is_flag=True,
    help="Exit 0 for promote, 10 for continue, 11 for rollback, 12 for invalid.",
)
def status(name: str | None, url: str, as_json: bool, exit_code: bool) -> None:
    """What is known of experiment NAME, or which experiments there are.

    \b
    Examples:
      understudy experiment status
      understudy experiment status candidate-canary --json --exit-code
    """
    client = Client(url)
    if name is None:
        found = client.get("/v1/experiments")["experiments"]
        if as_json:
            click.echo(json.dumps(found))
        for one in found if not as_json else ():
            for challenger in one["challengers"]:
                click.echo(
                    f"{one['name']}  {one['mode']}  {challenger['name']}: "
                    f"{challenger['decision']}, {challenger['phase'].replace('_', ' ')} at "
                    f"{challenger['weight'] * 100:g} %"
                )
        if not found and not as_json:
            click.echo("there are no experiments; begin one with: understudy experiment start")
        return
    document = client.get(path_of(name))
    if as_json:
        click.echo(json.dumps(document))
    else:
        _show(document)
    if exit_code:
        raise SystemExit(EXIT_CODES[document["challengers"][0]["decision"]])


def _show(document: dict[str, Any]) -> None:
    for one in document["challengers"]:
        stage = one["stage"]
        title = (
            f"{document['name']}: {one['name']} against {document['champion']}, "
            f"{one['phase'].replace('_', ' ')} at stage {stage['name']} "
            f"({stage['number']} of {stage['of']})"
        )
        Console().print(decision_table(one, title))
        click.echo(f"{one['decision']}:")
        for reason in one["reasons"]:
            click.echo(f"  {reason}")


@experiment.command()
@click.argument("name")
@_url
@click.option(
    "--interval",
    type=click.FloatRange(0.2, 60),
    default=1.0,
    show_default=True,
    help="Seconds between two looks.",
)
@click.option("--once", is_flag=True, help="Draw one look and end.")
def watch(name: str, url: str, interval: float, once: bool) -> None:
    """See the intervals of experiment NAME narrow, until it has ended.

    \b
    Example:
      understudy experiment watch candidate-canary
    """
    try:
        watching.run(Client(url), name, Console(), interval, once)
    except KeyboardInterrupt:
        click.echo("")


def _order(kind: str) -> Callable[..., None]:
    """A command that a person gives; ``kind`` is that of the API."""

    def command(
        name: str,
        why: str,
        who: str | None,
        challenger: str | None,
        url: str,
        as_json: bool,
        force: bool = False,
        gradual: bool = False,
    ) -> None:
        order: dict[str, Any] = {"who": who or _who(), "why": why, "challenger": challenger}
        order |= {"force": True} if force else {}
        order |= {"gradual": True} if gradual else {}
        found = Client(url).post(path_of(name, f"/{kind}"), order)
        if as_json:
            click.echo(json.dumps(found))
            return
        for one in found["challengers"]:
            if challenger in (None, one["name"]):
                click.echo(
                    f"{one['name']}: {one['phase'].replace('_', ' ')} at {one['weight'] * 100:g} %"
                )

    return command


def _add(kind: str, text: str, *options: Callable[..., Any], why: bool) -> None:
    command: Any = _order(kind)
    for option in (
        _json,
        _url,
        click.option("--challenger", help="Needed where there are several."),
        click.option("--who", help="For the audit log; by default the user's name."),
        click.option("--why", required=why, default=None if why else "", help="For the audit log."),
        *options,
        click.argument("name"),
    ):
        command = option(command)
    command.__doc__ = text
    experiment.command(kind)(command)


_add(
    "promote",
    """Approve a stage that waits; with --force go to all traffic without evidence.

    \b
    Examples:
      understudy experiment promote candidate-canary --why "looks well"
      understudy experiment promote candidate-canary --force --why "the champion has to go"
    """,
    click.option("--force", is_flag=True, help="Without evidence, to all traffic."),
    why=False,
)
_add("pause", "Keep the shares of experiment NAME as they are until it is resumed.", why=False)
_add("resume", "Go on with experiment NAME where it was paused.", why=False)
_add(
    "abort",
    """Take the challenger off, at once or stage by stage.

    \b
    Example:
      understudy experiment abort candidate-canary --gradual --why "the season is over"
    """,
    click.option("--gradual", is_flag=True, help="Stage by stage."),
    why=True,
)


@experiment.command()
@click.argument("name")
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    required=True,
    help="The HTML file to write.",
)
@_url
def report(name: str, output: Path, url: str) -> None:
    """Write a page with the evidence of experiment NAME, which needs nothing else.

    \b
    Example:
      understudy experiment report candidate-canary -o report.html
    """
    page = Client(url).text(path_of(name, "/report"))
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{output}: cannot be written: {error.strerror}") from error
    click.echo(f"{output} written")


def _who() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
