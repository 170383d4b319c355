"""``understudy version``."""

from __future__ import annotations

import json

import click

from understudy import __version__
from understudy.common import compiled
from understudy.common.terminal import echo
from understudy.monitor.cli.options import json_option


@click.command()
@json_option
def version(as_json: bool) -> None:
    """Print the version, and the form of the data plane that runs.

    \b
    It is compiled where the package was installed with a compiler, or as a wheel that holds it;
    UNDERSTUDY_PURE=1 runs the same code as Python.

    \b
    Examples:
      understudy version
      understudy version --json
    """
    form = compiled.form()
    if as_json:
        echo(json.dumps({"version": __version__, "form": form.name, "reason": form.reason}))
    else:
        echo(f"understudy {__version__} ({form})")
