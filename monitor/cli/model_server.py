"""Finding out what the model server of a command line is: for `init` and `try`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import click

from understudy.monitor.errors import UnderstudyError

if TYPE_CHECKING:
    from understudy.monitor.discovery.server import FoundServer


class ModelServerError(UnderstudyError):
    """A model server that does not answer, or not in a way that is known; the message says what to
    do."""


def with_scheme(url: str) -> str:
    """``url`` as http, if it names no scheme, and without a slash at its end."""
    known = "://" in url or url.startswith("unix:")
    return (url if known else f"http://{url}").rstrip("/")


def is_grpc(url: str) -> bool:
    """Whether the server at ``url`` is asked by gRPC calls."""
    return url.startswith(("grpc://", "grpcs://"))


def find(url: str, models: Sequence[str], protocol: str | None) -> FoundServer:
    """What the server at ``url`` is and has; it is not asked when ``protocol`` is given.

    Raises ModelServerError, and click's UsageError for what the command line lacks.
    """
    from understudy.monitor.discovery.askers import asker_of
    from understudy.monitor.discovery.server import FoundModel, FoundServer, discover

    if protocol is not None:
        if not models:
            raise click.UsageError("--protocol needs the name of a model: add --model NAME")
        named = [FoundModel(name, protocol) for name in models]
        return FoundServer(url, protocols=[protocol], models=named)
    try:
        with asker_of(url) as asker:
            found = discover(asker, url, models)
    except ValueError as error:
        raise click.UsageError(f"not a valid URL: {error}") from error
    except OSError as error:
        raise ModelServerError(
            f"no answer from {url} ({error}): start the model server, or name what it speaks with "
            "--protocol and --model"
        ) from error
    if found.models:
        return found
    tried = ", ".join(f"{what}: {status}" for what, status in found.asked.items())
    if found.protocols:
        raise ModelServerError(
            f"{url} speaks {found.description}, and does not list its models: add --model NAME"
        )
    if is_grpc(url):
        raise ModelServerError(
            f"{url} answers, and names no model by the Open Inference Protocol "
            "(inference.GRPCInferenceService): add --model NAME"
        )
    raise ModelServerError(
        f"{url} answers, and speaks no protocol that is known here ({tried}): add --model NAME, or "
        "name what it speaks with --protocol and --model"
    )
