"""``understudy objectives``: compare all arms."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from understudy.common.terminal import echo
from understudy.monitor.cli.options import client_options, json_option

if TYPE_CHECKING:
    from understudy.monitor.cli.client import Client


@click.command("objectives")
@json_option
@click.option(
    "--output",
    "-o",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE.html",
    help="Draw the arms in the plane of two metrics, as an HTML page.",
)
@click.option("--exit-code", is_flag=True, help="Exit 1 when the champion misses an objective.")
@client_options
def objectives(client: Client, as_json: bool, output: Path | None, exit_code: bool) -> None:
    """Show accuracy, errors, latency, cost and energy of all arms side by side.

    Figures are of the last five minutes; (e) is estimated. Arms are compared only on the same kind
    of requests, or by an experiment that runs. An arm is dominated when another one is surely
    better in something, and worse or unknown in nothing.

    \b
    Examples:
      understudy objectives
      understudy objectives --json --exit-code
      understudy objectives -o pareto.html
    """
    from understudy.monitor.console.objectives import page

    found = client.get("/v1/objectives")
    if output is not None:
        try:
            output.write_text(page(found))
        except OSError as error:
            raise click.ClickException(f"{output}: cannot be written: {error.strerror}") from error
        echo(f"{output} written", err=True)
    if as_json:
        echo(json.dumps(found))
    else:
        _print(found)
    if exit_code and any(one["met"] is False for one in found["arms"][0]["objectives"]):
        sys.exit(1)


def _print(found: dict[str, Any]) -> None:
    from understudy.common.screen import Text, console, plain_table
    from understudy.monitor.config.objective import KNOWN, shown
    from understudy.monitor.console.objectives import incomparable

    arms = found["arms"]
    limits = {one["metric"]: one for one in arms[0]["objectives"]}
    table = plain_table("metric", "objective", *(arm["arm"] for arm in arms))
    for metric in KNOWN:
        figures = [arm["figures"].get(metric, {"value": None, "source": "absent"}) for arm in arms]
        if metric not in limits and all(figure["value"] is None for figure in figures):
            continue
        cells = []
        for arm, figure in zip(arms, figures, strict=True):
            met = next((o["met"] for o in arm["objectives"] if o["metric"] == metric), None)
            style = "" if met is None else "green" if met else "red"
            text = shown(metric, figure["value"])
            text += " (e)" if figure["source"] == "estimated" else ""
            cells.append(Text(text, style))
        limit = limits.get(metric)
        wanted = ""
        if limit is not None:
            wanted = ("<= " if limit["at_most"] else ">= ") + shown(metric, limit["limit"])
        table.add_row(metric, wanted, *cells)
    console().print(table)
    for arm in arms:
        if arm["dominated_by"]:
            echo(f"{arm['arm']} is dominated by {', '.join(arm['dominated_by'])}")
    for line in incomparable(found["comparisons"]):
        echo(line)
