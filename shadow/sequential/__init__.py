"""Anytime-valid comparison of two models: confidence sequences and e-processes."""

from shadow.sequential.common import (
    EProcess,
    Interval,
    MergeRule,
    Process,
    SequentialError,
    load,
    p_value,
    reject,
)

__all__ = [
    "EProcess",
    "Interval",
    "MergeRule",
    "Process",
    "SequentialError",
    "load",
    "p_value",
    "reject",
]
