"""The ramp from shadow to all traffic: a pure state machine.

Time, verdicts and people's commands are passed in; what comes out is the next state and the events
that led to it. Traffic that stops neither promotes nor aborts: only verdicts, exposure and people
move a rollout, and only a decision or a person's force takes it to all traffic.
"""

from understudy.shadow.rollout.commands import abort, approve, pause, promote, resume
from understudy.shadow.rollout.moves import DWELL_SECONDS
from understudy.shadow.rollout.stages import RolloutError, Stage, check_stages, stages_from
from understudy.shadow.rollout.state import PHASES, SELF, TERMINAL, Event, Rollout, Step, replayed
from understudy.shadow.rollout.verdicts import VERDICTS, step
from understudy.shadow.rollout.weights import allocation

__all__ = [
    "DWELL_SECONDS",
    "PHASES",
    "SELF",
    "TERMINAL",
    "VERDICTS",
    "Event",
    "Rollout",
    "RolloutError",
    "Stage",
    "Step",
    "abort",
    "allocation",
    "approve",
    "check_stages",
    "pause",
    "promote",
    "replayed",
    "resume",
    "stages_from",
    "step",
]
