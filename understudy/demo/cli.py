"""``understudy demo``: a story about a model in production, in about a minute."""

from __future__ import annotations

import sys

import click

from understudy.demo.scenarios import SCENARIOS
from understudy.monitor.cli.options import json_option

_LIST = "\n".join(f"      {name:<8} {text}" for name, text in SCENARIOS.items())


@click.command(
    help=f"""Show on this machine what Understudy does, in about a minute.

    Starts small built-in model servers, the sidecar (`understudy serve`) and clients, changes
    something, and tells what Understudy says about it. Nothing has to be installed or configured;
    everything is removed at the end. With --json, the story goes to standard error.

    \b
    Scenarios:
{_LIST}

    Exits 0 when Understudy said what it should, 1 when it did not or something failed.

    \b
    Examples:
      understudy demo
      understudy demo --scenario drift --keep
      understudy demo --scenario outage --json
    """
)
@click.option(
    "--scenario",
    type=click.Choice(list(SCENARIOS)),
    default="canary",
    show_default=True,
    help="What happens.",
)
@click.option("--keep", is_flag=True, help="Stay up after the end, until Ctrl-C.")
@json_option
def demo(scenario: str, keep: bool, as_json: bool) -> None:
    """Run a scenario; see the help above."""
    from understudy.demo.run import run

    sys.exit(run(scenario, keep=keep, as_json=as_json))
