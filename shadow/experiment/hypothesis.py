"""What is compared, in which direction, and how much worse or better matters."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from understudy.shadow.experiment.errors import ExperimentError
from understudy.shadow.experiment.margin import Margin, Unit


class Statistic(Enum):
    """What is estimated of a column of values."""

    RATE = "rate"
    MEAN = "mean"
    QUANTILE = "quantile"
    TAIL = "tail"
    DISTRIBUTION = "distribution"


@dataclass(frozen=True, slots=True)
class Metric:
    """A kind of metric. ``column`` is where its values are (see
    :mod:`understudy.shadow.experiment.batches`).

    ``of_field`` metrics need the name of a field of the answer. ``needs`` says what beside records
    must be there ("labels", "pairs", ""). ``watches`` metrics can break a promotion but are not
    needed for one, since "nowhere worse" can be refuted and hardly be shown.
    """

    name: str
    statistic: Statistic
    column: str
    unit: Unit
    better: str = "lower"
    p: float = 0.0
    of_field: bool = False
    needs: str = ""
    watches: bool = False


_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
_METRICS = (
    Metric("error_rate", Statistic.RATE, "error", Unit.POINTS),
    Metric("timeout_rate", Statistic.RATE, "timeout", Unit.POINTS),
    Metric("latency_mean", Statistic.MEAN, "latency", Unit.SECONDS),
    *(
        Metric(f"latency_{name}", Statistic.QUANTILE, "latency", Unit.SECONDS, p=p)
        for name, p in _QUANTILES.items()
    ),
    Metric("latency_tail", Statistic.TAIL, "latency", Unit.RELATIVE, watches=True),
    Metric("disagreement", Statistic.RATE, "disagreement", Unit.POINTS, needs="pairs"),
    Metric("prediction", Statistic.MEAN, "field", Unit.VALUE, "higher", of_field=True),
    Metric(
        "prediction_distribution",
        Statistic.DISTRIBUTION,
        "field",
        Unit.POINTS,
        of_field=True,
        watches=True,
    ),
    Metric("accuracy", Statistic.RATE, "correct", Unit.POINTS, "higher", needs="labels"),
    Metric("reward", Statistic.MEAN, "reward", Unit.VALUE, "higher", needs="labels"),
    Metric("cost", Statistic.MEAN, "cost", Unit.VALUE),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}
"""All metrics by name."""
ROLES = ("success", "guardrail")


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One line of an experiment.

    ``role`` success: the challenger must be better by more than ``margin`` (usually 0). guardrail:
    it must not be worse by ``margin`` or more. ``alpha`` is its share of the experiment's budget.
    ``effect`` is the improvement (success) that is hoped for: it tunes the test and decides
    futility. ``bounds`` are those of the values, if they have any; ``planned`` is the number of
    records per arm at which the evidence shall be sharpest; ``base_rate`` guesses a rate.
    """

    metric: Metric
    role: str
    margin: Margin
    alpha: float
    field: str = ""
    better: str = "lower"
    effect: Margin | None = None
    bounds: tuple[float, float] | None = None
    planned: float = 10_000.0
    base_rate: float = 0.01

    @property
    def name(self) -> str:
        """As it is written and shown: ``error_rate``, ``prediction(p_late)``."""
        return f"{self.metric.name}({self.field})" if self.field else self.metric.name

    @property
    def column(self) -> str:
        """The column of values it is about."""
        return f"field:{self.field}" if self.metric.of_field else self.metric.column

    @property
    def lower_is_better(self) -> bool:
        """Whether growth is harm."""
        return self.better == "lower"

    @property
    def watches(self) -> bool:
        """It can break a promotion and is not needed for one."""
        return self.metric.watches

    def describe(self) -> str:
        """In plain words: what has to be shown."""
        direction = self.better
        if self.role == "success":
            least = f" by more than {self.margin}" if self.margin.value else ""
            return f"{self.name} is {direction}{least}"
        worse = "higher" if self.lower_is_better else "lower"
        if self.watches:
            return f"{self.name} is not worse by more than {self.margin}"
        return f"{self.name} is not {worse} by {self.margin} or more"

    @classmethod
    def parse(cls, data: Mapping[str, Any], path: str, alpha: float) -> Hypothesis:
        """From plain data, as in a configuration file; ``alpha`` is the share without one given.

        Raises ExperimentError naming the path of what is wrong.
        """
        unknown = set(data) - {
            *("metric", "role", "margin", "alpha", "field", "better"),
            *("effect", "bounds", "planned", "base_rate"),
        }
        if unknown:
            raise ExperimentError(f"{path}.{sorted(unknown)[0]}", "is not known")
        name = data.get("metric")
        metric = METRICS.get(name) if isinstance(name, str) else None
        if metric is None:
            known = ", ".join(METRICS)
            raise ExperimentError(f"{path}.metric", f"{name!r} does not exist; there are {known}")
        role = data.get("role", "guardrail")
        if role not in ROLES:
            raise ExperimentError(f"{path}.role", f"must be success or guardrail, not {role!r}")
        if role == "success" and metric.watches:
            raise ExperimentError(f"{path}.role", f"{name} can only be a guardrail")
        field = data.get("field", "")
        if metric.of_field and not (isinstance(field, str) and field):
            raise ExperimentError(f"{path}.field", f"{name} needs the name of a field")
        if not metric.of_field and field:
            raise ExperimentError(f"{path}.field", f"{name} is not about a field")
        better = data.get("better", metric.better)
        if better not in ("lower", "higher"):
            raise ExperimentError(f"{path}.better", f"must be lower or higher, not {better!r}")
        if "margin" not in data and role == "guardrail" and not metric.watches:
            raise ExperimentError(
                f"{path}.margin", "is required: how much worse would still be acceptable?"
            )
        margin = Margin.parse(data.get("margin", 0), metric.unit, f"{path}.margin")
        if role == "guardrail" and not metric.watches and margin.value == 0.0:
            raise ExperimentError(
                f"{path}.margin",
                "must be above 0: exact equality of two models can never be proven",
            )
        effect = None
        if data.get("effect") is not None:
            effect = Margin.parse(data["effect"], metric.unit, f"{path}.effect")
        bounds = _bounds(data.get("bounds"), f"{path}.bounds")
        if bounds is not None and metric.statistic is not Statistic.MEAN:
            raise ExperimentError(f"{path}.bounds", f"{name} has none to declare")
        if effect is not None and not effect.relative:
            span = 1.0 if metric.statistic is Statistic.RATE else None
            if bounds is not None:
                span = bounds[1] - bounds[0]
            if span is not None and effect.value >= span:
                raise ExperimentError(
                    f"{path}.effect", f"{effect} is outside the bounds of {name}: at most {span:g}"
                )
        return cls(
            metric,
            role,
            margin,
            _number(data.get("alpha", alpha), f"{path}.alpha", 0.0, 1.0),
            field,
            better,
            effect,
            bounds,
            _number(data.get("planned", 10_000.0), f"{path}.planned", 1.0, 1e12),
            _number(data.get("base_rate", 0.01), f"{path}.base_rate", 0.0, 1.0),
        )


def _number(value: Any, path: str, above: float, below: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ExperimentError(path, f"must be a number, not {value!r}")
    if not above < value < below:
        raise ExperimentError(path, f"must lie between {above:g} and {below:g}, not {value!r}")
    return float(value)


def _bounds(value: Any, path: str) -> tuple[float, float] | None:
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ExperimentError(path, f"must be two numbers, not {value!r}")
    lower, upper = (_number(x, path, -1e300, 1e300) for x in value)
    if not lower < upper:
        raise ExperimentError(path, f"the lower must be below the upper, not {value!r}")
    return lower, upper
