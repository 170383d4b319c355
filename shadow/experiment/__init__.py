"""Experiments: hypotheses, evidence and decisions, pure."""

from __future__ import annotations

from understudy.shadow.experiment.batches import Pairs, Split, Units
from understudy.shadow.experiment.challenger import ChallengerEvidence, Evidence, e_value
from understudy.shadow.experiment.decision import VERDICTS, Decision
from understudy.shadow.experiment.errors import ExperimentError
from understudy.shadow.experiment.experiment import Experiment
from understudy.shadow.experiment.hypothesis import METRICS, Hypothesis, Metric
from understudy.shadow.experiment.margin import Margin, Unit
from understudy.shadow.experiment.rules import DEFAULT_METRICS, Rules

__all__ = [
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
    "Pairs",
    "Rules",
    "Split",
    "Unit",
    "Units",
    "e_value",
]
