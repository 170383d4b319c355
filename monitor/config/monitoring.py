"""The part of the configuration that declares how inputs and predictions are monitored."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from understudy.common.fields import Bytes, Ratio, Seconds
from understudy.monitor.config.detectors import Detector
from understudy.monitor.config.fields import Columns
from understudy.monitor.config.section import Section


class Monitoring(Section):
    """How inputs and predictions are compared with a model's baseline."""

    enabled: bool = True
    """Monitor models that have a baseline."""
    learn: int = Field(default=0, ge=0, le=10_000_000, examples=[10_000])
    """Number of rows from which to learn a baseline if a model has no baseline file; 0: do not
    monitor such models."""
    run_length: float = Field(default=1_000_000.0, ge=1000.0, le=1e12)
    """Average number of rows between two false alarms of a model, across all its features, rules
    and segments; and of blocks of requests, across all `objectives` and arms."""
    smallest_shift: float = Field(default=0.25, ge=0.05, le=2.0)
    """Smallest shift of a value that matters, in standard deviations of its ranks."""
    smallest_rate: Annotated[Ratio, Field(gt=0.0, lt=1.0)] = 0.005
    """Smallest rise of a rate (missing values, wrong types, …) that matters."""
    window: int = Field(default=1000, ge=100, le=1_000_000)
    """Number of recent rows for which distances from the baseline are shown."""
    segments: Columns = Field(default=[], examples=[["carrier", "origin"]])
    """Features whose values define segments, which are also monitored separately."""
    max_segments: int = Field(default=20, ge=1, le=200)
    """Maximum number of segments; all others are combined into one."""
    declared: Columns = Field(default=[], examples=[["tail_number"]])
    """Features that are compared with the baseline although they look like an identifier, a
    timestamp or a counter."""
    kernel: bool = False
    """Compare all numeric features jointly by maximum mean discrepancy. It detects any change in
    their joint distribution and costs about two microseconds per row."""
    detectors: list[Detector] = Field(
        default=[], max_length=50, examples=[[{"series": "temp", "kind": "kswin"}]]
    )
    """Additional detectors for single series; they corroborate, without the run length above."""
    blind: Annotated[Ratio, Field(ge=0.01)] = 0.1
    """Share of the newest 100 requests of a model, or of the answers of an arm, that raises a
    finding when they cannot be read."""
    stale: Seconds | None = None
    """Duration without traffic that raises a finding, at any hour; default: derived from the usual
    gaps, where there was traffic at the same hour a week ago."""
    hold: Seconds = 300.0
    """A finding closes when it has not been reported for this long."""
    history_size: Bytes = Field(default=32 * 1024 * 1024, ge=1024 * 1024)
    """Size of the history of findings on disk; when it is full, its oldest twentieth is deleted."""
    history_days: int = Field(default=90, ge=1, le=3650)
    """Age at which the history of findings is deleted, in days."""
