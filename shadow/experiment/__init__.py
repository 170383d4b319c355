"""Experiments: hypotheses, evidence and decisions, pure.

What a configuration needs (hypotheses, margins, rules) is imported at once; what needs numpy is
imported when it is used, so that commands and the supervisor do without.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from understudy.shadow.experiment.errors import ExperimentError
from understudy.shadow.experiment.hypothesis import METRICS, Hypothesis, Metric
from understudy.shadow.experiment.margin import Margin, Unit

if TYPE_CHECKING:
    from understudy.shadow.experiment.batches import Pairs, Split, Units
    from understudy.shadow.experiment.challenger import ChallengerEvidence, Evidence, e_value
    from understudy.shadow.experiment.decision import CAUSES, VERDICTS, Decision
    from understudy.shadow.experiment.experiment import Experiment
    from understudy.shadow.experiment.rules import DEFAULT_METRICS, Rules
    from understudy.shadow.experiment.split import OpenPairs, Unanswered

__all__ = [
    "CAUSES",
    "DEFAULT_METRICS",
    "METRICS",
    "VERDICTS",
    "ChallengerEvidence",
    "Decision",
    "Evidence",
    "Experiment",
    "ExperimentError",
    "Hypothesis",
    "Margin",
    "Metric",
    "OpenPairs",
    "Pairs",
    "Rules",
    "Split",
    "Unanswered",
    "Unit",
    "Units",
    "e_value",
]

_MODULES = {
    "batches": ("Pairs", "Split", "Units"),
    "challenger": ("ChallengerEvidence", "Evidence", "e_value"),
    "decision": ("CAUSES", "VERDICTS", "Decision"),
    "experiment": ("Experiment",),
    "rules": ("DEFAULT_METRICS", "Rules"),
    "split": ("OpenPairs", "Unanswered"),
}
_LATER = {name: module for module, names in _MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A name whose module is imported now."""
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_LATER[name]}"), name)
