"""Recording and alerting rules of objectives, with the names that Sloth uses.

So dashboards for Sloth work. Two things differ on purpose: the ratio over the period is weighted by
requests (sums of bad and of all events instead of a mean of five-minute ratios). And an objective
without bad events has the ratio 0, one without events has none; NaN would make the sum of a month
NaN.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from understudy.common.units import DAY, duration, number, percent, spoken
from understudy.monitor.slo.alerts import SHARE
from understudy.monitor.slo.burn import SEVERITIES, Severity
from understudy.monitor.slo.model import Events, Slo, over

Rule = dict[str, Any]
Group = dict[str, Any]

ALERT = "UnderstudyErrorBudgetBurn"
BASE = 300.0
"""Length in seconds of the windows that are summed over the period."""


def group(slo: Slo, runbook: str, interval: float | None = None) -> Group:
    """The rules of one objective; ``interval`` is in seconds, by default Prometheus' own.

    They form one group, since rules of a group are evaluated in order: an alert uses the values
    recorded in the same evaluation instead of the previous one.
    """
    timed = {} if interval is None else {"interval": duration(interval)}
    rules = [*_indicator(slo), *_meta(slo), *alerts(slo, runbook)]
    return {"name": f"understudy-slo-{slo.id}", **timed, "rules": rules}


def _record(name: str, expression: str, labels: Mapping[str, str]) -> Rule:
    return {"record": name, "expr": expression, "labels": dict(sorted(labels.items()))}


def _indicator(slo: Slo) -> list[Rule]:
    lengths = sorted({*slo.windows(), BASE})
    if isinstance(slo.sli, Events):
        results = [rule for length in lengths for rule in _events(slo, slo.sli, length)]
    else:
        identity = slo.identity()
        results = [_record("slo:sli_error:slice", slo.sli.bad, identity)]
        for length in lengths:
            window = duration(length)
            mean = f"avg_over_time(slo:sli_error:slice{{{slo.selector}}}[{window}])"
            labels = {**identity, "sloth_window": window}
            results.append(_record(f"slo:sli_error:ratio_rate{window}", mean, labels))
    return [*results, _period(slo)]


def _events(slo: Slo, sli: Events, length: float) -> list[Rule]:
    window = duration(length)
    labels = {**slo.identity(), "sloth_window": window}
    bad, total = over(sli.bad, length), over(sli.total, length)
    events, errors = f"slo:sli_events:rate{window}", f"slo:sli_errors:rate{window}"
    # The series of errors may not exist before the first error; the rate is 0 then.
    none = f"\nor\n0 * sum{slo.scope.by()}({events}{{{slo.selector}}})" if sli.sparse else ""
    return [
        _record(events, total, labels),
        _record(errors, f"({bad}){none}" if none else bad, labels),
        _record(
            f"slo:sli_error:ratio_rate{window}",
            f"{errors}{{{slo.selector}}}\n/\n({events}{{{slo.selector}}} > 0)",
            labels,
        ),
    ]


def _period(slo: Slo) -> Rule:
    window, base = slo.period_text(), duration(BASE)
    labels = {**slo.identity(), "sloth_window": window}
    if isinstance(slo.sli, Events):
        bad, total = (
            f"sum_over_time(slo:sli_{what}:rate{base}{{{slo.selector}}}[{window}])"
            for what in ("errors", "events")
        )
        expression = f"{bad}\n/\n({total} > 0)"
    else:
        expression = f"avg_over_time(slo:sli_error:slice{{{slo.selector}}}[{window}])"
    return _record(f"slo:sli_error:ratio_rate{window}", expression, labels)


def _meta(slo: Slo) -> list[Rule]:
    labels, selector = slo.identity(), slo.selector
    on = "/ on(sloth_id, sloth_slo, sloth_service) group_left"
    budget = f"slo:error_budget:ratio{{{selector}}}"

    def burned(name: str, window: str) -> Rule:
        ratio = f"slo:sli_error:ratio_rate{window}{{{selector}}}"
        return _record(name, f"{ratio}\n{on}\n{budget}", labels)

    remaining = "slo:period_error_budget_remaining:ratio"
    return [
        _record("slo:objective:ratio", f"vector({number(slo.objective)})", labels),
        _record("slo:error_budget:ratio", f"vector({number(slo.budget)})", labels),
        _record("slo:time_period:days", f"vector({number(slo.period / DAY)})", labels),
        burned("slo:current_burn_rate:ratio", duration(BASE)),
        burned("slo:period_burn_rate:ratio", slo.period_text()),
        _record(remaining, f"1 - slo:period_burn_rate:ratio{{{selector}}}", labels),
        _record("understudy_slo_error_budget_remaining", f"{remaining}{{{selector}}}", labels),
        _record(
            "sloth_slo_info",
            "vector(1)",
            {**labels, "sloth_mode": "understudy", "sloth_objective": number(slo.objective * 100)},
        ),
    ]


def condition(slo: Slo, severity: Severity) -> str | None:
    """The expression of an alert; None when no windows have that severity."""
    pairs = [_pair(slo, n) for n, burn in enumerate(slo.burns) if burn.window.severity == severity]
    return "\nor\n".join(pairs) or None


def _pair(slo: Slo, number_: int) -> str:
    burn = slo.burns[number_]
    limit = f"({number(burn.factor)} * {number(slo.budget)})"
    short, long = duration(burn.window.short), duration(burn.window.long)
    tests = [
        f"slo:sli_error:ratio_rate{window}{{{slo.selector}}} > {limit}" for window in (short, long)
    ]
    if slo.least_bad > 0:
        least = number(slo.least_bad)
        if isinstance(slo.sli, Events):
            count = f"slo:sli_errors:rate{long}{{{slo.selector}}} * {number(burn.window.long)}"
        else:
            count = f"sum_over_time(slo:sli_error:slice{{{slo.selector}}}[{long}])"
        tests.append(f"{count} >= {least}")
    inside = "\n    and\n".join(f"    max({test}) without (sloth_window)" for test in tests)
    return f"(\n{inside}\n)"


_ADVICE = {
    "page": "Users are affected now; at this rate the budget is gone soon.",
    "ticket": "Not urgent; at this rate the budget does not last the period.",
}


def alerts(slo: Slo, runbook: str) -> list[Rule]:
    """The page and the ticket of an objective, for the severities that it has windows of."""
    rules = []
    for severity in SEVERITIES:
        expression = condition(slo, severity)
        if expression is None:
            continue
        burns = [burn for burn in slo.burns if burn.window.severity == severity]
        means = " or ".join(
            f"more than {percent(burn.threshold)} in the last {duration(burn.window.long)} and in "
            f"the last {duration(burn.window.short)}"
            for burn in burns
        )
        rules.append(
            {
                "alert": ALERT,
                "expr": expression,
                "labels": {
                    **slo.labels,
                    "service": slo.service,
                    "severity": severity,
                    "sloth_severity": severity,
                    "understudy_kind": "slo",
                    "understudy_sli": slo.kind,
                },
                "annotations": {
                    "title": f"({severity}) {slo.service}: {slo.name} burns its error budget",
                    "summary": f"{slo.service}: {slo.name} burns its error budget too fast",
                    "description": (
                        f"{SHARE} of {slo.sli.unit} are bad; "
                        f"{percent(slo.objective)} must be good over {spoken(slo.period)}. "
                        f"Fires when bad are {means}. {_ADVICE[severity]}"
                    ),
                    "runbook_url": runbook,
                },
            }
        )
    return rules


def document(found: Iterable[Group]) -> dict[str, Any]:
    """The content of a rule file of Prometheus."""
    return {"groups": list(found)}


def manifest(
    name: str, found: Sequence[Group], labels: Mapping[str, str], namespace: str = ""
) -> dict[str, Any]:
    """The same as a ``PrometheusRule`` of the Prometheus operator."""
    metadata: dict[str, Any] = {"name": name}
    if namespace:
        metadata["namespace"] = namespace
    if labels:
        metadata["labels"] = dict(labels)
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": metadata,
        "spec": {"groups": list(found)},
    }
