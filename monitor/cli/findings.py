"""``understudy findings``: list, watch, acknowledge, close and silence findings."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

import click

from understudy.common.terminal import echo
from understudy.monitor.cli.options import (
    client_options,
    interval_option,
    json_lines_option,
    json_option,
    once_option,
    user,
)
from understudy.monitor.findings.finding import SEVERITIES

if TYPE_CHECKING:
    from understudy.monitor.cli.client import Client

_who = click.option("--who", help="Who, for the audit log; default: the name of the user.")
_why = click.option("--why", required=True, help="Reason; it is kept with the finding.")
_model = click.option("--model", help="Only findings of this model.")
_severity = click.option(
    "--severity",
    type=click.Choice(SEVERITIES),
    default="info",
    show_default=True,
    help="Only findings of at least this severity.",
)
_CODE = "Exit 1 when something of at least --severity is open."


@click.group("findings")
def findings() -> None:
    """See what is silently wrong with a model, and record what is known about it.

    Calls that change something take the bearer token from --token-file or UNDERSTUDY_TOKEN.

    \b
    Examples:
      understudy findings incidents
      understudy findings list
      understudy findings show 20261123T221530-7
      understudy findings ack 20261123T221530-7 --why "the vendor is looking at it"
      understudy findings close 20261123T221530-7 --new-normal --why "a new sensor"
      understudy findings silence 'drift/delays/*' --for 2h --why "maintenance"
    """


@findings.command("list")
@click.option(
    "--state",
    type=click.Choice(["open", "closed", "all"]),
    default="open",
    show_default=True,
    help="Only those in this state.",
)
@_model
@_severity
@click.option(
    "--limit",
    type=click.IntRange(1, 2000),
    default=100,
    show_default=True,
    help="Maximum number of findings.",
)
@click.option("--exit-code", is_flag=True, help=_CODE)
@json_option
@client_options
def list_(
    client: Client,
    state: str,
    model: str | None,
    severity: str,
    limit: int,
    exit_code: bool,
    as_json: bool,
) -> None:
    """List the findings, the worst first.

    \b
    Examples:
      understudy findings list --state all --model delays
      understudy findings list --severity critical --exit-code
    """
    from understudy.common.screen import console
    from understudy.monitor.cli.findings_text import not_tested, table

    found = _list(client, state, model, severity, limit)
    if as_json:
        echo(json.dumps(found))
    elif found["findings"]:
        console().print(table(found))
    else:
        echo("no findings" if state != "open" else "nothing is open")
        for line in not_tested(found):
            console().print(line)
    if exit_code:
        some = found if state == "open" else _list(client, "open", model, severity, 1)
        raise SystemExit(int(some["matching"] > 0))


@findings.command()
@click.option(
    "--state",
    type=click.Choice(["open", "closed", "all"]),
    default="open",
    show_default=True,
    help="Only those in this state.",
)
@_model
@_severity
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=50,
    show_default=True,
    help="Maximum number of incidents.",
)
@click.option("--exit-code", is_flag=True, help=_CODE)
@json_option
@client_options
def incidents(
    client: Client,
    state: str,
    model: str | None,
    severity: str,
    limit: int,
    exit_code: bool,
    as_json: bool,
) -> None:
    """List incidents: findings of a model that opened close together, with one headline.

    \b
    Examples:
      understudy findings incidents
      understudy findings incidents --state all --model delays
    """
    from understudy.common.screen import console
    from understudy.monitor.cli.findings_text import incident_table

    query = _query(state, model, severity, limit)
    found = client.get(f"/v1/incidents?{query}")
    if as_json:
        echo(json.dumps(found))
    elif found["incidents"]:
        console().print(incident_table(found["incidents"]))
    else:
        echo("no incidents" if state != "open" else "nothing is open")
    if exit_code:
        if state != "open":
            found = client.get(f"/v1/incidents?{_query('open', model, severity, 1)}")
        raise SystemExit(int(found["matching"] > 0))


@findings.command()
@click.argument("id_", metavar="[ID]", required=False)
@_model
@click.option(
    "--limit",
    type=click.IntRange(1, 1000),
    default=100,
    show_default=True,
    help="Approximate number of changes.",
)
@click.option(
    "--before",
    type=click.IntRange(1),
    help="Continue with older changes: the number is printed last.",
)
@json_option
@client_options
def history(
    client: Client,
    id_: str | None,
    model: str | None,
    limit: int,
    before: int | None,
    as_json: bool,
) -> None:
    """List every change of every finding, or of finding or incident ID, the newest first.

    The history goes back as far as monitoring.history_size and monitoring.history_days say.

    \b
    Examples:
      understudy findings history --model delays
      understudy findings history 20261123T221530-7
    """
    given = {"finding": id_, "model": model, "limit": limit, "before": before}
    query = urlencode({name: value for name, value in given.items() if value is not None})
    found = client.get(f"/v1/findings/history?{query}")
    if as_json:
        echo(json.dumps(found))
        return
    for one in found["changes"]:
        detail = f" ({one['change']})" if one["change"] else ""
        finding = one["finding"]
        echo(f"{one['at_time']}  {finding['id']}  {one['event']}{detail}: {finding['title']}")
    if not found["changes"]:
        echo("no changes")
    if found["next"] is not None:
        echo(f"older ones: --before {found['next']}")


@findings.command()
@click.argument("id_", metavar="ID")
@click.option("--exit-code", is_flag=True, help="Exit 1 if it is open.")
@json_option
@client_options
def show(client: Client, id_: str, exit_code: bool, as_json: bool) -> None:
    """Show everything that is known about finding or incident ID, open or closed.

    \b
    Examples:
      understudy findings show 20261123T221530-7
      understudy findings show i20261123T221530-7
    """
    from understudy.common.screen import console
    from understudy.monitor.cli.findings_text import incident_page, page

    found = client.get(_path(id_))
    if as_json:
        echo(json.dumps(found))
    else:
        console().print(incident_page(found) if _is_incident(id_) else page(found))
    if exit_code:
        raise SystemExit(int(found["state"] == "open"))


@findings.command()
@_model
@_severity
@interval_option(2.0)
@once_option
@click.option(
    "--exit-code",
    is_flag=True,
    help="Exit 1 when something of at least --severity is open at the last refresh.",
)
@json_lines_option
@client_options
def watch(
    client: Client,
    model: str | None,
    severity: str,
    interval: float,
    once: bool,
    exit_code: bool,
    as_json: bool,
) -> None:
    """Watch findings open and close, until q or Ctrl-C. With --json, one line for each refresh.

    \b
    Example:
      understudy findings watch --severity warning
    """
    from understudy.common.live import show
    from understudy.common.screen import RenderableType, console
    from understudy.monitor.cli.findings_text import table

    some = False

    def look() -> dict[str, Any]:
        nonlocal some
        found = _list(client, "all", model, severity, 20)
        some = any(one["state"] == "open" for one in found["findings"])
        return found

    def frame() -> tuple[RenderableType, bool]:
        return table(look()), False

    try:
        if as_json:
            echo(json.dumps(look()))
            while not once:
                time.sleep(interval)
                echo(json.dumps(look()))
        else:
            show(frame, interval, console(), once=once)
    except KeyboardInterrupt:
        echo("", err=as_json)
    if exit_code:
        raise SystemExit(int(some))


@findings.command()
@click.argument("id_", metavar="ID")
@_why
@_who
@json_option
@client_options
def ack(client: Client, id_: str, why: str, who: str | None, as_json: bool) -> None:
    """Acknowledge finding ID, or all of incident ID: no more reminders, until it gets worse.

    \b
    Example:
      understudy findings ack 20261123T221530-7 --why "the vendor is looking at it"
    """
    order = {"who": who or user(), "why": why}
    found = client.post(_path(id_, "/acknowledge"), order)
    _print_result(found, as_json, lambda: f"{found['id']} acknowledged: {_title(found)}")


@findings.command()
@click.argument("id_", metavar="ID")
@click.option("--new-normal", is_flag=True, help="This is normal now: learn a new baseline.")
@_why
@_who
@json_option
@client_options
def close(
    client: Client, id_: str, new_normal: bool, why: str, who: str | None, as_json: bool
) -> None:
    """Close finding ID that is still firing.

    It opens again when it went away and comes back, or when it gets worse.

    \b
    Example:
      understudy findings close 20261123T221530-7 --new-normal --why "a new sensor"
    """
    order = {"who": who or user(), "why": why, "new_normal": new_normal}
    found = client.post(_path(id_, "/close"), order)
    _print_result(found, as_json, lambda: f"{found['id']} closed: {found['title']}")


@findings.command()
@click.argument("pattern", required=False)
@click.option(
    "--for", "how_long", default="1h", show_default=True, help="Duration, such as 30m, 2h or 3d."
)
@click.option("--end", metavar="SILENCE", help="End this silence instead.")
@click.option("--why", default="", help="Reason; it is kept with the silence.")
@_who
@json_option
@client_options
def silence(
    client: Client,
    pattern: str | None,
    how_long: str,
    end: str | None,
    why: str,
    who: str | None,
    as_json: bool,
) -> None:
    """Silence findings whose key matches PATTERN; without PATTERN list the silences.

    `*` stands for any text. Silenced findings still open and close; notifications are not sent.

    \b
    Examples:
      understudy findings silence 'drift/delays/*' --for 2h --why "maintenance"
      understudy findings silence
      understudy findings silence --end s1
    """
    from understudy.common.units import seconds as duration

    if end is not None:
        if pattern is not None:
            raise click.UsageError("give either PATTERN or --end")
        ended = client.delete(f"/v1/silences/{quote(end, safe='')}")
        _print_result(ended, as_json, lambda: f"{ended['id']} has ended")
        return
    if pattern is None:
        found = client.get("/v1/silences")
        if as_json:
            echo(json.dumps(found))
            return
        for one in found["silences"]:
            why_ = f": {one['why']}" if one["why"] else ""
            echo(f"{one['id']}  {one['pattern']}  until {one['until_at']}  {one['who']}{why_}")
        if not found["silences"]:
            echo("there are no silences")
        return
    try:
        span = duration(how_long, named=True)
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--for") from error
    order = {"pattern": pattern, "seconds": span, "who": who or user(), "why": why}
    made = client.post("/v1/silences", order)
    _print_result(
        made, as_json, lambda: f"{made['id']}: {made['pattern']} until {made['until_at']}"
    )


def _list(
    client: Client, state: str, model: str | None, severity: str, limit: int
) -> dict[str, Any]:
    found: dict[str, Any] = client.get(f"/v1/findings?{_query(state, model, severity, limit)}")
    return found


def _query(state: str, model: str | None, severity: str, limit: int) -> str:
    query = {"state": state, "severity": severity, "limit": str(limit)}
    if model is not None:
        query["model"] = model
    return urlencode(query)


def _title(found: dict[str, Any]) -> str:
    return str(found["headline"] if "headline" in found else found["title"])


def _is_incident(id_: str) -> bool:
    """Incidents have the id of the finding that began them, after an i."""
    return id_.startswith("i")


def _print_result(found: Any, as_json: bool, text: Callable[[], str]) -> None:
    echo(json.dumps(found) if as_json else text())


def _path(id_: str, rest: str = "") -> str:
    kind = "incidents" if _is_incident(id_) else "findings"
    return f"/v1/{kind}/{quote(id_, safe='')}{rest}"
