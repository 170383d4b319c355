"""``understudy experiment``: start, watch, decide."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from understudy.common.terminal import echo
from understudy.common.units import percent
from understudy.monitor.cli.experiment_offline import (
    EXIT_CODES,
    decision_table,
    explained,
    load_experiment,
    plan_command,
    replay_command,
)
from understudy.monitor.cli.options import (
    FILE,
    client_options,
    interval_option,
    json_lines_option,
    json_option,
    once_option,
    user,
)

if TYPE_CHECKING:
    from understudy.monitor.cli.client import Client


@click.group("experiment")
def experiment() -> None:
    """Compare challengers with the champion, and decide.

    Calls that change something take the bearer token from --token-file or UNDERSTUDY_TOKEN.

    \b
    Examples:
      understudy experiment plan experiment.yaml --rate 50
      understudy experiment start experiment.yaml
      understudy experiment watch candidate-canary
      understudy experiment abort candidate-canary --why "a wrong build"
    """


experiment.add_command(plan_command)
experiment.add_command(replay_command)


@experiment.command()
@click.argument("file", type=FILE)
@json_option
@client_options
def start(client: Client, file: Path, as_json: bool) -> None:
    """Start the experiment in FILE, a YAML mapping as below `experiments:` of the configuration.

    \b
    Example:
      understudy experiment start experiment.yaml --url http://127.0.0.1:9090
    """
    declared = load_experiment(file).model_dump(mode="json", exclude_unset=True)
    found = client.post(f"/v1/experiments?{urlencode({'who': user()})}", declared)
    if as_json:
        echo(json.dumps(found))
    else:
        echo(f"{found['name']} has started; see: understudy experiment watch {found['name']}")


@experiment.command()
@click.argument("name", required=False)
@json_option
@click.option(
    "--exit-code",
    is_flag=True,
    help="Exit 0 for promote, 10 for continue, 11 for rollback, 12 for invalid.",
)
@client_options
def status(client: Client, name: str | None, as_json: bool, exit_code: bool) -> None:
    """Show the evidence of experiment NAME, or list the experiments.

    \b
    Examples:
      understudy experiment status
      understudy experiment status candidate-canary --json --exit-code
    """
    from understudy.monitor.cli.client import path_of

    if name is None:
        _list(client, as_json, ended=False)
        return
    document = client.get(path_of(name))
    if as_json:
        echo(json.dumps(document))
    else:
        _show(document)
    if exit_code:
        raise SystemExit(EXIT_CODES[document["challengers"][0]["decision"]])


@experiment.command("list")
@click.option("--ended", is_flag=True, help="List removed experiments, the latest first.")
@json_option
@client_options
def list_command(client: Client, as_json: bool, ended: bool) -> None:
    """List the experiments, or those that were removed and whose reports are kept.

    \b
    Examples:
      understudy experiment list
      understudy experiment list --ended
    """
    _list(client, as_json, ended)


def _list(client: Client, as_json: bool, ended: bool) -> None:
    found = client.get("/v1/experiments" + ("?ended=true" if ended else ""))["experiments"]
    if as_json:
        echo(json.dumps(found))
        return
    for one in found:
        for challenger in one["challengers"]:
            echo(
                f"{one['name']}  {one['mode']}  {challenger['name']}: "
                f"{challenger['outcome']}, {challenger['phase'].replace('_', ' ')} at "
                f"{percent(challenger['weight'])}{_removed(one)}"
            )
    if not found:
        hint = "" if ended else "; start one with: understudy experiment start"
        echo(f"no experiments{' were removed' if ended else ''}{hint}")


def _removed(one: dict[str, Any]) -> str:
    """Who removed an experiment, and when; empty for one that runs."""
    ended = one.get("ended")
    if not ended:
        return ""
    why = f": {ended['why']}" if ended["why"] else ""
    return f"; removed {datetime.fromtimestamp(ended['at'], UTC):%F %T} UTC by {ended['who']}{why}"


@experiment.command()
@click.argument("name")
@click.option(
    "--ended", is_flag=True, help="The removed experiment, even if one of the same name is running."
)
@json_option
@client_options
def show(client: Client, name: str, as_json: bool, ended: bool) -> None:
    """Show the report of experiment NAME, also after it was removed.

    \b
    Examples:
      understudy experiment show candidate-canary
      understudy experiment show candidate-canary --ended --json
    """
    from understudy.monitor.cli.client import path_of

    document = client.get(path_of(name, "?ended=true" if ended else ""))
    if as_json:
        echo(json.dumps(document))
        return
    _show(document)


def _show(document: dict[str, Any]) -> None:
    from understudy.common.screen import console

    removed = _removed(document)
    if removed:
        echo(f"{document['name']}{removed}")
    for one in document["challengers"]:
        stage = one["stage"]
        title = (
            f"{document['name']}: {one['name']} against {document['champion']}, "
            f"{one['phase'].replace('_', ' ')} at stage {stage['name']} "
            f"({stage['number']} of {stage['of']})"
        )
        console().print(decision_table(one, title))
        for line in explained(one):
            echo(line)


@experiment.command()
@click.argument("name")
@interval_option(1.0)
@once_option
@json_lines_option
@client_options
def watch(client: Client, name: str, interval: float, once: bool, as_json: bool) -> None:
    """Watch the intervals of experiment NAME narrow, until it has ended, or q or Ctrl-C.

    With --json, one line for each refresh.

    \b
    Examples:
      understudy experiment watch candidate-canary
      understudy experiment watch candidate-canary --once
    """
    from understudy.common.screen import console
    from understudy.monitor.cli import experiment_watch as watching

    try:
        report = (lambda document: echo(json.dumps(document))) if as_json else None
        watching.run(client, name, console(), interval, once, report)
    except KeyboardInterrupt:
        echo("", err=as_json)


def _order(kind: str) -> Callable[..., None]:
    """Build an operator's command; ``kind`` is that of the API."""

    def command(
        client: Client,
        name: str,
        why: str,
        who: str | None,
        challenger: str | None,
        as_json: bool,
        force: bool = False,
        gradual: bool = False,
    ) -> None:
        from understudy.monitor.cli.client import path_of

        order: dict[str, Any] = {"who": who or user(), "why": why, "challenger": challenger}
        order |= {"force": True} if force else {}
        order |= {"gradual": True} if gradual else {}
        found = client.post(path_of(name, f"/{kind}"), order)
        if as_json:
            echo(json.dumps(found))
            return
        for one in found["challengers"]:
            if challenger in (None, one["name"]):
                echo(f"{one['name']}: {one['phase'].replace('_', ' ')} at {percent(one['weight'])}")

    return command


def _add(kind: str, text: str, *options: Callable[..., Any], why: bool) -> None:
    command: Any = client_options(_order(kind))
    for option in (
        json_option,
        click.option("--challenger", help="Name of the challenger, if there are several."),
        click.option("--who", help="Who, for the audit log; default: the name of the user."),
        click.option(
            "--why", required=why, default=None if why else "", help="Reason, for the audit log."
        ),
        *options,
        click.argument("name"),
    ):
        command = option(command)
    command.__doc__ = text
    experiment.command(kind)(command)


_add(
    "promote",
    """Approve a stage that waits; with --force send all traffic without evidence.

    \b
    Examples:
      understudy experiment promote candidate-canary --why "looks well"
      understudy experiment promote candidate-canary --force --why "the champion has to go"
    """,
    click.option(
        "--force", is_flag=True, help="Send all traffic to the challenger, without evidence."
    ),
    why=False,
)
_add(
    "pause",
    """Keep the shares of experiment NAME as they are until it is resumed.

    \b
    Example:
      understudy experiment pause candidate-canary --why "a sale until Monday"
    """,
    why=False,
)
_add(
    "resume",
    """Resume experiment NAME where it was paused.

    While the split is not as configured, resuming restarts the evidence of split traffic.

    \b
    Example:
      understudy experiment resume candidate-canary
    """,
    why=False,
)
_add(
    "abort",
    """Abort: send all traffic back to the champion, at once or stage by stage.

    \b
    Example:
      understudy experiment abort candidate-canary --gradual --why "the season is over"
    """,
    click.option("--gradual", is_flag=True, help="Go back stage by stage instead of at once."),
    why=True,
)


@experiment.command()
@click.argument("name")
@click.option("--who", help="Who, for the audit log; default: the name of the user.")
@click.option("--why", default="", help="Reason, for the audit log.")
@json_option
@client_options
def remove(client: Client, name: str, who: str | None, why: str, as_json: bool) -> None:
    """Remove experiment NAME; the champion serves its requests again, and its report is kept.

    Only for experiments that were started over the API: others are removed from the configuration.

    \b
    Example:
      understudy experiment remove candidate-canary --why "replaced by the next candidate"
    """
    from understudy.monitor.cli.client import path_of

    query = urlencode({"who": who or user(), "why": why})
    found = client.delete(path_of(name, f"?{query}"))
    if as_json:
        echo(json.dumps(found))
    else:
        echo(f"{name} was removed; its report: understudy experiment show {name}")


@experiment.command()
@click.argument("name")
@click.option(
    "--ended", is_flag=True, help="The removed experiment, even if one of the same name is running."
)
@click.option("--output", "-o", type=FILE, required=True, help="The HTML file to write.")
@client_options
def report(client: Client, name: str, output: Path, ended: bool) -> None:
    """Write a self-contained HTML page with the evidence of experiment NAME.

    \b
    Example:
      understudy experiment report candidate-canary -o report.html
    """
    from understudy.monitor.cli.client import path_of

    page = client.text(path_of(name, "/report" + ("?ended=true" if ended else "")))
    try:
        output.write_text(page, encoding="utf-8")
    except OSError as error:
        raise click.ClickException(f"{output}: cannot be written: {error.strerror}") from error
    echo(f"{output} written")
