"""Options that several commands share: one name, one meaning and one help text for each."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from understudy.monitor.cli.address import DEFAULT_URL, TOKEN

FILE = click.Path(dir_okay=False, path_type=Path)
"""A file that need not exist; the command reads or writes it."""

Decorator = Callable[[Callable[..., Any]], Callable[..., Any]]

json_option = click.option(
    "--json", "as_json", is_flag=True, help="Print one JSON document and nothing else."
)
json_lines_option = click.option(
    "--json",
    "as_json",
    is_flag=True,
    help="Print JSON lines: one document in each line, and nothing else.",
)
url_option = click.option(
    "--url", default=DEFAULT_URL, show_default=True, metavar="URL", help="The control address."
)
skip_broken_option = click.option(
    "--skip-broken", is_flag=True, help="Skip and count lines that cannot be read."
)
log_level_option = click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    default="info",
    show_default=True,
    envvar="UNDERSTUDY_LOG_LEVEL",
    show_envvar=True,
    help="What is logged to standard error.",
)
log_format_option = click.option(
    "--log-format",
    type=click.Choice(["text", "json"]),
    default="text",
    show_default=True,
    envvar="UNDERSTUDY_LOG_FORMAT",
    show_envvar=True,
    help="Lines for people or for machines.",
)
delimiter_option = click.option(
    "--delimiter",
    metavar="CHARACTER",
    callback=lambda _context, _option, text: None if text is None else _delimiter(text),
    help="Delimiter of CSV files, such as ';', or tab; by default detected.",
)
model_option = click.option(
    "--model",
    "models",
    multiple=True,
    metavar="NAME",
    help="A model of the server, where it cannot list them. Repeat it for several.",
)
protocol_option = click.option(
    "--protocol",
    type=click.Choice(
        ["open-inference-v2", "kserve-v1", "mlflow", "seldon-v1", "torchserve", "openai"]
    ),
    help="What the server speaks, instead of asking it; needs --model.",
)
once_option = click.option("--once", is_flag=True, help="Print the state once and exit.")


def _delimiter(text: str) -> str:
    from understudy.common.files import delimiter

    try:
        return delimiter(text)
    except ValueError as error:
        raise click.BadParameter(str(error)) from error


def interval_option(seconds: float) -> Decorator:
    """``--interval``, in seconds, of a command that refreshes a view; ``seconds`` by default."""
    return click.option(
        "--interval",
        type=click.FloatRange(0.1, 60),
        default=seconds,
        show_default=True,
        help="Seconds between two refreshes.",
    )


def config_option(text: str = "The configuration file.") -> Decorator:
    """``--config``: the configuration file, understudy.yaml by default; passed as config_path."""
    return click.option(
        "--config",
        "-c",
        "config_path",
        type=FILE,
        default=Path("understudy.yaml"),
        show_default=True,
        help=text,
    )


def client_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """``--url`` and ``--token-file`` of a command that calls the control API.

    ``command`` gets the keyword argument ``client``, a
    :class:`understudy.monitor.cli.client.Client`.
    """

    @functools.wraps(command)
    def run(*arguments: Any, url: str, token_file: Path | None, **options: Any) -> Any:
        from understudy.monitor.cli.client import Client

        return command(*arguments, client=Client(url, token_file), **options)

    token_option = click.option(
        "--token-file",
        type=FILE,
        help=f"File with the bearer token. Default: the environment variable {TOKEN}.",
    )
    return url_option(token_option(run))


def user() -> str:
    """The name of the user, for the audit log."""
    import getpass

    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return "unknown"
