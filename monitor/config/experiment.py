"""The part of the configuration that declares experiments."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from understudy.monitor.config.fields import HeaderName, HeaderValue, Name
from understudy.monitor.config.section import Section
from understudy.monitor.config.units import Seconds

Share = Annotated[float, Field(ge=0.0, le=1.0, allow_inf_nan=False)]
Text = Annotated[str, Field(min_length=1, max_length=256)]


class Unit(Section):
    """What is assigned to an arm as a whole, and stays there."""

    by: Literal["request", "header", "cookie", "pointer"] = "request"
    """The request id, a header, a cookie, or a JSON pointer into the request."""
    name: str = Field(default="", max_length=256, examples=["x-user-id"])
    """Name of the header or cookie, or the pointer."""

    @model_validator(mode="after")
    def _named(self) -> Unit:
        if (self.by == "request") == bool(self.name):
            raise ValueError(
                "by request needs no name" if self.name else f"by {self.by} needs a name"
            )
        if self.by == "pointer" and not self.name.startswith("/"):
            raise ValueError(f"name: {self.name!r} is no JSON pointer: it starts with /")
        return self


class Metric(Section):
    """What has to be better, or must not be worse."""

    metric: str = Field(examples=["error_rate", "latency_p99", "accuracy"])
    """error_rate, timeout_rate, latency_mean, latency_p50 … latency_p99.9, latency_tail,
    disagreement, prediction, prediction_distribution, accuracy, reward or cost."""
    role: Literal["success", "guardrail"] = "guardrail"
    """success: the challenger has to be better; guardrail: it must not be worse."""
    margin: str | float = Field(default=0, examples=["0.5 pp", "10 %", "20 ms", "0.1 units"])
    """How much worse would still be acceptable (guardrail), or by how much it has to be better
    (success); with its unit."""
    alpha: float | None = Field(default=None, gt=0.0, lt=1.0)
    """Its share of the experiment's alpha; by default the metrics divide what is left."""
    field: str = Field(default="", max_length=256)
    """The field of the answer, for prediction and prediction_distribution."""
    better: Literal["lower", "higher"] | None = None
    """Direction, where it is not the metric's usual one."""
    effect: str | float | None = Field(default=None, examples=["2 pp"])
    """The improvement that is hoped for: once it is excluded, the experiment is futile."""
    bounds: Annotated[list[float], Field(min_length=2, max_length=2)] | None = None
    """Smallest and largest possible value, if there are any."""
    planned: float = Field(default=10_000.0, gt=1.0, le=1e12)
    """Records per arm at which the evidence shall be sharpest."""
    base_rate: float = Field(default=0.01, gt=0.0, lt=1.0)
    """About how large a rate is; a guess, which costs a little time when it is wrong."""

    def plain(self) -> dict[str, Any]:
        """As :class:`understudy.shadow.experiment.Rules` reads it."""
        return self.model_dump(exclude_none=True, exclude_unset=True)


class Stage(Section):
    """A step of a rollout."""

    weight: Share = 0.0
    """The challenger's share of the units; 0 is shadow."""
    gate: Literal["automatic", "manual"] = "automatic"
    """automatic goes on by itself, manual asks a person."""
    requests: int = Field(default=100, ge=0)
    """Requests of the challenger's own that it has to serve at least."""
    seconds: Seconds | Literal[0] = 0
    """How long the stage lasts at least."""
    requires: Literal["decision", "no_harm"] = "no_harm"
    """decision: the evidence has to allow the promotion; no_harm: it must not speak against it."""


class Compare(Section):
    """When two answers to the same request agree."""

    absolute: float = Field(default=0.0, ge=0.0)
    """Numbers that differ by no more agree."""
    relative: float = Field(default=0.0, ge=0.0)
    """The same, as a share of the larger one."""
    ulp: int = Field(default=0, ge=0)
    """The same, in units in the last place."""
    ignore: list[str] = Field(default=[], examples=[["model_version", "debug.*"]])
    """Globs over names of outputs that do not matter."""
    unordered: list[str] = []
    """Globs over names of outputs in which order does not matter."""
    top_k: int = Field(default=0, ge=0)
    """Compare the best k of vectors of scores."""
    noise: Share = 0.0
    """Share of the requests that the champion is sent twice, so that its own differences can be
    told from the challenger's."""
    keep: int = Field(default=20, ge=0, le=200)
    """The worst disagreements that are kept, redacted, for people to read."""


class Label(Section):
    """How a label says whether a prediction was right."""

    prediction: str = Field(min_length=1, max_length=256, examples=["p_late"])
    """Name of the output."""
    threshold: float | None = None
    """A prediction above it says yes; without it, label and prediction have to be equal."""


class Cost(Section):
    """What a prediction of an arm costs, in whatever currency."""

    per_request: float = Field(default=0.0, ge=0.0)
    """For each request."""
    per_second: float = Field(default=0.0, ge=0.0)
    """For each second that the model server takes."""


class Excluded(Section):
    """Requests that do not take part."""

    header: HeaderName
    """A header …"""
    value: HeaderValue
    """… and its value."""


class Experiment(Section):
    """Challengers against the champion on live traffic."""

    name: Name
    """In metrics, commands and the audit log."""
    challengers: list[Name] = Field(min_length=1)
    """Names of arms."""
    model: str | None = None
    """Name of the model; not needed when there is one."""
    mode: Literal["shadow", "split", "canary"] = "shadow"
    """shadow compares copies; split serves clients with fixed weights; canary goes through
    stages."""
    unit: Unit = Unit()
    """What is assigned to an arm as a whole."""
    salt: Text | None = None
    """Another salt, another assignment; by default the experiment's name."""
    alpha: float = Field(default=0.05, gt=0.0, lt=1.0)
    """Bounds the probability of a wrong promotion, and that of a wrong roll-back, each."""
    metrics: list[Metric] | None = None
    """What is compared; by default errors, time-outs and latency as guardrails."""
    promote: Literal["all", "any"] = "all"
    """Whether all successes have to be shown, or any."""
    minimum: int = Field(default=100, ge=0)
    """Requests of the challenger's own before any promotion."""
    max_duration: Seconds | None = None
    """The experiment ends undecided after this."""
    max_requests: int | None = Field(default=None, ge=1)
    """The same, in requests of the challenger."""
    at_end: Literal["rollback", "continue"] = "rollback"
    """What becomes of an experiment that ends undecided."""
    weights: dict[Name, Share] = {}
    """Shares of the challengers in mode split; the champion has the rest."""
    stages: list[Stage] | None = None
    """Of a canary; by default shadow, 1, 5, 25, 50 and 100 %."""
    on_invalid: Literal["pause", "rollback"] = "pause"
    """What happens when the evidence cannot be trusted."""
    holdout: Share = 0.0
    """Share of the units that never take part."""
    overrides: dict[Text, Name] = {}
    """Units of testers and the arm that serves them; they are no evidence."""
    override_header: HeaderName | None = None
    """A header whose value names the arm, for testers; they are no evidence."""
    exclude: list[Excluded] = []
    """Requests that do not take part."""
    settle: Seconds | Literal[0] = 0
    """What is left out after a change of weights."""
    compare: Compare = Compare()
    """When answers agree, in shadow mode."""
    label: Label | None = None
    """How feedback says whether a prediction was right."""
    cost: dict[Name, Cost] = {}
    """Of each arm, for the metric cost."""

    @model_validator(mode="after")
    def _consistent(self) -> Experiment:
        if self.mode != "split" and self.weights:
            raise ValueError(f"weights: only mode split has fixed weights, not {self.mode}")
        if self.mode != "canary" and self.stages is not None:
            raise ValueError(f"stages: only a canary has stages, not mode {self.mode}")
        if self.mode == "canary" and len(self.challengers) > 1:
            raise ValueError("challengers: a canary has one; use mode split for several")
        if len(set(self.challengers)) < len(self.challengers):
            raise ValueError("challengers: each only once")
        if self.mode == "split":
            strangers = set(self.weights) - set(self.challengers)
            if strangers:
                raise ValueError(f"weights: {min(strangers)!r} is no challenger of it")
            if not self.weights or sum(self.weights.values()) > 1.0 + 1e-9:
                raise ValueError("weights: needs shares that add up to at most 1")
        return self
