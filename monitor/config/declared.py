"""Experiments declared over the API, in addition to those of the configuration file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from understudy.monitor.config.checks import problems_of
from understudy.monitor.config.experiment import Experiment
from understudy.monitor.config.messages import problem
from understudy.monitor.config.model import Config
from understudy.monitor.errors import ConfigError
from understudy.monitor.routing.routes import Routes

log = logging.getLogger(__name__)


def declare(config: Config, data: dict[str, Any]) -> Config:
    """``config`` with one more experiment, ``data``. Raises ConfigError, which names each key."""
    number = len(config.experiments)
    try:
        experiment = Experiment.model_validate(data)
    except ValidationError as error:
        document = {"experiments": [*[{}] * number, data]}
        faults = [
            problem({**item, "loc": ("experiments", number, *item["loc"])}, document)
            for item in error.errors()
        ]
        raise ConfigError("experiment", [_inner(fault) for fault in faults]) from error
    whole = config.model_copy(update={"experiments": [*config.experiments, experiment]})
    found = [fault for fault in problems_of(whole) if fault[0].startswith("experiments")]
    if found:
        raise ConfigError("experiment", [_inner(fault) for fault in found])
    return whole


def _inner(fault: tuple[str, str]) -> tuple[str, str]:
    """A fault with its path relative to the experiment: its index means nothing to the caller."""
    path, message = fault
    return path.partition("]")[2].lstrip("."), message


def with_declared(config: Config, routes: Routes) -> Config:
    """The configuration with the experiments of the API that still fit it."""
    return _with(config, routes.declared)


def _with(config: Config, declared: Sequence[dict[str, Any]]) -> Config:
    for data in declared:
        try:
            config = declare(config, data)
        except ConfigError as error:
            log.error("experiment %r no longer fits the configuration: %s", data.get("name"), error)
    return config
