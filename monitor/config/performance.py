"""The part of the configuration that says when a prediction is right."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field, model_validator

from monitor.config.section import Section


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
    window: int = Field(default=1000, ge=100, le=1_000_000)
    """Predictions for which the accuracy is estimated without labels."""

    @model_validator(mode="after")
    def _one_way(self) -> Performance:
        if self.threshold is not None and self.tolerance is not None:
            raise ValueError("threshold is for scores, tolerance for numbers: give one of them")
        return self
