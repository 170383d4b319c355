"""Loads a :class:`Config` from a YAML file, or reports every problem in it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from understudy.common.problems import problems
from understudy.common.unreadable import why_unreadable
from understudy.common.yaml_text import YamlError, read_text, read_yaml
from understudy.monitor.config.checks import problems_of
from understudy.monitor.config.fields import with_socket
from understudy.monitor.config.headers import Headers
from understudy.monitor.config.kafka import resolved as resolved_kafka
from understudy.monitor.config.model import Config
from understudy.monitor.config.notify import resolved
from understudy.monitor.errors import ConfigError


def load(path: Path) -> Config:
    """Read and check the file. Raises ConfigError with every problem that was found.

    Relative file names in it are taken from the file's own folder.
    """
    try:
        path.stat()
    except FileNotFoundError as error:
        problem = (
            f"cannot be read: {why_unreadable(path, error)}. Name the file, or write one with:"
            " understudy init URL-OF-THE-MODEL-SERVER"
        )
        raise ConfigError(str(path), [("", problem)]) from error
    except OSError:
        pass  # the reader says why
    return parse(text_of(path), str(path), path.resolve().parent)


def text_of(path: Path) -> str:
    """The text of a file. Raises ConfigError."""
    try:
        return read_text(path)
    except YamlError as error:
        raise ConfigError(str(path), [("", str(error))]) from error


def parse(text: str, source: str, base: Path) -> Config:
    """The same for a text; ``source`` names it in messages, ``base`` is the folder for files."""
    data = document(text, source)
    if not isinstance(data, dict):
        raise ConfigError(source, [("", "must be a mapping with version, listen, models …")])
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(source, problems(error, data, Config)) from error
    config = _resolved(config, base)
    found = problems_of(config)
    if found:
        raise ConfigError(source, found)
    return config


def document(text: str, source: str) -> object:
    """Parse a YAML text. Raises ConfigError with the line of the fault."""
    try:
        return read_yaml(text)
    except YamlError as error:
        raise ConfigError(source, [("", str(error))]) from error


def _absolute(section: Any, absolute: Callable[[str], str], *keys: str) -> dict[str, str]:
    """The file names of a section that are given, made absolute."""
    found = {key: getattr(section, key) for key in keys}
    return {key: absolute(name) for key, name in found.items() if name is not None}


def _with_files(headers: Headers, absolute: Callable[[str], str]) -> Headers:
    return {
        name: header.model_copy(update={"file": absolute(header.file)})
        if header.file is not None
        else header
        for name, header in headers.items()
    }


def _resolved(config: Config, base: Path) -> Config:
    """The configuration with file names made absolute."""

    def absolute(name: str) -> str:
        return str(base / Path(name).expanduser())

    changes: dict[str, Any] = {"state_dir": absolute(config.state_dir)}
    tls = config.listen.tls
    if tls is not None:
        files = _absolute(tls, absolute, "certificate", "key", "client_ca")
        changes["listen"] = config.listen.model_copy(update={"tls": tls.model_copy(update=files)})

    log = config.records.log
    if log is not None:
        moved = log.model_copy(update={"path": absolute(log.path)})
        changes["records"] = config.records.model_copy(update={"log": moved})

    if config.validation is not None:
        cases = {"cases": absolute(config.validation.cases)}
        changes["validation"] = config.validation.model_copy(update=cases)
    files = _absolute(config.telemetry, absolute, "ca", "certificate", "key")
    headers = _with_files(config.telemetry.headers, absolute)
    changes["telemetry"] = config.telemetry.model_copy(update={**files, "headers": headers})
    changes["notify"] = resolved(config.notify, absolute)
    if config.kafka is not None:
        changes["kafka"] = resolved_kafka(config.kafka, absolute)

    def with_baseline(model: Any) -> Any:
        if model.baseline is None:
            return model
        return model.model_copy(update={"baseline": absolute(model.baseline)})

    changes["models"] = [with_baseline(model) for model in config.models]

    def with_files(upstream: Any) -> Any:
        headers = _with_files(upstream.headers, absolute)
        found: dict[str, Any] = {"url": with_socket(upstream.url, absolute)}
        found["headers"] = headers
        if upstream.tls is not None:
            files = _absolute(upstream.tls, absolute, "ca", "certificate", "key")
            found["tls"] = upstream.tls.model_copy(update=files)
        return upstream.model_copy(update=found)

    changes["champion"] = with_files(config.champion)
    changes["challengers"] = [with_files(challenger) for challenger in config.challengers]
    return config.model_copy(update=changes)
