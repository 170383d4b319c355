"""The part of the configuration that declares experiments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from understudy.common.fields import NamedSeconds, Ratio, Seconds, SecondsOrZero
from understudy.monitor.config.fields import HeaderName, HeaderValue, Name
from understudy.monitor.config.section import Section
from understudy.shadow.experiment import METRICS

Text = Annotated[str, Field(min_length=1, max_length=256)]


class Unit(Section):
    """What is assigned to an arm, and stays there (sticky)."""

    by: Literal["request", "header", "cookie", "pointer"] = "request"
    """A single request (by an id that the proxy gives it, not by its x-request-id), a header, a
    cookie, or a JSON pointer into the request."""
    name: str = Field(default="", max_length=256, examples=["x-user-id"])
    """Name of the header or cookie, or the pointer."""

    @model_validator(mode="after")
    def _named(self) -> Unit:
        if (self.by == "request") == bool(self.name):
            raise ValueError(
                "by request needs no name" if self.name else f"by {self.by} needs a name"
            )
        if self.by == "pointer" and not self.name.startswith("/"):
            raise ValueError(f"name: {self.name!r} is not a JSON pointer: it must start with /")
        return self


class Metric(Section):
    """A metric that must improve, or must not get worse."""

    metric: str = Field(
        examples=["error_rate", "latency_p99", "accuracy"],
        description=f"One of {', '.join(METRICS)}.",
    )
    role: Literal["success", "guardrail"] = "guardrail"
    """success: the challenger must be better; guardrail: it must not be worse."""
    margin: str | float = Field(default=0.0, examples=["0.5 pp", "10 %", "20 ms", "0.1 units"])
    """The acceptable loss (guardrail) or the required improvement (success), with its unit."""
    alpha: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Its share of the experiment's alpha; default: an equal part of what is left."""
    field: str = Field(default="", max_length=256)
    """Response field, for prediction, prediction_distribution, ratio and total_per_unit."""
    per: str = Field(default="", max_length=256, examples=["rows"])
    """ratio: the response field that field is divided by, summed over requests or units."""
    cap: str | float | Annotated[list[str | float], Field(min_length=2, max_length=2)] | None = (
        Field(default=None, examples=["100 units", "2 s"])
    )
    """Larger values count as this one (winsorised); two values also cap small ones. For means and
    totals. The cap is part of what is compared, and of the metric's name."""
    covariate: str = Field(default="", max_length=256, examples=["basket_value"])
    """Request field that explains part of a mean; its effect is taken out (CUPED), on split
    traffic."""
    earlier: bool = False
    """Take out the unit's own mean in the shadow stage of a canary, before any unit was assigned
    (CUPED from earlier records)."""
    better: Literal["lower", "higher"] | None = None
    """Direction; default: the metric's usual direction."""
    effect: str | float | None = Field(default=None, examples=["2 pp"])
    """The target improvement: once it is ruled out, the experiment stops for futility."""
    bounds: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Smallest and largest possible value, if bounded."""
    planned: float = Field(default=10_000.0, gt=1.0, le=1e12)
    """Number of records per arm for which the interval is optimised."""
    base_rate: float = Field(default=0.01, gt=0.0, lt=1.0)
    """Expected rate. A wrong guess costs time, not validity."""

    def plain(self) -> dict[str, Any]:
        """As :class:`understudy.shadow.experiment.Rules` reads it."""
        return self.model_dump(exclude_none=True, exclude_unset=True)


class Stage(Section):
    """A stage of a rollout."""

    weight: Ratio = 0.0
    """The challenger's share of the units; 0 is a shadow stage."""
    gate: Literal["automatic", "manual"] = "automatic"
    """automatic: continue without approval; manual: wait for a person's approval."""
    requests: int = Field(default=100, ge=0)
    """Minimum number of requests to the challenger."""
    seconds: NamedSeconds = 0.0
    """Minimum duration."""
    requires: Literal["decision", "no_harm"] = "no_harm"
    """decision: the evidence must allow promotion; no_harm: harm must not be proven."""


class Compare(Section):
    """When two responses to the same request agree."""

    absolute: float = Field(default=0.0, ge=0.0)
    """Absolute tolerance for numbers."""
    relative: float = Field(default=0.0, ge=0.0)
    """Relative tolerance, as a share of the larger number."""
    ulp: int = Field(default=0, ge=0)
    """Tolerance in units in the last place (ULP)."""
    ignore: list[str] = Field(default=[], examples=[["model_version", "debug.*"]])
    """Globs over output names to ignore."""
    unordered: list[str] = []
    """Globs over output names whose order is ignored."""
    top_k: int = Field(default=0, ge=0)
    """Compare only the top k of score vectors."""
    noise: Ratio = 0.0
    """Share of requests sent to the champion twice, to separate its own nondeterminism from the
    challenger's differences."""
    keep: int = Field(default=20, ge=0, le=200)
    """Number of largest disagreements to keep, redacted, for inspection."""


class Label(Section):
    """How a label decides whether a prediction was right."""

    prediction: str = Field(min_length=1, max_length=256, examples=["p_late"])
    """Name of the output."""
    threshold: float | None = None
    """A prediction above it is positive. Without it, label and prediction must be equal."""
    positive: str | float | None = Field(default=None, examples=["fraud"])
    """The positive class, for recall, precision and specificity of classes other than 0 and 1."""
    score: str = Field(default="", max_length=256, examples=["probability"])
    """Output with the probability of the positive class; default: prediction, with a threshold."""


class Cost(Section):
    """Cost of an arm's predictions, in any currency."""

    per_request: float = Field(default=0.0, ge=0.0)
    """Cost per request."""
    per_second: float = Field(default=0.0, ge=0.0)
    """Cost per second of the model server's time."""


class Excluded(Section):
    """Requests to exclude."""

    header: HeaderName
    """Header name."""
    value: HeaderValue
    """Header value."""


class Experiment(Section):
    """A comparison of challengers with the champion on live traffic."""

    name: Name
    """Name in metrics, commands and the audit log."""
    challengers: list[Name] = Field(min_length=1)
    """Names of the challengers."""
    model: str | None = None
    """Name of the model; optional if there is only one."""
    mode: Literal["shadow", "split", "canary"] = "shadow"
    """shadow compares mirrored requests; split serves clients with fixed weights (A/B); canary goes
    through stages."""
    unit: Unit = Unit()
    """What is assigned to an arm."""
    salt: Text | None = None
    """Salt of the assignment hash; default: the experiment's name."""
    alpha: float = Field(default=0.05, gt=0.0, lt=1.0)
    """Maximum probability of a wrong promotion, and of a wrong roll-back."""
    metrics: list[Metric] | None = None
    """Metrics; default: errors, timeouts and latency as guardrails."""
    promote: Literal["all", "any"] = "all"
    """Whether all success metrics must be proven, or any one."""
    minimum: int = Field(default=100, ge=0)
    """Minimum number of requests to the challenger before promotion."""
    minimum_duration: SecondsOrZero = 300.0
    """Minimum time with traffic before promotion: some faults, such as leaks, show only after
    minutes. Pauses of more than a minute do not count."""
    max_duration: Seconds | None = None
    """Maximum duration, after which the experiment ends without a decision."""
    max_requests: int | None = Field(default=None, ge=1)
    """Maximum number of requests to the challenger."""
    at_end: Literal["rollback", "continue"] = "rollback"
    """What to do when the experiment ends without a decision."""
    weights: dict[Name, Ratio] = {}
    """Shares of the challengers in mode split; the champion gets the rest."""
    stages: list[Stage] | None = None
    """Stages of a canary; default: shadow, 1, 5, 25, 50 and 100 %."""
    on_invalid: Literal["pause", "rollback"] = "pause"
    """What to do when the comparison is invalid."""
    slice: Annotated[list[Ratio], Field(min_length=2, max_length=2)] = [0.0, 1.0]
    """The part of the model's units that this experiment divides. Experiments that split the
    requests of one model need slices that do not overlap, such as [0, 0.5] and [0.5, 1]; shadow
    experiments share a model freely."""
    holdout: Ratio = 0.0
    """Share of units of the slice that never take part."""
    overrides: dict[Text, Name] = {}
    """Testers' units and the arm that serves them; excluded from the evidence."""
    override_header: HeaderName | None = None
    """Header whose value names the arm, for testers; excluded from the evidence."""
    exclude: list[Excluded] = []
    """Requests to exclude."""
    settle: SecondsOrZero = 0.0
    """Time after a weight change during which records are excluded."""
    down_after: Seconds = 30.0
    """How long a challenger that serves may answer none of its requests, while the champion
    answers, before it is rolled back."""
    opaque_answers: bool = False
    """The answers can never be read (images, binary tensors), and that is known: only whether a
    request was answered counts then, and no metric may need what the answer says."""
    compare: Compare = Compare()
    """When responses agree, in shadow mode."""
    label: Label | None = None
    """How feedback decides whether a prediction was right."""
    cost: dict[Name, Cost] = {}
    """Cost of each arm, for the metric cost."""

    @property
    def routes(self) -> bool:
        """Whether it decides which arm serves a request: all of them, or those of testers."""
        return self.mode != "shadow" or bool(self.overrides) or self.override_header is not None

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if self.mode != "split" and self.weights:
            raise ValueError(f"weights: only mode split has fixed weights, not {self.mode}")
        if self.mode != "canary" and self.stages is not None:
            raise ValueError(f"stages: only a canary has stages, not mode {self.mode}")
        if self.mode == "canary" and len(self.challengers) > 1:
            raise ValueError("challengers: a canary has one; use mode split for several")
        if self.overrides and self.unit.by == "request":
            raise ValueError(
                "overrides: single requests have ids of the proxy, which cannot be listed; set "
                "unit, such as {by: header, name: x-user-id}"
            )
        if not self.slice[0] < self.slice[1]:
            raise ValueError("slice: its end must be above its beginning, as in [0, 0.5]")
        for index, metric in enumerate(self.metrics or ()) if self.opaque_answers else ():
            if metric.metric in METRICS and METRICS[metric.metric].reads_answers:
                raise ValueError(
                    f"metrics[{index}].metric: {metric.metric} needs answers that can be read, and "
                    "opaque_answers says that they cannot"
                )
        if len(set(self.challengers)) < len(self.challengers):
            raise ValueError("challengers: each only once")
        if self.mode == "split":
            strangers = set(self.weights) - set(self.challengers)
            if strangers:
                raise ValueError(f"weights: the experiment has no challenger {min(strangers)!r}")
            if not self.weights or sum(self.weights.values()) > 1.0 + 1e-9:
                raise ValueError("weights: the shares must add up to at most 1")
        return self
