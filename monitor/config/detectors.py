"""The part of the configuration that declares additional detectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from understudy.monitor.config.extensions import DETECTORS
from understudy.monitor.config.section import Section

if TYPE_CHECKING:
    AnyKind = str
    SeriesKind = str
else:
    AnyKind = Literal[*DETECTORS]
    SeriesKind = Literal[*(name for name, one in DETECTORS.items() if not one.errors_only)]


class ErrorDetector(Section):
    """An additional detector of wrong predictions, for labelled predictions."""

    kind: AnyKind = Field(examples=["ddm"])
    """`shewhart` and `ewma` are control charts on means of fifty rows. The others come from
    [river](https://riverml.xyz): install `understudy-serving[river]`."""
    options: dict[str, int | float | list[int]] = Field(default={}, examples=[{"delta": 0.002}])
    """Options of the detector: `rules` and `limit` of `shewhart`, `weight` and `run_length` (in
    points) of `ewma`, river's options for the others."""

    @model_validator(mode="after")
    def _known(self) -> ErrorDetector:
        allowed = DETECTORS[self.kind].options
        for name in self.options:
            if allowed is not None and name not in allowed:
                raise ValueError(
                    f"{self.kind} has no option {name!r}: {', '.join(sorted(allowed))}"
                )
        return self


class Detector(ErrorDetector):
    """An additional detector for one series of inputs or predictions."""

    series: str = Field(min_length=1, max_length=300, examples=["temp"])
    """A column of the baseline. For a text, vector or time column, one of its series, such as
    `review.length`."""
    kind: SeriesKind = Field(examples=["kswin"])
    """As for errors, without the detectors that only accept 0 and 1."""
