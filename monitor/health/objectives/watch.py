"""The objectives of a model's arms, and the findings about those that are missed."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from understudy.common.units import percent
from understudy.monitor.config.objective import Objective, shown
from understudy.monitor.evidence.batch import ColumnBatch
from understudy.monitor.evidence.columns import listed
from understudy.monitor.findings.finding import Signal, Size
from understudy.monitor.health.objectives.arm import (
    ALPHA,
    BLOCK,
    FEWEST,
    ArmObjectives,
    Missed,
    is_tested,
)
from understudy.monitor.records.record import ROLE_PRIMARY
from understudy.shadow.state import Config, Saved, Stateful

KIND = "objective"
_FORGOTTEN = 3600.0
"""Seconds without a request after which an arm's objective is not missed: it has no figure."""
_CRITICAL = 14.4
"""Times the allowed share of requests: what pages in the fast window of a burn-rate alert."""
_ADVICE = (
    "Compare the arms with `understudy objectives`, and look at what changed at that time: load, "
    "a release, the model server's resources. If the limit is wrong, change `objectives`."
)
_ASSUMPTION = "The interval, not the alarm, takes requests as independent of each other."


class ObjectiveWatch(Stateful):
    """The ``objectives`` of each of the ``arms``, champion first.

    ``run_length`` is the average number of blocks between two false alarms, over all of them
    together.
    """

    objectives: Config[tuple[Objective, ...]]
    run_length: Config[float]
    _arms: Config[tuple[str, ...]]
    clients: Saved[dict[str, ArmObjectives]]
    """By arm, on requests of clients."""
    mirrored: Saved[dict[str, ArmObjectives]]
    """By challenger, on mirrored requests."""

    def __init__(
        self, objectives: Sequence[Objective], arms: Sequence[str], run_length: float
    ) -> None:
        self.objectives = tuple(one for one in objectives if is_tested(one))
        self.run_length = run_length
        self._arms = tuple(arms)
        each = run_length * max(1, len(self.objectives) * (2 * len(arms) - 1))
        self.clients = {arm: ArmObjectives(self.objectives, each) for arm in arms}
        self.mirrored = {arm: ArmObjectives(self.objectives, each) for arm in arms[1:]}

    def restarted(self) -> ObjectiveWatch:
        """The same without any evidence."""
        return ObjectiveWatch(self.objectives, self._arms, self.run_length)

    def take_requests(self, batch: ColumnBatch) -> None:
        """Take rows of the type ``REQUESTS``."""
        if "seconds" not in batch.names:
            return  # from a replica of an earlier version
        seconds = batch.floats("seconds")
        failed = batch.floats("failed")
        names = np.array(listed(batch.column("arm")), dtype=object)
        of_clients = batch.side == ROLE_PRIMARY
        for arms, of_role in ((self.clients, of_clients), (self.mirrored, ~of_clients)):
            for arm, objectives in arms.items():
                rows = np.flatnonzero((names == arm) & of_role)
                objectives.add(batch.at[rows], seconds[rows], failed[rows])

    def signals(self, model: str, version: str, now: float) -> Iterator[Signal]:
        """One for each objective that an arm misses."""
        for arms, of_clients in ((self.clients, True), (self.mirrored, False)):
            for arm, objectives in arms.items():
                if now - objectives.newest <= _FORGOTTEN:
                    for missed in objectives.missed():
                        yield self._signal(missed, arm, of_clients, model, version)

    def _signal(
        self, missed: Missed, arm: str, of_clients: bool, model: str, version: str
    ) -> Signal:
        metric, limit = missed.objective.metric, missed.objective.limit
        low = "below" if missed.low is None else shown(metric, missed.low)
        high = "more" if missed.high is None else shown(metric, missed.high)
        value = shown(metric, missed.value)
        beyond = ""
        if missed.share is not None and metric != "error_rate":
            beyond = f"; {percent(missed.share)} of the requests take longer"
        mirrored = "" if of_clients else " on mirrored requests"
        critical = of_clients and (missed.share or 0.0) >= _CRITICAL * missed.allowed
        return Signal(
            key=f"{KIND}/{model}/{version}//{arm}/{'' if of_clients else 'mirrored/'}{metric}",
            kind=KIND,
            model=model,
            version=version,
            segment="",
            severity="critical" if critical else "warning",
            title=f"Objective missed: {metric} of {arm}{mirrored} is {value} ({low} to {high}), "
            f"the limit is {shown(metric, limit)}{beyond}",
            since=missed.since,
            size=Size(
                f"{metric} of {arm}",
                "s" if metric.startswith("latency") else "",
                limit,
                missed.value,
                missed.low,
                missed.high,
            ),
            rule=f"Shiryaev-Roberts e-detector on blocks of at least {BLOCK:g} s and {FEWEST} "
            f"requests; value and {percent(1.0 - ALPHA)} interval of the last "
            f"{missed.requests:,} requests",
            guarantee=f"on average at most one false alarm in {self.run_length:,.0f} blocks, "
            "across all objectives and arms of the model",
            advice=_ADVICE,
            assumptions=(_ASSUMPTION,),
        )
