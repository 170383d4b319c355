"""``understudy version``."""

from __future__ import annotations

import json

import click

from understudy import __version__
from understudy.common.terminal import echo
from understudy.monitor.cli.options import json_option


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the version.

    \b
    Examples:
      understudy version
      understudy version --json
    """
    echo(json.dumps({"version": __version__}) if as_json else f"understudy {__version__}")
