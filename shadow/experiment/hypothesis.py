"""What is compared, in which direction, and how much worse or better matters."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from understudy.common.text import did_you_mean
from understudy.common.units import metric_name
from understudy.shadow.experiment.errors import ExperimentError
from understudy.shadow.experiment.margin import Margin, Unit


class Statistic(Enum):
    """What is estimated of a column of values."""

    RATE = "rate"
    MEAN = "mean"
    QUANTILE = "quantile"
    TAIL = "tail"
    DISTRIBUTION = "distribution"
    RATIO = "ratio"
    """The sum of one column over the sum of another."""
    TOTAL = "total"
    """The mean over units of a unit's sum."""
    AUC = "auc"
    CALIBRATION = "calibration"


_MEANS = (Statistic.MEAN, Statistic.TOTAL)


@dataclass(frozen=True, slots=True)
class Metric:
    """A kind of metric. ``column`` is where its values are (see
    :mod:`understudy.shadow.experiment.batches`).

    ``of_field`` metrics need the name of a field of the answer. ``needs`` says what beside records
    must be there ("labels", "pairs", "units", ""). ``watches`` metrics can break a promotion but
    are not needed for one, since "nowhere worse" can be refuted and hardly be shown. ``beside`` is
    a second column that the statistic needs, ``bounds`` are the natural bounds of its values.
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
    beside: str = ""
    bounds: tuple[float, float] | None = None

    @property
    def reads_answers(self) -> bool:
        """Whether it is about what answers say, alone or beside a label."""
        labels = self.needs == "labels" and self.column != "reward"
        return self.of_field or self.column == "disagreement" or labels


LOG_LOSS = 16.0
"""Largest log loss of one prediction: probabilities below 1.1e-7 count as that."""
_QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
_METRICS = (
    Metric("error_rate", Statistic.RATE, "error", Unit.POINTS),
    Metric("timeout_rate", Statistic.RATE, "timeout", Unit.POINTS),
    Metric("unusable_rate", Statistic.RATE, "unusable", Unit.POINTS),
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
    Metric("ratio", Statistic.RATIO, "field", Unit.VALUE, "higher", of_field=True, beside="field"),
    Metric(
        "total_per_unit",
        Statistic.TOTAL,
        "field",
        Unit.VALUE,
        "higher",
        of_field=True,
        needs="units",
    ),
    Metric("recall", Statistic.RATE, "recalled", Unit.POINTS, "higher", needs="labels"),
    Metric("specificity", Statistic.RATE, "rejected", Unit.POINTS, "higher", needs="labels"),
    Metric(
        "precision",
        Statistic.RATIO,
        "true_positive",
        Unit.POINTS,
        "higher",
        needs="labels",
        beside="predicted_positive",
    ),
    Metric(
        "auc",
        Statistic.AUC,
        "score",
        Unit.POINTS,
        "higher",
        needs="labels",
        beside="positive",
        bounds=(0.0, 1.0),
    ),
    Metric("brier", Statistic.MEAN, "brier", Unit.VALUE, needs="labels", bounds=(0.0, 1.0)),
    Metric(
        "log_loss", Statistic.MEAN, "log_loss", Unit.VALUE, needs="labels", bounds=(0.0, LOG_LOSS)
    ),
    Metric(
        "calibration_error",
        Statistic.CALIBRATION,
        "score",
        Unit.POINTS,
        needs="labels",
        beside="positive",
        bounds=(0.0, 1.0),
    ),
    Metric("absolute_error", Statistic.MEAN, "absolute_error", Unit.VALUE, needs="labels"),
)
METRICS: dict[str, Metric] = {metric.name: metric for metric in _METRICS}
"""All metrics by name."""
ROLES = ("success", "guardrail")
COVARIATE = "input:"
"""Prefix of columns with a field of the request."""
EARLIER = f"{COVARIATE}earlier of "
"""Prefix of columns with the mean of a unit's earlier requests."""
_CAPPED = re.compile(r"(.+) capped (\S+) (\S+)")


def uncapped(column: str) -> tuple[str, tuple[float, float] | None]:
    """The column that a capped one is made of, and the cap; None for a column without."""
    capped = _CAPPED.fullmatch(column)
    return (capped[1], (float(capped[2]), float(capped[3]))) if capped else (column, None)


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """One line of an experiment.

    ``role`` success: the challenger must be better by more than ``margin`` (usually 0). guardrail:
    it must not be worse by ``margin`` or more. ``alpha`` is its share of the experiment's budget.
    ``effect`` is the improvement (success) that is hoped for: it tunes the test and decides
    futility. ``bounds`` are those of the values, if they have any; ``planned`` is the number of
    records per arm at which the evidence shall be sharpest; ``base_rate`` guesses a rate.
    ``cap`` replaces larger values (with two numbers, also smaller ones than the first): the mean of
    capped values is what is compared, so the cap is part of the name. ``per`` names the output that
    a ratio is divided by. ``covariate`` is a field of the request that explains part of the values;
    ``earlier`` adjusts for the unit's own mean before any unit was assigned instead.
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
    cap: tuple[float, float] | None = None
    per: str = ""
    covariate: str = ""
    earlier: bool = False

    @property
    def name(self) -> str:
        """As it is written and shown: ``error_rate``, ``prediction(p_late)``, ``ratio(clicks /
        views)``, ``reward(capped at 100 units)``."""
        of = [f"{self.field} / {self.per}"] if self.per else [self.field] if self.field else []
        if self.cap is not None:
            ends = [
                f"{'-' if end < 0.0 else ''}{Margin(abs(end), self.metric.unit)}"
                for end in self.cap
                if math.isfinite(end)
            ]
            of.append(f"capped at {' and '.join(ends)}")
        return f"{self.metric.name}({', '.join(of)})" if of else self.metric.name

    @property
    def column(self) -> str:
        """The column of values it is about, before any cap."""
        return f"field:{self.field}" if self.metric.of_field else self.metric.column

    @property
    def columns(self) -> tuple[str, ...]:
        """The columns that its measure takes: values, then what stands beside them."""
        # Totals are capped, not the values that they are made of.
        capped = self.cap if self.metric.statistic is not Statistic.TOTAL else None
        first = f"{self.column} capped {capped[0]:.17g} {capped[1]:.17g}" if capped else self.column
        beside = f"field:{self.per}" if self.per else self.metric.beside
        covariate = f"{COVARIATE}{self.covariate}" if self.covariate else ""
        if self.earlier:
            covariate = f"{EARLIER}{first}"
        return tuple(filter(None, (first, beside, covariate)))

    @property
    def lower_is_better(self) -> bool:
        """Whether growth is harm."""
        return self.better == "lower"

    @property
    def needs_answers(self) -> bool:
        """Whether the answers have to be readable."""
        return self.metric.of_field or self.metric.column in ("disagreement", "unusable")

    @property
    def one_label(self) -> bool:
        """Whether a unit can only count by one of its labels: it has no mean of this figure."""
        return self.metric.statistic in (Statistic.AUC, Statistic.CALIBRATION)

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
            *("effect", "bounds", "planned", "base_rate", "cap", "per", "covariate"),
            "earlier",
        }
        if unknown:
            raise ExperimentError(f"{path}.{sorted(unknown)[0]}", "is not known")
        name = data.get("metric")
        metric = METRICS.get(metric_name(name)) if isinstance(name, str) else None
        if metric is None:
            close = did_you_mean(str(name), METRICS) or f"; there are {', '.join(METRICS)}"
            raise ExperimentError(f"{path}.metric", f"{name!r} does not exist{close}")
        name = metric.name
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
        if bounds is not None and (metric.statistic is not Statistic.MEAN or metric.bounds):
            raise ExperimentError(f"{path}.bounds", f"{name} has none to declare")
        bounds = bounds or metric.bounds
        cap = _cap(data.get("cap"), metric, f"{path}.cap")
        if cap is not None and bounds is not None:
            raise ExperimentError(
                f"{path}.cap", "bounded values need no cap: remove one of the two"
            )
        per = data.get("per", "")
        if (metric.statistic is Statistic.RATIO and metric.of_field) != bool(per):
            problem = "is not a ratio" if per else "needs the output that it is divided by"
            raise ExperimentError(f"{path}.per", f"{name} {problem}")
        covariate = data.get("covariate", "")
        earlier = bool(data.get("earlier", False))
        if earlier and metric.needs == "labels":
            raise ExperimentError(f"{path}.earlier", f"{name} is about labels: requests only")
        if covariate and earlier:
            raise ExperimentError(f"{path}.earlier", "adjusts instead of covariate: remove one")
        if (covariate or earlier) and (metric.statistic not in _MEANS or metric.bounds):
            raise ExperimentError(
                f"{path}.{'covariate' if covariate else 'earlier'}",
                f"{name} is not adjusted: only means are",
            )
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
            cap,
            per,
            covariate,
            earlier,
        )


def _number(value: Any, path: str, above: float, below: float) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ExperimentError(path, f"must be a number, not {value!r}")
    if not above < value < below:
        raise ExperimentError(path, f"must lie between {above:g} and {below:g}, not {value!r}")
    return float(value)


def _cap(value: Any, metric: Metric, path: str) -> tuple[float, float] | None:
    """The smallest and largest value that count as they are; the smallest may be infinite."""
    if value is None:
        return None
    if metric.statistic not in _MEANS:
        raise ExperimentError(path, f"{metric.name} is not a mean: nothing is capped")
    ends = value if isinstance(value, (list, tuple)) else [value]
    if not 1 <= len(ends) <= 2:
        raise ExperimentError(path, f"must be the largest value, or two values, not {value!r}")
    limits = [_end(end, metric.unit, path) for end in ends]
    lower, upper = (-math.inf, limits[0]) if len(limits) == 1 else limits
    if not lower < upper:
        raise ExperimentError(path, f"the lower must be below the upper, not {value!r}")
    return lower, upper


def _end(value: Any, unit: Unit, path: str) -> float:
    """One end of a cap: a quantity with its unit, which may be negative."""
    text = str(value).strip()
    bound = Margin.parse(text.removeprefix("-"), unit, path)
    if bound.relative:
        raise ExperimentError(path, f"must be a value, not a share: {value!r}")
    return -bound.value if text.startswith("-") else bound.value


def _bounds(value: Any, path: str) -> tuple[float, float] | None:
    if value is None:
        return None
    if not isinstance(value, (list, tuple)) or len(value) != 2:
        raise ExperimentError(path, f"must be two numbers, not {value!r}")
    lower, upper = (_number(x, path, -1e300, 1e300) for x in value)
    if not lower < upper:
        raise ExperimentError(path, f"the lower must be below the upper, not {value!r}")
    return lower, upper
