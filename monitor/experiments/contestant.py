"""The state of one challenger in an experiment."""

from __future__ import annotations

from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.config.rules import stages_of
from understudy.monitor.experiments.outage import Outage
from understudy.monitor.experiments.timeline import Timeline
from understudy.monitor.experiments.traffic import TrafficTime
from understudy.shadow import comparison, rollout
from understudy.shadow.experiment import Decision
from understudy.shadow.state import Config, Count, Saved, Stateful, Transient


class ChallengerState(Stateful):
    """The rollout, last decision and evidence for display of one challenger.

    ``name`` is its arm, ``declared`` the experiment's configuration, ``now`` unix time in seconds.
    """

    name: Config[str]
    rollout: Config[rollout.Rollout]
    noise: Saved[comparison.NoiseCancelling]
    worst: Saved[comparison.Worst]
    timeline: Saved[Timeline]
    decision: Transient[Decision]
    diverted: Saved[Count]
    outage: Saved[Outage]
    traffic: Saved[TrafficTime]

    def __init__(self, name: str, declared: Declared, now: float) -> None:
        self.name = name
        self.rollout = rollout.Rollout.begin(
            declared.name, name, stages_of(declared, name), now, declared.on_invalid
        )
        self.noise = comparison.NoiseCancelling()
        self.worst = comparison.Worst(declared.compare.keep)
        self.timeline = Timeline()
        self.decision = Decision("continue", ("no traffic yet",))
        self.outage = Outage(declared.down_after)
        self.traffic = TrafficTime()
        self.diverted = 0
        """Requests assigned to the challenger that the champion served instead."""

    @property
    def mode(self) -> str:
        """The mode (shadow or split) whose evidence counts in the current stage."""
        return self.rollout.mode
