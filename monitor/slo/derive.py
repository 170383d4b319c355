"""Objectives over time from the ``objectives`` of a sidecar's configuration.

Those are limits for every arm at this moment; here each becomes a share that has to be good over a
period. So a limit is written once: ``latency_p99: <= 60ms`` means that 99 % of the answers come
within 60 ms, and the sidecar's histogram gets an edge there.
"""

from __future__ import annotations

from typing import Any

from monitor.config.model import Config
from monitor.config.slo import SloFile
from monitor.objectives.objective import Objective, latency_limits

OF_TIME = 0.99
"""The share of the time for what is no share of requests."""


def derived(config: Config, service: str) -> tuple[SloFile, list[str]]:
    """The file that says the same, and why what cannot be said was left out.

    Without objectives it has one of 99.9 % availability.
    """
    slos: list[dict[str, Any]] = []
    notices: list[str] = []
    edges = list(latency_limits(config.objectives))
    for metric, text in config.objectives.items():
        one = Objective.parse(metric, text)
        said = f"objectives.{metric}"
        limit = one.limit
        if metric == "error_rate" and one.less:
            slos.append({"name": "availability", "objective": 1.0 - limit, "availability": {}})
        elif metric.startswith("latency_p") and one.less:
            share = float(f"{float(metric.removeprefix('latency_p')) / 100:.12g}")
            latency = {"within": limit, "quantile": share, "edges": edges}
            slos.append({"name": metric.replace("_", "-"), "latency": latency})
        elif metric == "accuracy" and not one.less:
            of = {"metric": "accuracy", "bound": "lower", "at_least": limit}
            slos.append({"name": "accuracy", "objective": OF_TIME, "performance": of})
        elif metric == "cost_per_prediction" and one.less:
            slos.append({"name": "cost", "objective": OF_TIME, "cost": {"at_most": limit}})
        else:
            notices.append(f"{said}: {text!r} has no indicator over time; it is left out")
    if not slos:
        slos.append({"name": "availability", "objective": 0.999, "availability": {}})
        notices.append("no objectives: 99.9 % availability is taken")
    for slo in slos:
        if slo["name"] == "cost":
            slo["arm"] = config.champion.name
    return SloFile.model_validate({"version": 1, "service": service, "slos": slos}), notices
