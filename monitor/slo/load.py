"""Loads objectives from a file, whose format is recognised by its content."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from understudy.common.problems import problems
from understudy.common.yaml_text import YamlError, read_documents
from understudy.monitor.config.fields import NAME
from understudy.monitor.config.load import document, parse, text_of
from understudy.monitor.config.runbooks import Runbooks, absolute_url
from understudy.monitor.config.slo import SloFile
from understudy.monitor.errors import ConfigError
from understudy.monitor.slo import openslo, pyrra, reading, sloth
from understudy.monitor.slo.compile import compiled
from understudy.monitor.slo.compiled import Compiled
from understudy.monitor.slo.derive import derived


def load(
    path: Path,
    *,
    service: str | None = None,
    runbooks: str | None = None,
    installation: bool = False,
) -> Compiled:
    """Read objectives from our own file, a sidecar's configuration, OpenSLO, Sloth, or Pyrra.

    ``service`` names the service when the file does not; ``runbooks`` overrides the runbook URL of
    the file; ``installation`` adds the rules about the installation. Raises ConfigError with every
    problem.
    """
    source = str(path)
    if service and not re.fullmatch(NAME, service):
        raise ConfigError("--service", [("", f"not a valid name: {service!r} (allowed: {NAME})")])
    text = text_of(path)
    if runbooks:
        try:
            absolute_url(runbooks)
        except ValueError as error:
            raise ConfigError("--runbooks", [("", str(error))]) from error
    documents = _documents(text)
    read = _reader(documents, source)
    if read is not None:
        if installation:
            why = (
                "files of other projects have no rules about the installation; use a file of our"
                " own format"
            )
            raise ConfigError("--installation", [("", why)])
        return read(documents, source, runbooks, service)
    data = document(text, source)
    if not isinstance(data, dict):
        raise ConfigError(source, [("", "must be a mapping with version, service and slos")])
    notices: list[str] = []
    if "champion" in data and "slos" not in data:
        config = parse(text, source, path.resolve().parent)
        file, notices = derived(config, service or config.models[0].name)
    else:
        file = checked(data, source)
    changes: dict[str, Any] = {}
    if service:
        changes["service"] = service
    if installation:
        changes["installation"] = True
    if runbooks:
        changes["runbooks"] = Runbooks(url=runbooks)
    result = compiled(file.model_copy(update=changes), source)
    return replace(result, notices=(*notices, *result.notices))


def checked(data: dict[str, Any], source: str) -> SloFile:
    """Validate a file in our own format. Raises ConfigError."""
    try:
        return SloFile.model_validate(data)
    except ValidationError as error:
        raise ConfigError(source, problems(error, data, SloFile)) from error


def _documents(text: str) -> list[Any]:
    """All objects of a text, those of lists as well; none if it is not YAML."""
    try:
        pending = read_documents(text)
    except YamlError:
        return []
    found: list[Any] = []
    while pending:
        one = pending.pop(0)
        if isinstance(one, dict) and one.get("kind") == "List":
            one = one.get("items")
        if isinstance(one, list):
            pending[:0] = one
        elif one is not None:
            found.append(one)
    return found


def _openslo(found: list[Any], source: str, runbooks: str | None, service: str | None) -> Compiled:
    _no_service(service, source, "an OpenSLO file names the service in spec.service")
    return openslo.compiled(found, source, runbooks)


def _sloth(found: list[Any], source: str, runbooks: str | None, service: str | None) -> Compiled:
    _no_service(service, source, "a file of Sloth names the service in service")
    return reading.compiled(found, source, runbooks, sloth.read, "Sloth")


def _pyrra(found: list[Any], source: str, runbooks: str | None, service: str | None) -> Compiled:
    read = partial(pyrra.read, service=service)
    return reading.compiled(found, source, runbooks, read, "Pyrra")


def _no_service(service: str | None, source: str, message: str) -> None:
    if service:
        raise ConfigError(source, [("", message)])


_Read = Callable[[list[Any], str, str | None, str | None], Compiled]
_READERS: dict[str, _Read] = {
    "openslo/": _openslo,
    "prometheus/": _sloth,
    "sloth.slok.dev/": _sloth,
    "pyrra.dev/": _pyrra,
}
"""By the beginning of apiVersion, or of version."""
_REFUSED = {
    "n9/": "a file of Nobl9",
    "sre.google.com/": "a file of Google's slo-generator",
    "monitoring.coreos.com/": "a resource of the Prometheus Operator",
    "rules:": "a file of Prometheus rules, which is what is generated here",
}


def _reader(documents: list[Any], source: str) -> _Read | None:
    """The reader of another project's format; None for our own. Raises ConfigError for a format
    that cannot be read."""
    first = documents[0] if documents else None
    if not isinstance(first, dict):
        return None
    version = first.get("apiVersion")
    if version is None and isinstance(first.get("version"), str):
        version = first["version"]
    if version is None and "groups" in first and "slos" not in first:
        version = "rules:"
    if not isinstance(version, str) or version.isdecimal():
        return None
    for prefix, read in _READERS.items():
        if version.startswith(prefix):
            return read
    names = (name for prefix, name in _REFUSED.items() if version.startswith(prefix))
    what = next(names, f"{version!r}, an unknown format")
    message = (
        f"this is {what}: write the objectives in our own format (docs/slo.md), or in one of "
        f"{openslo.VERSION}, {openslo.ALPHA}, {sloth.VERSION} and {sloth.RESOURCE} (Sloth), "
        f"{pyrra.VERSION}"
    )
    raise ConfigError(source, [("", message)])
