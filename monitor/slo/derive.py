"""Objectives over time from the ``objectives`` of a sidecar's configuration.

A sidecar's objectives are current limits for every arm; here each becomes a share that must be good
over a period. So a limit is written once: ``latency_p99: <= 60ms`` means that 99 % of the responses
arrive within 60 ms, and the sidecar's histogram gets an edge there.
"""

from __future__ import annotations

from typing import Any

from pydantic import ValidationError

from understudy.common.problems import problems
from understudy.common.units import write_seconds, write_share
from understudy.monitor.config.model import Config
from understudy.monitor.config.objective import Objective, latency_limits
from understudy.monitor.config.slo import Objective as SloObjective
from understudy.monitor.config.slo import SloFile

OF_TIME = "99 %"
"""The share of time that must be good, for limits that are not shares of requests."""


def derived(config: Config, service: str) -> tuple[SloFile, list[str]]:
    """The equivalent file of objectives for ``service``, and notices about omitted limits.

    Its rules are about the models of the sidecar. Without objectives the file has one of 99.9 %
    availability.
    """
    slos: list[SloObjective] = []
    notices: list[str] = []
    edges = list(latency_limits(config.objectives))
    for metric, text in config.objectives.items():
        entry = _entry(Objective.parse(metric, text), edges, config.champion.name)
        if entry is None:
            notices.append(f"objectives.{metric}: {text!r} has no indicator over time; omitted")
            continue
        try:
            slos.append(SloObjective.model_validate(entry))
        except ValidationError as error:
            why = "; ".join(message for _, message in problems(error, entry, SloObjective))
            notices.append(f"objectives.{metric}: {text!r} is not valid over time ({why}); omitted")
    if not slos:
        entry = {"name": "availability", "objective": "99.9 %", "availability": {}}
        slos.append(SloObjective.model_validate(entry))
        notices.append("no objectives: using 99.9 % availability")
    link = next((str(one.link) for one in config.notify if one.link), None)
    models = list(dict.fromkeys(model.name for model in config.models))
    file = SloFile(
        version=1, service=service, slos=slos, model=models, runbooks=config.runbooks, link=link
    )
    return file, notices


def _entry(one: Objective, edges: list[float], champion: str) -> dict[str, Any] | None:
    """The entry for one objective; None when it has no equivalent."""
    metric, limit = one.metric, one.limit
    if metric == "error_rate" and one.less:
        return {"name": "availability", "objective": write_share(1.0 - limit), "availability": {}}
    if metric.startswith("latency_p") and one.less:
        latency = {
            "within": write_seconds(limit),
            "quantile": metric.removeprefix("latency_"),
            "edges": [write_seconds(edge) for edge in edges],
        }
        return {"name": metric.replace("_", "-"), "latency": latency}
    if metric == "accuracy" and not one.less:
        of = {"metric": "accuracy", "bound": "lower", "at_least": limit}
        return {"name": "accuracy", "objective": OF_TIME, "performance": of}
    if metric == "cost_per_prediction" and one.less:
        cost = {"at_most": limit}
        return {"name": "cost", "objective": OF_TIME, "cost": cost, "arm": champion}
    return None
