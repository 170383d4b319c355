"""A challenger of an experiment, and what its records carry."""

from __future__ import annotations

from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.config.rules import stages_of
from understudy.monitor.experiments.timeline import Timeline
from understudy.shadow import comparison, rollout
from understudy.shadow.experiment import Decision
from understudy.shadow.state import Config, Count, Saved, Stateful, Transient


class ChallengerState(Stateful):
    """A challenger of an experiment, with everything that is kept about it. The rollout is kept
    with the assignment, in a file."""

    name: Config[str]
    rollout: Config[rollout.Rollout]
    noise: Saved[comparison.NoiseCancelling]
    worst: Saved[comparison.Worst]
    timeline: Saved[Timeline]
    decision: Transient[Decision]
    diverted: Saved[Count]
    lost: Saved[Count]

    def __init__(self, name: str, declared: Declared, now: float) -> None:
        self.name = name
        self.rollout = rollout.Rollout.begin(
            declared.name, name, stages_of(declared, name), now, declared.on_invalid
        )
        self.noise = comparison.NoiseCancelling()
        self.worst = comparison.Worst(declared.compare.keep)
        self.timeline = Timeline()
        self.decision = Decision("continue", ("no traffic yet",))
        self.diverted = 0
        """Requests that were the challenger's and that the champion served in its stead."""
        self.lost = 0
        """Answers whose counterpart did not come while there was room to wait."""

    @property
    def mode(self) -> str:
        """Which evidence counts now."""
        return self.rollout.mode
