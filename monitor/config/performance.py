"""The part of the configuration that says when a prediction is right."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from understudy.monitor.config.detectors import ErrorDetector
from understudy.monitor.config.section import Section
from understudy.monitor.config.units import Seconds


class Performance(Section):
    """How the predictions of a model are judged, by labels and without."""

    prediction: str = Field(min_length=1, max_length=256, examples=["p_late"])
    """The prediction that labels belong to."""
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        default=None, examples=[0.5]
    )
    """A score above it says yes; without one, a prediction is right when it equals its label."""
    tolerance: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None
    """For predicted numbers: right means not further off than that."""
    floor: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(default=None, examples=[0.85])
    """The accuracy below which the model should be retrained."""
    smallest_loss: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.01
    """Smallest rise of the error rate that matters."""
    largest_gap: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """Largest difference between the segments of a feature that is allowed, in error rate, share of
    positive answers, or share of positives found; without one, gaps are shown and not judged."""
    guarantee: Literal["run_length", "ever"] = "run_length"
    """Of the alarm by labels: false alarms come once in `monitoring.run_length` labels, or the
    probability that there ever is one is at most `alpha`. The second one takes longer after many
    good labels."""
    alpha: Annotated[float, Field(gt=0.0, le=0.5)] = 0.01
    """Probability of a false alarm ever, for `guarantee: ever`."""
    label_share: Annotated[float, Field(gt=0.0, lt=1.0)] | None = Field(
        default=None, examples=[0.05]
    )
    """Where labels are asked for at random for this share of the predictions: what the others are
    expected to be then counts as well. Needs a threshold and a baseline with labels."""
    label_wait: Seconds = 3600.0
    """With `label_share`: how long a label may take; what has none by then was not asked for."""
    slices: bool = False
    """Whether the worst slices of the features are looked for among the labelled predictions; the
    features are then kept with predictions that wait for labels."""
    detectors: list[ErrorDetector] = Field(default=[], max_length=20, examples=[[{"kind": "ddm"}]])
    """Further detectors of wrong predictions; they corroborate, without the guarantee above."""
    window: int = Field(default=1000, ge=100, le=1_000_000)
    """Predictions for which the accuracy is estimated without labels."""

    @model_validator(mode="after")
    def _one_way(self) -> Performance:
        if self.threshold is not None and self.tolerance is not None:
            raise ValueError("threshold is for scores, tolerance for numbers: give one of them")
        if self.label_share is not None and self.threshold is None:
            raise ValueError("label_share needs a threshold: what is expected comes from scores")
        if self.label_share is not None and self.guarantee == "ever":
            raise ValueError("label_share has the guarantee run_length only")
        return self
