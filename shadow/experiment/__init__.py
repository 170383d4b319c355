"""Experiments: hypotheses, evidence and decisions, pure."""

from __future__ import annotations

from shadow.experiment.batches import Pairs, Split, Units
from shadow.experiment.contest import Contest, Evidence, e_value
from shadow.experiment.decision import VERDICTS, Decision
from shadow.experiment.errors import ExperimentError
from shadow.experiment.experiment import Experiment
from shadow.experiment.hypothesis import METRICS, Hypothesis, Metric
from shadow.experiment.margin import Margin, Unit
from shadow.experiment.rules import DEFAULT_METRICS, Rules

__all__ = [
    "DEFAULT_METRICS",
    "METRICS",
    "VERDICTS",
    "Contest",
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
