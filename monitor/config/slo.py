"""The file of service-level objectives, which `understudy slo` reads.

It is a file of its own and not a part of the sidecar's: it is read where rules are made, once for
all replicas, and not where traffic is served.
"""

from __future__ import annotations

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from understudy.common.fields import Figure, LongSeconds, NamedRate, QuantileShare, Seconds
from understudy.common.fields import Share as CommonShare
from understudy.common.units import percentile_name
from understudy.monitor.config.fields import Name
from understudy.monitor.config.hours import Hours
from understudy.monitor.config.runbooks import AbsoluteUrl, Runbooks
from understudy.monitor.config.section import Section

Share = Annotated[CommonShare, Field(gt=0.0, lt=1.0)]
Whole = Annotated[CommonShare, Field(gt=0.0)]


def _whole(value: float) -> float:
    if value != round(value):
        raise ValueError("must be whole seconds: rule windows have no finer resolution")
    return value


Period = Annotated[LongSeconds, AfterValidator(_whole), Field(ge=3600)]
WholeSeconds = Annotated[Seconds, AfterValidator(_whole)]
"""Seconds of what stands as a window or an interval in rules."""
LabelName = Annotated[str, Field(pattern=r"^[a-zA-Z_][a-zA-Z0-9_]{0,62}(=|!=|=~|!~)?$")]
LabelValue = Annotated[str, Field(max_length=256)]
EXPORTED = (0.5, 0.9, 0.95, 0.99, 0.999)
"""Quantiles that the sidecar exports."""
PLAIN = re.compile(r"[a-zA-Z_][a-zA-Z0-9_]*")
RESERVED = re.compile(r"__.*|sloth_.*|understudy_(kind|sli)|alertname|service|severity")
"""Labels that rules, routes and inhibitions give a meaning."""
_OF_METRICS = {
    "model": "; use `model`", "version": "; use `version_of_model`", "arm": "; use `arm`",
    "__name__": "", "le": "", "outcome": "", "role": "",
}  # fmt: skip
"""Labels that the rules themselves match, and what to use in place of `scrape`."""
Number = Annotated[float, Field(allow_inf_nan=False)]
_GROUPED = re.compile(
    "model|version|arm|role|protocol|outcome|instance|experiment|challenger|kind|check|reason|"
    "objective|channel|partition|state|feature|rule|le|quantile|window|metric|bound"
)
"""Labels of our own metrics, by which rules select and group."""


def _identity(value: str) -> str:
    if not PLAIN.fullmatch(value) or RESERVED.fullmatch(value) or _GROUPED.fullmatch(value):
        raise ValueError(
            f"{value!r} cannot tell installations apart: use labels that Prometheus adds to the "
            "scraped series, such as cluster and namespace"
        )
    return value


IdentityLabel = Annotated[str, Field(max_length=64), AfterValidator(_identity)]


def _models(value: Any) -> Any:
    if isinstance(value, str):
        return [value] if value else []
    return value


Models = Annotated[
    list[Annotated[str, Field(min_length=1, max_length=128)]],
    BeforeValidator(_models),
    Field(max_length=100),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "maxLength": 128},
                {"type": "array", "items": {"type": "string"}, "maxItems": 100},
            ],
            "examples": ["delays", ["delays", "fares"]],
        }
    ),
]
"""One model or several."""


class WindowOf(Section):
    """A pair of windows: `budget` was spent within `long`, and `short` shows that the problem
    continues."""

    severity: Literal["page", "ticket"]
    """Severity of the alert."""
    budget: Share
    """Share of the error budget that may be spent within the long window."""
    long: Period
    """The long window."""
    short: WholeSeconds
    """The short window, usually a twelfth of the long one."""

    @model_validator(mode="after")
    def _ordered(self) -> WindowOf:
        if self.short >= self.long:
            raise ValueError("short must be shorter than long")
        return self


class Alerting(Section):
    """The alerts of an objective."""

    windows: list[WindowOf] | None = Field(default=None, min_length=1)
    """Pairs of windows; default: those of the SRE workbook: 2 % in 1h and 5 % in 6h page, 10 % in
    1d and 10 % in 3d create a ticket."""
    least_bad: float = Field(default=5.0, ge=0.0, le=1e6)
    """Minimum number of bad events in the long window, so that one failure in ten requests at night
    does not page."""
    highest_threshold: Whole = 0.8
    """Largest alert threshold, as a share of bad events; an alert with a larger one would hardly
    ever fire."""
    unreachable: Literal["derive", "refuse"] = "derive"
    """What to do with such an alert: lower its burn factor, or reject the file."""


Outcome = Literal[
    "server_error",
    "timeout",
    "upstream_connect",
    "upstream_reset",
    "overload",
    "garbage",
    "model_overload",
    "stream_error",
    "truncated",
    "shutdown",
    "client_error",
]


class Availability(Section):
    """Client requests answered without an error of the service."""

    outcomes: list[Outcome] | None = Field(default=None, min_length=1)
    """Outcomes that count as errors; default: all except client_error."""


class Latency(Section):
    """Successful responses within a time limit."""

    within: Seconds
    """The time limit."""
    quantile: QuantileShare | None = None
    """Alternative to `objective`: p99, or 0.99, means that 99 % must be within the limit."""
    by: Literal["auto", "edge", "interpolate", "strict", "native"] = "auto"
    """How to read the histogram. `edge` uses the bucket boundary at the limit. `interpolate`
    assumes a uniform distribution in the bucket around the limit. `strict` counts that whole bucket
    as too slow. `native` reads native histograms. `auto` is edge if there is one, otherwise
    interpolate."""
    edges: list[Seconds] = []
    """Additional bucket boundaries of the sidecar's histogram: the latencies in its
    `objectives`."""


class TokenTime(Section):
    """Answers of a language model with a time within a limit."""

    within: Seconds
    """The time limit."""
    quantile: QuantileShare | None = None
    """Alternative to `objective`: p99, or 0.99, means that 99 % must be within the limit."""
    by: Literal["auto", "edge", "interpolate", "strict"] = "auto"
    """How to read the histogram, as for `latency`. Its boundaries are those of vLLM's metrics."""


def _exported(value: float) -> float:
    if value not in EXPORTED:
        names = ", ".join(percentile_name(one) for one in EXPORTED)
        raise ValueError(f"{percentile_name(value)} is not one of {names}")
    return value


class Quantile(Section):
    """Time during which a quantile of the latency is within a limit, by the sketch's own gauge."""

    quantile: Annotated[QuantileShare, AfterValidator(_exported)]
    """The quantile: p50, p90, p95, p99 or p99.9, or as a number, such as 0.999."""
    at_most: Seconds
    """The limit; any value."""
    window: Literal["10s", "1m", "5m"] = "1m"
    """Window of the quantile."""


class Features(Section):
    """Feature values that are present."""

    feature: str = Field(default="", max_length=256)
    """Only this feature."""


class Rules(Section):
    """Rows that satisfy the rules of the baseline."""

    feature: str = Field(default="", max_length=256)
    """Only rules of this feature."""
    rule: str = Field(default="", max_length=64, examples=["range"])
    """Only rules of this kind."""


class Performance(Section):
    """Time during which the model's performance is within its limit."""

    metric: str = Field(default="accuracy", max_length=64)
    """accuracy, estimated_accuracy (without labels), and with bound estimate also precision,
    recall, f1, auc, log_loss, brier, ece, mae, rmse."""
    bound: Literal["lower", "upper", "estimate"] = "lower"
    """The bound to compare."""
    at_least: Figure | None = None
    """The floor."""
    at_most: Figure | None = None
    """The ceiling, for losses."""

    @model_validator(mode="after")
    def _one(self) -> Performance:
        if (self.at_least is None) == (self.at_most is None):
            raise ValueError("give either at_least or at_most")
        return self


class Freshness(Section):
    """Time during which labels arrive, and arrive in time."""

    within: Seconds
    """Maximum mean delay from prediction to label."""


class Cost(Section):
    """Time during which a prediction is cheap enough."""

    at_most: float = Field(gt=0.0, allow_inf_nan=False)
    """Maximum cost, in the unit of the sidecar's prices."""


class Example(Section):
    """A series for the unit tests: its increase per good and per bad event."""

    series: str = Field(min_length=1, max_length=1024)
    """Name and labels, as in `orders_total{code="500"}`."""
    good: Number
    """Increase per good event."""
    bad: Number
    """Increase per bad event."""


class Events(Section):
    """Events defined by custom expressions, with `{{.window}}` for the window, as in Sloth."""

    bad: str = Field(min_length=1, max_length=4096)
    """Rate of bad events: `sum(rate(orders_total{code="500"}[{{.window}}]))`."""
    total: str = Field(min_length=1, max_length=4096)
    """Rate of all events."""
    unit: str = Field(default="events", max_length=32)
    """Name of the events."""
    example: list[Example] = []
    """Series for unit tests; without them, no unit tests are generated."""

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
    "ttft",
    "tpot",
    "events",
)


_BARE = ("availability", "predictions", "features", "rules")
"""Indicators that need no settings."""


class Predictions(Section):
    """Responses with a readable prediction."""


class Objective(Section):
    """One objective: a name, a share, and exactly one of the indicators."""

    name: Name
    """Name, unique within the service."""
    objective: Share | None = None
    """Share of events, or of time, that must be good."""
    description: str = Field(default="", max_length=1050)
    """Description."""
    availability: Availability | None = None
    """Responses without errors."""
    latency: Latency | None = None
    """Responses within a time limit."""
    quantile: Quantile | None = None
    """Time with a latency quantile within a limit."""
    predictions: Predictions | None = None
    """Responses with a readable prediction."""
    features: Features | None = None
    """Feature values that are present."""
    rules: Rules | None = None
    """Rows that satisfy the rules of the baseline."""
    performance: Performance | None = None
    """Time with model performance within a limit."""
    freshness: Freshness | None = None
    """Time with labels that arrive in time."""
    cost: Cost | None = None
    """Time with cost per prediction within a limit."""
    ttft: TokenTime | None = None
    """Answers of a language model whose first token comes within a limit."""
    tpot: TokenTime | None = None
    """Answers of a language model whose time per output token is within a limit."""
    events: Events | None = None
    """Events defined by custom expressions."""
    model: Models | None = None
    """Only this model, or these."""
    version: str | None = Field(default=None, max_length=128)
    """Only this version."""
    arm: str | None = Field(default=None, max_length=128)
    """Only this arm. Default for predictions, cost, ttft and tpot: `champion`."""
    period: Period | None = None
    """Period of the objective; default: that of the file."""
    alerting: Alerting | None = None
    """Its alerts; default: those of the file."""
    severities: list[Literal["page", "ticket"]] = ["page", "ticket"]
    """Severities of its alerts: `[ticket]` never pages, `[]` only records."""
    labels: dict[LabelName, LabelValue] = {}
    """Additional labels for recorded series and alerts."""
    rate: NamedRate | None = None
    """Expected events per second; `explain` uses it to show the effect of low traffic."""

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
        implied = self._quantile is not None
        if (self.objective is None) != implied:
            raise ValueError(
                f"objective is given twice: omit it, or {self.kind}.quantile"
                if implied
                else "objective is required"
            )
        return self

    @property
    def _quantile(self) -> float | None:
        """The share that an indicator gives itself."""
        within = self.latency or self.ttft or self.tpot
        return None if within is None else within.quantile

    @property
    def kind(self) -> str:
        """Which indicator it has."""
        return next(kind for kind in KINDS if getattr(self, kind) is not None)

    @property
    def target(self) -> float:
        """The share that must be good."""
        if self.objective is not None:
            return self.objective
        implied = self._quantile
        assert implied is not None
        return implied


class SloFile(Section):
    """Objectives of one service."""

    version: Literal[1]
    """Version of the file format."""
    service: Name
    """Service name; a label of all alerts."""
    slos: list[Objective] = []
    """The objectives; a file with `installation: true` needs none, and has no other rules then."""
    scrape: dict[LabelName, LabelValue] = {}
    """Matchers for the labels of the scraped series, as `{job: understudy}` or `{"namespace=~":
    "prod-.*"}`; default: everything that Prometheus scrapes. They apply to all rules of the
    file."""
    namespace: str = Field(default="", max_length=256)
    """Only series with this label `namespace`, as in `scrape`."""
    cluster: str = Field(default="", max_length=256)
    """Only series with this label `cluster`, as in `scrape`."""
    identity: list[IdentityLabel] = Field(default=["namespace"], max_length=8)
    """Labels of the scraped series that tell installations of a model apart, as `[cluster,
    namespace]`. Budgets, alerts, inhibitions and notification groups are separate for each of their
    values; `[]`: all series belong together."""
    scrape_interval: WholeSeconds = 15.0
    """Prometheus' scrape interval; outage alerts look back four intervals."""
    interval: WholeSeconds | None = None
    """Evaluation interval of the rules; default: Prometheus' own."""
    period: Period = 30 * 86400.0
    """Period of the objectives."""
    model: Models = []
    """Only this model, or these; default: all models that `scrape` matches. Like `arm` and
    `version_of_model`, it applies to all rules of the file but those about the installation."""
    version_of_model: str = Field(default="", max_length=128)
    """Only this version."""
    arm: str = Field(default="", max_length=128)
    """Only this arm."""
    labels: dict[LabelName, LabelValue] = {}
    """Additional labels for recorded series and alerts."""
    runbooks: Runbooks = Runbooks()
    """Pages that alerts link to."""
    link: AbsoluteUrl | None = None
    """Public URL of the control address, for a second link of alerts on findings: to the findings
    themselves. May contain labels, as in `https://{{ $labels.namespace }}.example`."""
    alerting: Alerting = Alerting()
    """The alerts of the objectives."""
    alerts: Literal["all", "none"] = "all"
    """Whether to generate rules for outages, findings and experiments."""
    installation: bool = False
    """Whether to generate the rules about the installation: sidecars that cannot be scraped or lose
    records, evaluators, Kafka. One file for each Prometheus needs them."""
    without: list[str] = []
    """Names of such alerts to omit."""
    traffic_hours: list[Hours] = Field(
        default=[], max_length=50, examples=[["mon-fri 07:00-19:00", "sat 08:00-12:00"]]
    )
    """Hours in UTC in which half an hour without requests raises `UnderstudyNoTraffic`; default:
    those that had requests a week ago."""

    @model_validator(mode="after")
    def _known_apart(self) -> SloFile:
        if not self.slos and not self.installation:
            raise ValueError("slos: the file has no objectives; only `installation` needs none")
        if self.slos and self.service == "installation":
            raise ValueError("service: 'installation' names the rules about sidecars; use another")
        if twice := [name for name in self.identity if self.identity.count(name) > 1]:
            raise ValueError(f"identity: duplicate label {twice[0]!r}")
        for name in ("namespace", "cluster"):
            if getattr(self, name) and any(key.rstrip("=!~") == name for key in self.scrape):
                raise ValueError(f"{name} is given twice: omit it, or scrape.{name}")
        for key in self.scrape:
            if (own := key.rstrip("=!~")) in _OF_METRICS:
                raise ValueError(
                    f"scrape: {own!r} is a label of the metrics and not of what is scraped, and "
                    f"rules that need another value could never hold{_OF_METRICS[own]}"
                )
        names = [one.name for one in self.slos]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"slos: duplicate name {twice[0]!r}")
        for labels in (self.labels, *(one.labels for one in self.slos)):
            for name in labels:
                if not PLAIN.fullmatch(name):
                    raise ValueError(f"labels: {name!r} is not a valid label name")
                if RESERVED.fullmatch(name):
                    raise ValueError(f"labels: {name!r} is set by the rules themselves")
        return self

    @property
    def matchers(self) -> dict[str, str]:
        """All matchers for the labels of the scraped series."""
        own = {"namespace": self.namespace, "cluster": self.cluster}
        return {**self.scrape, **{name: value for name, value in own.items() if value}}
