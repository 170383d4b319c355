"""The part of the configuration that says how silent failure is looked for."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from understudy.monitor.config.detectors import Detector
from understudy.monitor.config.fields import Columns
from understudy.monitor.config.section import Section
from understudy.monitor.config.units import Seconds


class Monitoring(Section):
    """How inputs and predictions are compared with a model's baseline."""

    enabled: bool = True
    """Whether models that have a baseline are watched."""
    learn: int = Field(default=0, ge=0, le=10_000_000, examples=[10_000])
    """Rows from which a baseline is learned where a model has no file; 0: such models are not
    watched."""
    run_length: float = Field(default=1_000_000.0, ge=1000.0, le=1e12)
    """Rows between two false alarms of a model, on average, of all its features, rules and segments
    together."""
    smallest_shift: float = Field(default=0.25, ge=0.05, le=2.0)
    """Smallest change of a value that matters, in standard deviations of its ranks."""
    smallest_rate: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.005
    """Smallest rise of a share (missing values, wrong types, …) that matters."""
    window: int = Field(default=1000, ge=100, le=1_000_000)
    """Rows for which distances from the baseline are shown."""
    segments: Columns = Field(default=[], examples=[["carrier", "origin"]])
    """Features by whose values the rows are also looked at apart."""
    max_segments: int = Field(default=20, ge=1, le=200)
    """Segments that are told apart; the rest is one."""
    kernel: bool = False
    """Whether all numeric features together are compared by maximum mean discrepancy, which sees
    any change of how they go together, and costs about two microseconds per row."""
    detectors: list[Detector] = Field(
        default=[], max_length=50, examples=[[{"series": "temp", "kind": "kswin"}]]
    )
    """Further detectors, of single series; they corroborate, without the run length above."""
    stale: Seconds | None = None
    """Traffic that stays away for that long is a finding; by default that is judged by the usual
    gaps."""
    hold: Seconds = 300.0
    """A finding closes when nothing has spoken for it for that long."""
