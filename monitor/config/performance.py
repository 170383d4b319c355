"""The part of the configuration that defines when a prediction is right."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from understudy.monitor.config.detectors import ErrorDetector
from understudy.monitor.config.section import Section
from understudy.monitor.config.units import Seconds


class Performance(Section):
    """How accuracy is computed, with and without labels."""

    prediction: str = Field(min_length=1, max_length=256, examples=["p_late"])
    """Name of the prediction that labels refer to."""
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        default=None, examples=[0.5]
    )
    """A score above it is positive. Without it, a prediction is right if it equals its label."""
    tolerance: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None
    """For numeric predictions: maximum error of a right prediction."""
    floor: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(default=None, examples=[0.85])
    """Accuracy below which the model should be retrained."""
    smallest_loss: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    """Smallest rise of the error rate that matters."""
    largest_gap: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Largest allowed difference between the segments of a feature, in error rate, share of
    positive predictions, or recall. Without it, gaps are shown but raise no finding."""
    guarantee: Literal["run_length", "ever"] = "run_length"
    """Guarantee of the alarm based on labels. run_length: one false alarm per
    `monitoring.run_length` labels on average. ever: the probability of any false alarm is at most
    `alpha`; detection takes longer after many good labels."""
    alpha: Annotated[float, Field(gt=0.0, le=0.5)] = 0.01
    """Probability of any false alarm, for `guarantee: ever`."""
    label_share: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        default=None, examples=[0.05]
    )
    """Share of predictions for which labels are requested, at random. Expected outcomes of the
    others then count as well. Needs a threshold and a baseline with labels."""
    label_wait: Seconds = 3600.0
    """With `label_share`: maximum label delay; a prediction without a label by then counts as not
    requested."""
    slices: bool = False
    """Search for the slices with the worst accuracy among labelled predictions. Features are then
    stored with predictions that wait for labels."""
    detectors: list[ErrorDetector] = Field(default=[], max_length=20, examples=[[{"kind": "ddm"}]])
    """Additional detectors of wrong predictions; they corroborate, without the guarantee above."""
    window: int = Field(default=1000, ge=100, le=1_000_000)
    """Number of recent predictions for the label-free accuracy estimate."""

    @model_validator(mode="after")
    def _one_way(self) -> Performance:
        if self.threshold is not None and self.tolerance is not None:
            raise ValueError("threshold is for scores, tolerance for numbers: give one of them")
        if self.label_share is not None and self.threshold is None:
            raise ValueError("label_share needs a threshold: what is expected comes from scores")
        if self.label_share is not None and self.guarantee == "ever":
            raise ValueError("label_share has the guarantee run_length only")
        return self
