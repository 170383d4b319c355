"""The part of the configuration that names further detectors."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from understudy.monitor.config.section import Section

CHARTS = ("shewhart", "ewma")
"""These take means of fifty rows; the others take rows."""
_OPTIONS = {"shewhart": {"rules", "limit"}, "ewma": {"weight", "run_length"}}


class ErrorDetector(Section):
    """A further detector of wrong predictions, once their labels are known."""

    kind: Literal[
        "shewhart", "ewma", "adwin", "kswin", "page_hinkley", "ddm", "eddm", "hddm_a", "hddm_w"
    ] = Field(examples=["ddm"])
    """`shewhart` and `ewma` are control charts on means of fifty rows; the others are those of
    [river](https://riverml.xyz), which has to be installed: `understudy-serving[river]`."""
    options: dict[str, int | float | list[int]] = Field(default={}, examples=[{"delta": 0.002}])
    """Of the detector: `rules` and `limit` of `shewhart`, `weight` and `run_length` (in points) of
    `ewma`, river's own of the others."""

    @model_validator(mode="after")
    def _known(self) -> ErrorDetector:
        allowed = _OPTIONS.get(self.kind)
        for name in self.options:
            if allowed is not None and name not in allowed:
                raise ValueError(
                    f"{self.kind} has no option {name!r}: {', '.join(sorted(allowed))}"
                )
        return self


class Detector(ErrorDetector):
    """A further detector of one series of inputs or predictions."""

    series: str = Field(min_length=1, max_length=300, examples=["temp"])
    """A column of the baseline; of a text, a vector or a time one of its series, as
    `review.length`."""
    kind: Literal["shewhart", "ewma", "adwin", "kswin", "page_hinkley"] = Field(examples=["kswin"])
    """As for errors; those that take nothing but 0 and 1 are not for values."""
