"""Series for the trials of alerts."""

from __future__ import annotations

from collections.abc import Mapping

from understudy.monitor.slo.model import Level, Stream
from understudy.monitor.slo.promql import selector

RATE = 20.0
"""Events per second of a trial."""


def counter(
    metric: str, labels: Mapping[str, str], calm: float = 0.0, fault: float = 0.0
) -> Stream:
    """A counter of a trial, with its growth per minute without and during the fault."""
    per = 60.0 * RATE
    return Stream(selector(metric, labels), calm / per, fault / per)


def level(metric: str, labels: Mapping[str, str], calm: float, fault: float) -> Level:
    """A gauge of a trial, with its values without and during the fault."""
    return Level(selector(metric, labels), calm, fault)
