"""What is declared of an experiment: its hypotheses, its budget, when it ends."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from understudy.shadow.experiment.errors import ExperimentError
from understudy.shadow.experiment.hypothesis import Hypothesis

DEFAULT_METRICS: tuple[dict[str, Any], ...] = (
    {"metric": "error_rate", "role": "guardrail", "margin": "1 pp"},
    {"metric": "timeout_rate", "role": "guardrail", "margin": "1 pp"},
    {"metric": "latency_p50", "role": "guardrail", "margin": "20 %"},
    {"metric": "latency_p95", "role": "guardrail", "margin": "20 %"},
    {"metric": "latency_p99", "role": "guardrail", "margin": "20 %"},
    {"metric": "latency_tail", "role": "guardrail", "margin": "20 %"},
)
"""What is guarded when nothing is declared."""
BUILT_IN = "unusable_rate"
"""Guarded in every experiment: the share of requests without a usable answer, because they failed,
were refused or abandoned, or because the answer cannot be read."""
_BUILT_IN_MARGIN = "1 pp"
_BUILT_IN_SHARE = 0.02
"""Its share of alpha."""


@dataclass(frozen=True, slots=True)
class Rules:
    """``alpha`` bounds the probability of a wrong promotion, and that of a wrong roll-back, each.

    ``promote``: "all" successes have to be shown, or "any" of them. ``minimum`` requests of the
    challenger's own, and ``min_seconds``, come before any promotion. ``shadow_only``: there is no
    split traffic that could decide what mirrored requests cannot, so a metric that looks worse in
    them prevents it. After ``max_seconds`` or ``max_requests`` of the challenger an undecided
    experiment ends with ``at_end``: "rollback" or "continue".
    """

    hypotheses: tuple[Hypothesis, ...]
    alpha: float = 0.05
    promote: str = "all"
    minimum: int = 100
    max_seconds: float = math.inf
    max_requests: float = math.inf
    at_end: str = "rollback"
    min_seconds: float = 0.0
    shadow_only: bool = False

    @property
    def successes(self) -> list[Hypothesis]:
        """What the challenger has to be better at."""
        return [h for h in self.hypotheses if h.role == "success"]

    @classmethod
    def parse(
        cls,
        metrics: Sequence[Mapping[str, Any]] | None,
        *,
        alpha: float = 0.05,
        promote: str = "all",
        minimum: int = 100,
        max_seconds: float = math.inf,
        max_requests: float = math.inf,
        at_end: str = "rollback",
        min_seconds: float = 0.0,
        shadow_only: bool = False,
    ) -> Rules:
        """From plain data, as in a configuration file.

        Metrics without a share of ``alpha`` divide evenly what the others leave. Unless it is
        declared, the metric :data:`BUILT_IN` is added, with the margin of ``error_rate`` if that is
        a guardrail; it gets 2 % of all shares. Raises ExperimentError naming the path, such as
        ``metrics[1].margin``.
        """
        if not 0.0 < alpha < 1.0:
            raise ExperimentError("alpha", f"must lie between 0 and 1, not {alpha!r}")
        chosen = DEFAULT_METRICS if metrics is None else metrics
        if not chosen:
            raise ExperimentError("metrics", "must name at least one metric")
        shares = [m.get("alpha") for m in chosen]
        spent = sum(float(a) for a in shares if isinstance(a, (int, float)))
        open_ = sum(a is None for a in shares)
        if spent > alpha * (1.0 + 1e-9) or (open_ and spent >= alpha):
            others = f", and {open_} metrics have none left" if open_ else ""
            raise ExperimentError(
                "metrics", f"the shares of alpha add up to {spent:g}{others}: the budget is {alpha}"
            )
        left = (alpha - spent) / open_ if open_ else alpha
        hypotheses = tuple(Hypothesis.parse(m, f"metrics[{i}]", left) for i, m in enumerate(chosen))
        seen: dict[str, int] = {}
        for i, h in enumerate(hypotheses):
            if seen.setdefault(h.name, i) != i:
                raise ExperimentError(
                    f"metrics[{i}].metric", f"{h.name} is already metrics[{seen[h.name]}]"
                )
        if all(h.watches for h in hypotheses):
            raise ExperimentError(
                "metrics", "must contain one that can be proven: all of these only detect harm"
            )
        for path, value, allowed in (
            ("promote", promote, ("all", "any")),
            ("at_end", at_end, ("rollback", "continue")),
        ):
            if value not in allowed:
                raise ExperimentError(path, f"must be {' or '.join(allowed)}, not {value!r}")
        if min_seconds > max_seconds:
            raise ExperimentError(
                "minimum_duration",
                f"{min_seconds:g} s is longer than max_duration, {max_seconds:g} s",
            )
        if BUILT_IN not in seen:
            hypotheses = _with_built_in(hypotheses, alpha)
        limits = max_seconds, max_requests, at_end, min_seconds, shadow_only
        return cls(hypotheses, alpha, promote, minimum, *limits)


def _with_built_in(hypotheses: tuple[Hypothesis, ...], alpha: float) -> tuple[Hypothesis, ...]:
    errors = [h for h in hypotheses if h.name == "error_rate" and h.role == "guardrail"]
    data = {"metric": BUILT_IN, "role": "guardrail", "margin": _BUILT_IN_MARGIN}
    own = Hypothesis.parse(data, "metrics", alpha * _BUILT_IN_SHARE)
    if errors:
        own = replace(own, margin=errors[0].margin, base_rate=errors[0].base_rate)
    scaled = (replace(h, alpha=h.alpha * (1.0 - _BUILT_IN_SHARE)) for h in hypotheses)
    return (*scaled, own)
