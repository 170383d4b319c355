"""The part of the configuration that defines when a prediction is right."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator, model_validator

from understudy.common.fields import Ratio, Seconds
from understudy.monitor.config.detectors import ErrorDetector
from understudy.monitor.config.section import Section
from understudy.shadow.experiment.errors import ExperimentError
from understudy.shadow.experiment.margin import Margin, Unit

OF_SCORES = ("recall", "precision", "specificity", "auc", "log_loss", "brier")
"""Metrics of scores with a threshold."""
OF_NUMBERS = ("mae", "mse", "bias")
"""Metrics of predicted numbers."""
MetricName = Literal[
    "recall", "precision", "specificity", "auc", "log_loss", "brier", "mae", "mse", "bias"
]


def loss_margin(value: str | float) -> Margin:
    """A smallest loss: a number in the metric's own scale, ``2 pp``, or ``10 %``. Raises ValueError
    for anything else."""
    if isinstance(value, str):
        try:
            allowed = Unit.POINTS if value.strip().endswith("pp") else Unit.RELATIVE
            return Margin.parse(value, allowed)
        except ExperimentError as error:
            raise ValueError(error.problem) from None
    if not value > 0.0:
        raise ValueError(f"must be above 0, not {value!r}")
    return Margin(float(value), Unit.VALUE)


class MetricCheck(Section):
    """A metric of labelled predictions that is compared with its reference."""

    metric: MetricName = Field(examples=["recall"])
    """`recall`, `precision`, `specificity`, `auc`, `log_loss` and `brier` need a threshold; `mae`,
    `mse` and `bias` numbers. `recall` without a threshold is that of each class."""
    smallest_loss: str | Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        default=None, examples=["10 %", "2 pp", 0.5]
    )
    """Smallest loss that matters: relative to the reference (of `bias`: to the mean absolute
    error), in percentage points, or in the metric's own unit. Default: 10 %; of `auc` 0.02, of
    `mse` 20 %, of `bias` 25 %."""

    @field_validator("smallest_loss")
    @classmethod
    def _readable(cls, value: str | float | None) -> str | float | None:
        if value is not None:
            loss_margin(value)
        return value


class Performance(Section):
    """How accuracy is computed, with and without labels."""

    prediction: str = Field(min_length=1, max_length=256, examples=["p_late"])
    """Name of the prediction that labels refer to."""
    threshold: Annotated[float, Field(allow_inf_nan=False)] | None = Field(
        default=None, examples=[0.5]
    )
    """A score above it is positive. Without it, and without a tolerance, baseline or labels show
    whether predictions are classes, which are right if they equal their label, or numbers."""
    tolerance: Annotated[float, Field(gt=0.0, allow_inf_nan=False)] | None = None
    """For numeric predictions: maximum error of a right prediction."""
    floor: Annotated[Ratio, Field(gt=0.0, lt=1.0)] | None = Field(default=None, examples=[0.85])
    """Accuracy below which the model should be retrained."""
    smallest_loss: str | Annotated[float, Field(gt=0.0, lt=1.0)] = Field(
        default=0.01, examples=[0.01, "1 pp", "20 %"]
    )
    """Smallest rise of the error rate that matters: a share of the predictions, or relative to the
    usual error rate (`20 %`)."""
    metrics: list[MetricCheck] | None = Field(
        default=None, max_length=9, examples=[[{"metric": "recall", "smallest_loss": "5 %"}]]
    )
    """Metrics that are tested besides the error rate. Default: `recall`, `precision`, `auc` and
    `log_loss` of scores, `mae`, `mse` and `bias` of numbers, `recall` of each class."""
    reference_labels: int = Field(default=1000, ge=100, le=10_000)
    """Number of first labels that become the reference of metrics for which the baseline has none.
    A metric that is measured on a part of the labels waits until a twentieth of that number, at
    least 30, are of this part."""
    largest_gap: Annotated[Ratio, Field(gt=0.0, lt=1.0)] | None = None
    """Largest allowed difference between the segments of a feature, in error rate, share of
    positive predictions, or recall. Without it, gaps are shown but raise no finding."""
    guarantee: Literal["run_length", "ever"] = "run_length"
    """Guarantee of the alarm based on labels. run_length: one false alarm per
    `monitoring.run_length` labels on average. ever: the probability of any false alarm is at most
    `alpha`; detection takes longer after many good labels."""
    alpha: Annotated[float, Field(gt=0.0, le=0.5)] = 0.01
    """Probability of any false alarm, for `guarantee: ever`."""
    label_share: Annotated[Ratio, Field(gt=0.0, lt=1.0)] | None = Field(
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

    @field_validator("smallest_loss")
    @classmethod
    def _readable(cls, value: str | float) -> str | float:
        loss_margin(value)
        return value

    @property
    def smallest(self) -> Margin:
        """The smallest rise of the error rate that matters."""
        return loss_margin(self.smallest_loss)

    @model_validator(mode="after")
    def _metrics_fit(self) -> Performance:
        names = [one.metric for one in self.metrics or ()]
        if len(set(names)) < len(names):
            raise ValueError("metrics: a metric is declared twice")
        for name in names:
            if name in OF_NUMBERS and self.threshold is not None:
                raise ValueError(f"metrics: {name} is for numbers, and threshold for scores")
            if name in OF_SCORES and self.tolerance is not None:
                raise ValueError(f"metrics: {name} is for scores, and tolerance for numbers")
            if name in OF_SCORES and name != "recall" and self.threshold is None:
                raise ValueError(f"metrics: {name} needs a threshold")
        return self

    @model_validator(mode="after")
    def _one_way(self) -> Performance:
        if self.threshold is not None and self.tolerance is not None:
            raise ValueError("threshold is for scores, tolerance for numbers: give one of them")
        if self.label_share is not None and self.threshold is None:
            raise ValueError("label_share needs a threshold: what is expected comes from scores")
        if self.label_share is not None and self.guarantee == "ever":
            raise ValueError("label_share has the guarantee run_length only")
        return self
