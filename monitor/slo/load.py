"""Loads objectives from a file in one of three formats."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from understudy.common.problems import problems
from understudy.common.yaml_text import YamlError, read_documents
from understudy.monitor.config.fields import NAME
from understudy.monitor.config.load import document, parse, text_of
from understudy.monitor.config.slo import SloFile
from understudy.monitor.errors import ConfigError
from understudy.monitor.slo import openslo
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
    """Read objectives from our own file, from OpenSLO, or from a sidecar's configuration.

    ``service`` names the service when the file does not; ``runbooks`` overrides the runbook URL of
    the file; ``installation`` adds the rules about the installation. Raises ConfigError with every
    problem.
    """
    source = str(path)
    if service and not re.fullmatch(NAME, service):
        raise ConfigError("--service", [("", f"not a valid name: {service!r} (allowed: {NAME})")])
    text = text_of(path)
    if openslo.recognised(text):
        if service:
            raise ConfigError(source, [("", "an OpenSLO file names the service in spec.service")])
        if installation:
            why = (
                "an OpenSLO file has no rules about the installation; use a file of our own format"
            )
            raise ConfigError("--installation", [("", why)])
        return openslo.compiled(_documents(text, source), source, runbooks)
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
        changes["runbooks"] = runbooks
    result = compiled(file.model_copy(update=changes), source)
    return replace(result, notices=(*notices, *result.notices))


def checked(data: dict[str, Any], source: str) -> SloFile:
    """Validate a file in our own format. Raises ConfigError."""
    try:
        return SloFile.model_validate(data)
    except ValidationError as error:
        raise ConfigError(source, problems(error, data, SloFile)) from error


def _documents(text: str, source: str) -> list[Any]:
    try:
        return read_documents(text)
    except YamlError as error:
        raise ConfigError(source, [("", str(error))]) from error
