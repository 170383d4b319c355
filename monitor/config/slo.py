"""The file of service-level objectives, which `understudy slo` reads.

It is a file of its own and not a part of the sidecar's: it is read where rules are made, once for
all replicas, and not where traffic is served.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from understudy.common.units import seconds, share
from understudy.monitor.config.fields import Name
from understudy.monitor.config.section import Section
from understudy.monitor.config.units import Seconds

_SHARE = {
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*%$"}],
    "examples": ["99.9 %", 0.999],
}
Share = Annotated[float, BeforeValidator(share), Field(gt=0.0, lt=1.0), WithJsonSchema(_SHARE)]
Whole = Annotated[float, BeforeValidator(share), Field(gt=0.0, le=1.0), WithJsonSchema(_SHARE)]
_LONG = {
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?\s*(m|h|d)$"}],
    "examples": ["30d"],
    "x-unit": "seconds",
}


def _whole(value: float) -> float:
    if value != round(value):
        raise ValueError("must be whole seconds: windows of rules have no finer ones")
    return value


Period = Annotated[
    float,
    BeforeValidator(seconds),
    AfterValidator(_whole),
    Field(ge=3600, le=366 * 86400),
    WithJsonSchema(_LONG),
]
WholeSeconds = Annotated[Seconds, AfterValidator(_whole)]
"""Seconds of what stands as a window or an interval in rules."""
LabelName = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,62}(=|!=|=~|!~)?$")]
LabelValue = Annotated[str, Field(max_length=256)]
EXPORTED = (0.5, 0.9, 0.95, 0.99, 0.999)
"""Quantiles that the sidecar exports."""
PLAIN = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
RESERVED = re.compile(r"__.*|sloth_.*|understudy_(kind|sli)|alertname|service|severity")
"""Labels that rules, routes and inhibitions give a meaning."""
Number = Annotated[float, Field(allow_inf_nan=False)]


class WindowOf(Section):
    """A pair of windows: `budget` spent within `long`, and `short` says that it still goes on."""

    severity: Literal["page", "ticket"]
    """Who is told."""
    budget: Share
    """The share of the error budget that may be gone within the long window."""
    long: Period
    """The long window."""
    short: WholeSeconds
    """The short window; a twelfth of the long one is usual."""

    @model_validator(mode="after")
    def _ordered(self) -> WindowOf:
        if self.short >= self.long:
            raise ValueError("short must be shorter than long")
        return self


class Alerting(Section):
    """Which alerts an objective has."""

    windows: list[WindowOf] | None = Field(default=None, min_length=1)
    """Pairs of windows; by default those of the SRE workbook: 2 % in 1h and 5 % in 6h page, 10 % in
    1d and 10 % in 3d make a ticket."""
    least_bad: float = Field(default=5.0, ge=0.0, le=1e6)
    """Bad events that the long window must hold: so that one of ten requests of a night wakes
    nobody."""
    highest_threshold: Whole = 0.8
    """An alert that would need a larger share of bad events hardly ever fires."""
    unreachable: Literal["derive", "refuse"] = "derive"
    """What becomes of such an alert: its burn factor is lowered, or the file is refused."""


Outcome = Literal[
    "server_error", "timeout", "upstream_connect", "upstream_reset", "overload", "client_error"
]


class Availability(Section):
    """Requests of clients that are answered without an error of the service."""

    outcomes: list[Outcome] | None = Field(default=None, min_length=1)
    """What counts as an error; by default everything but client_error."""


class Latency(Section):
    """Successful answers that come in time."""

    within: Seconds
    """In what time."""
    quantile: Share | None = None
    """Another way to say the objective: 0.99 means that 99 % have to come in time."""
    by: Literal["auto", "edge", "interpolate", "strict", "native"] = "auto"
    """How the histogram is read: `edge` reads the bucket that ends at the limit; `interpolate`
    shares out the bucket around it evenly, `strict` counts all of it as too slow; `native` reads
    native histograms; `auto` is edge where there is one, else interpolate."""
    edges: list[Seconds] = []
    """Edges that the sidecar's histogram has beyond the usual ones: the latencies of its
    `objectives`."""


def _exported(value: float) -> float:
    if value not in EXPORTED:
        raise ValueError(f"{value:g} is none of {', '.join(f'{q:g}' for q in EXPORTED)}")
    return value


class Quantile(Section):
    """Time during which a quantile of the latency is within a limit, by the sketch's own gauge."""

    quantile: Annotated[Share, AfterValidator(_exported)]
    """Which one: 0.5, 0.9, 0.95, 0.99 or 0.999."""
    at_most: Seconds
    """The limit, at any value."""
    window: Literal["10s", "1m", "5m"] = "1m"
    """Over which the quantile is taken."""


class Features(Section):
    """Feature values that are there."""

    feature: str = Field(default="", max_length=256)
    """One feature only."""


class Rules(Section):
    """Rows that keep the rules of the baseline."""

    feature: str = Field(default="", max_length=256)
    """Those of one feature only."""
    rule: str = Field(default="", max_length=64, examples=["range"])
    """Those of one kind only."""


class Performance(Section):
    """Time during which the model's performance is within its limit."""

    metric: str = Field(default="accuracy", max_length=64)
    """accuracy, estimated_accuracy (without labels), and with bound estimate also precision,
    recall, f1, auc, log_loss, brier, ece, mae, rmse."""
    bound: Literal["lower", "upper", "estimate"] = "lower"
    """Which bound is compared."""
    at_least: Number | None = None
    """The floor."""
    at_most: Number | None = None
    """The ceiling, for losses."""

    @model_validator(mode="after")
    def _one(self) -> Performance:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("say one of at_least and at_most")
        return self


class Freshness(Section):
    """Time during which labels come soon enough, and come at all."""

    within: Seconds
    """The mean delay from prediction to label."""


class Cost(Section):
    """Time during which a prediction is cheap enough."""

    at_most: float = Field(gt=0.0, allow_inf_nan=False)
    """In the unit of the sidecar's prices."""


class Example(Section):
    """A series that the unit tests send: how much it grows by a good and by a bad event."""

    series: str = Field(min_length=1, max_length=1024)
    """Name and labels, as in `orders_total{code="500"}`."""
    good: Number
    """By a good event."""
    bad: Number
    """By a bad event."""


class Events(Section):
    """Events by expressions of one's own, with `{{.window}}` for the window, as in Sloth."""

    bad: str = Field(min_length=1, max_length=4096)
    """Rate of bad events: `sum(rate(orders_total{code="500"}[{{.window}}]))`."""
    total: str = Field(min_length=1, max_length=4096)
    """Rate of all events."""
    unit: str = Field(default="events", max_length=32)
    """What they are called."""
    example: list[Example] = []
    """Series to try it with; without, no unit tests are made."""

    @model_validator(mode="after")
    def _windows(self) -> Events:
        for name in ("bad", "total"):
            if "{{.window}}" not in getattr(self, name):
                raise ValueError(f"{name}: has no {{{{.window}}}}; write [{{{{.window}}}}]")
        return self


KINDS = (
    "availability",
    "latency",
    "quantile",
    "predictions",
    "features",
    "rules",
    "performance",
    "freshness",
    "cost",
    "events",
)


_BARE = ("availability", "predictions", "features", "rules")
"""Indicators that need no settings."""


class Predictions(Section):
    """Answers that hold a prediction that can be read."""


class Objective(Section):
    """One objective: a name, a share, and exactly one of the indicators."""

    name: Name
    """Known by it together with the service."""
    objective: Share | None = None
    """The share that must be good: of events, or of the time."""
    description: str = Field(default="", max_length=1050)
    """For people."""
    availability: Availability | None = None
    """Answers without errors."""
    latency: Latency | None = None
    """Answers in time."""
    quantile: Quantile | None = None
    """Time with a quantile of the latency within a limit."""
    predictions: Predictions | None = None
    """Answers with a readable prediction."""
    features: Features | None = None
    """Feature values that are there."""
    rules: Rules | None = None
    """Rows that keep the rules of the baseline."""
    performance: Performance | None = None
    """Time with a model that is good enough."""
    freshness: Freshness | None = None
    """Time with labels that come soon enough."""
    cost: Cost | None = None
    """Time with predictions that are cheap enough."""
    events: Events | None = None
    """Events by expressions of one's own."""
    model: str | None = Field(default=None, max_length=128)
    """Of one model only."""
    version: str | None = Field(default=None, max_length=128)
    """Of one version only."""
    arm: str | None = Field(default=None, max_length=128)
    """Of one arm only. For predictions and cost by default `champion`."""
    period: Period | None = None
    """Over which the share counts; by default that of the file."""
    alerting: Alerting | None = None
    """Which alerts it has; by default those of the file."""
    severities: list[Literal["page", "ticket"]] = ["page", "ticket"]
    """Which of them it has: `[ticket]` wakes nobody, `[]` only records."""
    labels: dict[LabelName, LabelValue] = {}
    """More labels of what is recorded, and of the alerts."""
    rate: float | None = Field(default=None, gt=0.0, le=1e9)
    """Events per second that are expected: `explain` says with it what low traffic means."""

    @model_validator(mode="before")
    @classmethod
    def _without_settings(cls, data: Any) -> Any:
        # `availability:` alone means that there is nothing to say about it.
        if isinstance(data, dict):
            empty = [key for key in KINDS if key in data and data[key] is None]
            if more := [key for key in empty if key not in _BARE]:
                raise ValueError(f"{more[0]}: needs its settings; see docs/slo.md")
            return {**data, **{key: {} for key in empty}}
        return data

    @model_validator(mode="after")
    def _exactly_one(self) -> Objective:
        said = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(said) != 1:
            found = f"has {' and '.join(said)}" if said else "has no indicator"
            raise ValueError(f"{found}: give it exactly one of {', '.join(KINDS)}")
        implied = self.latency is not None and self.latency.quantile is not None
        if (self.objective is None) != implied:
            raise ValueError(
                "objective is said twice: leave it out, or latency.quantile"
                if implied
                else "objective is required"
            )
        return self

    @property
    def kind(self) -> str:
        """Which indicator it has."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def target(self) -> float:
        """The share that must be good."""
        if self.objective is not None:
            return self.objective
        assert self.latency is not None
        assert self.latency.quantile is not None
        return self.latency.quantile


class SloFile(Section):
    """Objectives of one service."""

    version: Literal[1]
    """Version of this format."""
    service: Name
    """What the objectives are about; a label of all alerts."""
    slos: list[Objective] = Field(min_length=1)
    """The objectives."""
    scrape: dict[LabelName, LabelValue] = {}
    """Labels of the scraped series, as `{job: understudy}` or `{"namespace=~": "prod-.*"}`; a rule
    file for everything that a Prometheus scrapes needs none."""
    scrape_interval: WholeSeconds = 15.0
    """How often Prometheus scrapes; alerts of outages look back four times as far."""
    interval: WholeSeconds | None = None
    """How often the rules are evaluated; by default as Prometheus does."""
    period: Period = 30 * 86400.0
    """Over which the shares count."""
    model: str = Field(default="", max_length=128)
    """Of one model only."""
    version_of_model: str = Field(default="", max_length=128)
    """Of one version only."""
    arm: str = Field(default="", max_length=128)
    """Of one arm only."""
    labels: dict[LabelName, LabelValue] = {}
    """More labels of what is recorded, and of the alerts."""
    runbooks: str = Field(default="docs/runbooks", min_length=1, max_length=512)
    """Where the runbooks are: a folder, or an address with {alert} in it."""
    alerting: Alerting = Alerting()
    """Which alerts the objectives have."""
    alerts: Literal["all", "none"] = "all"
    """Whether there are rules for outages, findings, experiments and the sidecar itself as well."""
    without: list[str] = []
    """Names of such alerts that are not wanted."""

    @model_validator(mode="after")
    def _known_apart(self) -> SloFile:
        names = [one.name for one in self.slos]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"slos: the name {twice[0]!r} stands twice")
        for labels in (self.labels, *(one.labels for one in self.slos)):
            for name in labels:
                if not PLAIN.fullmatch(name):
                    raise ValueError(f"labels: {name!r} is no label name")
                if RESERVED.fullmatch(name):
                    raise ValueError(f"labels: {name!r} is set by the rules themselves")
        return self
