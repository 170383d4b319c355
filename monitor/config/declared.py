"""Experiments declared over the API, in addition to those of the configuration file."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from typing import Any

from pydantic import ValidationError

from understudy.common.fields import SAVED
from understudy.common.problems import Problem, problems
from understudy.monitor.config.checks import problems_of
from understudy.monitor.config.experiment import Experiment
from understudy.monitor.config.model import Config
from understudy.monitor.errors import ConfigError
from understudy.monitor.routing.routes import Routes

log = logging.getLogger(__name__)


def declare(config: Config, data: dict[str, Any], routes: Routes, *, saved: bool = False) -> Config:
    """``config`` with one more experiment, ``data``, under the assignments of ``routes``. Raises
    ConfigError, which names each key. ``saved``: it is one of the state, maybe of an earlier
    version, which knew durations without units."""
    number = len(config.experiments)
    try:
        experiment = Experiment.model_validate(data, context=SAVED if saved else None)
    except ValidationError as error:
        raise ConfigError("experiment", problems(error, data, Experiment)) from error
    whole = config.model_copy(update={"experiments": [*config.experiments, experiment]})
    found = problems_of(whole, routes.serving)
    found = [fault for fault in found if fault[0].startswith(f"experiments[{number}]")]
    if found:
        raise ConfigError("experiment", [_inner(fault) for fault in found])
    return whole


def _inner(fault: tuple[str, str]) -> tuple[str, str]:
    """A fault with its path relative to the experiment: its index means nothing to the caller."""
    path, message = fault
    return path.partition("]")[2].lstrip("."), message


def with_declared(config: Config, routes: Routes) -> Config:
    """The configuration with the experiments of the API that still fit it; the log names the
    others."""
    whole, unfit = _with(config, routes)
    for name, error in unfit.items():
        log.error("experiment %r no longer fits the configuration: %s", name, error)
    return whole


def unfit(config: Config, routes: Routes) -> list[Problem]:
    """Why experiments cannot run with ``config``: those that were started over the API, and those
    of the file beside a shadow experiment whose challenger serves."""
    found = [
        (
            "experiments",
            f"{name!r}, which was started over the API, does not fit: {why}; or end it first: "
            f"understudy experiment remove {name}",
        )
        for name, why in _with(config, routes)[1].items()
    ]
    if routes.serving:
        found += (
            fault for fault in problems_of(config, routes.serving) if fault[0][:11] == "experiments"
        )
    return found


def _with(config: Config, routes: Routes) -> tuple[Config, dict[str, str]]:
    refused: dict[str, str] = {}
    for data in routes.declared:
        try:
            config = declare(config, data, routes, saved=True)
        except ConfigError as error:
            refused[str(data.get("name"))] = _joined(error.problems)
    return config, refused


def _joined(problems: Sequence[tuple[str, str]]) -> str:
    return "; ".join(f"{path}: {text}" if path else text for path, text in problems)
