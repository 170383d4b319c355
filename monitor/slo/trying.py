"""Series for the trials of alerts."""

from __future__ import annotations

from collections.abc import Mapping

from understudy.monitor.slo.model import Level, Stream
from understudy.monitor.slo.promql import example, selector

RATE = 20.0
"""Events per second of a trial."""


def counter(
    metric: str,
    scrape: Mapping[str, str],
    labels: Mapping[str, str],
    calm: float = 0.0,
    fault: float = 0.0,
) -> Stream:
    """A counter that grows by so much a minute, while all is well and during the fault."""
    per = 60.0 * RATE
    return Stream(selector(metric, {**example(scrape), **labels}), calm / per, fault / per)


def level(
    metric: str, scrape: Mapping[str, str], labels: Mapping[str, str], calm: float, fault: float
) -> Level:
    """A gauge with its two values."""
    return Level(selector(metric, {**example(scrape), **labels}), calm, fault)
