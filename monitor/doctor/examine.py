"""All checks of a configuration, in the order in which a person would fix them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from understudy.monitor.config.checks import problems_at_start, warnings_of
from understudy.monitor.config.declared import unfit
from understudy.monitor.config.header_values import values_of
from understudy.monitor.config.load import load
from understudy.monitor.config.model import Config
from understudy.monitor.doctor.channels import channels
from understudy.monitor.doctor.check import Check, fault, ok, warning
from understudy.monitor.doctor.machine import machine
from understudy.monitor.doctor.outside import kafka, prometheus
from understudy.monitor.doctor.servers import servers
from understudy.monitor.errors import StateError
from understudy.monitor.routing.routes import Routes


def examine(
    file: Path,
    *,
    prometheus_url: str | None = None,
    request: bytes | None = None,
    send_test: bool = False,
) -> Iterator[Check]:
    """Check the configuration in ``file``; with ``send_test``, send a test message to every
    notification channel. Raises ConfigError when it is not valid: then nothing else can be
    checked."""
    config = load(file)
    values, missing = values_of(config, os.environ)
    yield from _configuration(config, file, missing)
    yield from machine(config)
    yield from servers(config, values, request)
    yield from kafka(config, str(file))
    yield from channels(config, send_test)
    yield from prometheus(config, prometheus_url)


def _configuration(config: Config, file: Path, missing: list[tuple[str, str]]) -> Iterator[Check]:
    problems = [*problems_at_start(config, os.environ), *missing]
    try:
        problems += unfit(config, Routes.load(Path(config.state_dir)))
    except StateError as error:
        problems.append(("state_dir", str(error)))
    for path, message in problems:
        yield fault(path, message, f"correct `{path}`, or what it names")
    for path, message in warnings_of(config):
        yield warning(path, message)
    if not problems:
        yield ok("configuration", f"{file} is valid")
