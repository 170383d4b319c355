"""A service whose challenger was promoted, and whose workers say how that goes."""

from __future__ import annotations

import json
from dataclasses import asdict, replace
from typing import Any

from tests.support.plane_process import ARMS, LABELS, MODEL, PlaneProcess
from understudy.monitor.proxy import breaker
from understudy.monitor.routing.plan import Challenger, Model, Plan, Split, Upstream
from understudy.monitor.stats.shared import SharedStats
from understudy.monitor.stats.sketch import observe
from understudy.shadow.assignment import POINTS, Allocation


def follow_promotion(plane: PlaneProcess, slice: tuple[int, int] = (0, POINTS)) -> None:
    """Write the plan of workers after the candidate was promoted, for a part of the units."""
    allocation = Allocation().reweighed((0.0, 1.0))
    champion, candidate = (Upstream(name, "127.0.0.1", 1) for name in ARMS)
    model = Model(MODEL["name"], MODEL["version"], MODEL["protocol"], ("/v2/models/delays/infer",))
    split = Split("rollout", 0, "salt", starts=allocation.starts, arms=allocation.arms)
    plan = Plan(
        1,
        champion,
        (model,),
        (Challenger(candidate, 0.0, serving=candidate),),
        (replace(split, slice=slice),),
    )
    (plane.run_dir / "plan.json").write_text(json.dumps(asdict(plan)))


def served(stats: SharedStats, arm: str, count: int, outcome: str = "ok", ms: float = 20.0) -> None:
    """Count requests of clients."""
    labels: dict[str, Any] = {**LABELS, "arm": arm, "outcome": outcome}
    stats.words[stats.counter("requests", labels)] += count
    sketch = stats.sketch("duration", labels)
    for number in range(count):
        observe(stats.words, sketch, int((ms + number % 10) * 1e6))


def dead(stats: SharedStats, arm: str = "candidate", diverted: int = 400) -> None:
    """The promoted arm is down: its breaker is open, and the champion serves in its place."""
    words = stats.words
    words[stats.gauge("serving_breaker", {"arm": arm})] = breaker.OPEN
    words[stats.counter("diverted", {"experiment": "rollout", "arm": arm})] += diverted
    served(stats, arm, 5, "upstream_connect", 1.0)
    served(stats, "champion", diverted)
