"""Values of headers that are in the environment or in files, not in the configuration."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from understudy.monitor.config.headers import Header, is_header_value
from understudy.monitor.config.model import Config, Server

LARGEST = 16 * 1024
"""Bytes of a file with a value."""

Values = Mapping[tuple[str, str], str]
"""By arm and header."""


class MissingValueError(ValueError):
    """The value cannot be read; the message says why, without the value."""


def read(header: Header, environment: Mapping[str, str]) -> str:
    """The value of a header. Raises MissingValueError."""
    if header.value is not None:
        return header.value
    if header.env is not None:
        where = f"the environment variable {header.env}"
        text = environment.get(header.env, "")
        if not text:
            raise MissingValueError(f"{where} is not set")
    else:
        where = f"the file {header.file}"
        try:
            with open(header.file or "", "rb") as file:
                text = file.read(LARGEST + 1).decode("latin-1").strip()
        except OSError as error:
            raise MissingValueError(f"{where} cannot be read: {error.strerror}") from error
        if not text:
            raise MissingValueError(f"{where} is empty")
    found = header.prefix + text
    if len(text) > LARGEST or not is_header_value(found):
        raise MissingValueError(
            f"{where} has no valid header value: one line of visible ASCII, at most "
            f"{LARGEST:,} bytes (it is not shown here)"
        )
    return found


def values_of(
    config: Config, environment: Mapping[str, str]
) -> tuple[dict[tuple[str, str], str], list[tuple[str, str]]]:
    """All values that can be read, by arm and header, and a problem (path, message) for each that
    cannot."""
    values, problems = {}, []
    for path, server in _servers(config):
        for name, header in server.headers.items():
            try:
                values[server.name, name] = read(header, environment)
            except MissingValueError as error:
                problems.append((f"{path}.headers.{name}", str(error)))
    return values, problems


def with_values(config: Config, values: Values) -> Config:
    """The configuration with these values in place of where they come from.

    It must not be written or shown anywhere but in the plan of the workers.
    """

    def filled(server: Any) -> Any:
        headers = {
            name: Header(value=values[server.name, name])
            for name in server.headers
            if (server.name, name) in values
        }
        return server.model_copy(update={"headers": headers})

    challengers = [filled(challenger) for challenger in config.challengers]
    changes = {"champion": filled(config.champion), "challengers": challengers}
    return config.model_copy(update=changes)


def _servers(config: Config) -> Iterator[tuple[str, Server]]:
    yield "champion", config.champion
    for index, challenger in enumerate(config.challengers):
        yield f"challengers[{index}]", challenger
