"""Metric families of drift, quality and performance against the baseline."""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import TypeGuard

from prometheus_client.core import Metric

from understudy.monitor.health.drift.summary import psi_of
from understudy.monitor.health.findings_loop import FindingsLoop
from understudy.monitor.health.performance.metrics import metric_values
from understudy.monitor.telemetry.families import counter, gauge

_OF_MODEL = ("model", "version")


def _finite(value: float | None) -> TypeGuard[float]:
    return value is not None and math.isfinite(value)


def drift_families(loop: FindingsLoop) -> Iterator[Metric]:
    """Label values are names of the baseline's columns and words of closed lists."""
    scores: list[tuple[list[str], float]] = []
    detected: list[tuple[list[str], float]] = []
    violations: list[tuple[list[str], float]] = []
    rows: list[tuple[list[str], float]] = []
    for (model, version), watch in loop.watches.watches.items():
        watch.flush_joint()
        encoder = watch.encoder
        series = len(encoder.series)
        statistic = watch.cusum.evidence().statistic
        alarmed = watch.drifted()
        columns = dict.fromkeys(encoder.names, 0.0)
        for number, (name, psi) in enumerate(zip(encoder.series, psi_of(watch), strict=True)):
            scores.append(([model, version, name, "location"], float(statistic[number])))
            scores.append(([model, version, name, "spread"], float(statistic[series + number])))
            if psi is not None:
                scores.append(([model, version, name, "psi"], psi))
            if alarmed[number]:
                columns[encoder.names[encoder.column_of[number]]] = 1.0
        shares = watch.categories
        for place, value in zip(shares.indices.tolist(), shares.statistic.tolist(), strict=True):
            scores.append(([model, version, encoder.series[place], "composition"], value))
        if watch.together is not None:
            together = watch.together
            scores.append(([model, version, "", "reconstruction"], together.statistic))
            if together.kernel is not None:
                value = float(together.kernel.statistics.max())
                scores.append(([model, version, "", "discrepancy"], value))
        detected += [([model, version, name], value) for name, value in columns.items()]
        violations += [
            ([model, version, rule.feature, str(rule.rule)], float(count))
            for rule, count in zip(watch.rules, watch.violations.tolist(), strict=True)
        ]
        rows.append(([model, version], float(watch.rows)))
    estimates: list[tuple[list[str], float]] = []
    of_segments: list[tuple[list[str], float]] = []
    gaps: list[tuple[list[str], float]] = []
    for (model, version), performance in loop.watches.performance.items():
        who = [model, version]
        estimate = performance.estimate()
        if estimate is not None:
            bounds = (
                ("estimate", estimate.value),
                ("lower", estimate.low),
                ("upper", estimate.high),
            )
            estimates += [([*who, "estimated_accuracy", bound], v) for bound, v in bounds]
        for metric, figure in metric_values(performance.whole).items():
            ends = (("estimate", figure.value), ("lower", figure.low), ("upper", figure.high))
            estimates += [([*who, metric, bound], v) for bound, v in ends if _finite(v)]
        estimates += [
            ([*who, test.kind.name, "reference"], test.usual)
            for test in performance.metrics or ()
            if test.usual is not None and not test.label
        ]
        if performance.reference is not None:
            estimates.append(([*who, "accuracy", "reference"], performance.reference[0]))
        for feature in performance.declared.features:
            for rate in performance.declared.groups[feature].rates("error_rate"):
                bounds_of = (("estimate", rate.value), ("lower", rate.low), ("upper", rate.high))
                of_segments += [
                    ([*who, feature, rate.name, bound], v)
                    for bound, v in bounds_of
                    if v is not None
                ]
            for gap in performance.declared.gaps(feature):
                ends = (("estimate", gap.value), ("lower", gap.low), ("upper", gap.high))
                gaps += [([*who, feature, gap.metric, bound], v) for bound, v in ends]
    yield gauge(
        "performance_estimate",
        "Performance by labels, and estimated without them, with bounds and the reference. Figures "
        "by labels assume that whether a label arrives does not depend on the outcome.",
        (*_OF_MODEL, "metric", "bound"),
        estimates,
    )
    yield gauge(
        "not_tested",
        "1 for each check that is declared and not tested at present, with the reason.",
        (*_OF_MODEL, "check", "reason"),
        [
            (list(key), 1.0)
            for key in dict.fromkeys(
                (one["model"], one["version"], one["check"], one["reason"])
                for one in loop.watches.untested()
            )
        ],
    )
    yield gauge(
        "segment_error_rate",
        "Share of wrong predictions by the value of a declared feature, with bounds.",
        (*_OF_MODEL, "feature", "segment", "bound"),
        of_segments,
    )
    yield gauge(
        "performance_gap",
        "Largest difference between the segments of a feature in a metric, with bounds.",
        (*_OF_MODEL, "feature", "metric", "bound"),
        gaps,
    )
    yield gauge(
        "drift_score",
        "Distance from the baseline; all scores but psi alert at 1.",
        (*_OF_MODEL, "feature", "method"),
        scores,
    )
    yield gauge(
        "drift_detected",
        "1 while a feature or prediction is found to have drifted.",
        (*_OF_MODEL, "feature"),
        detected,
    )
    yield counter(
        "feature_violations",
        "Rows that break a quality rule.",
        (*_OF_MODEL, "feature", "rule"),
        violations,
    )
    groups = loop.validation.groups if loop.validation is not None else {}
    yield counter(
        "validation_cases",
        "Validation cases sent, by result.",
        ("arm", "kind", "result"),
        [
            ([arm, kind, result], float(group.totals[result]))
            for (arm, kind), group in groups.items()
            for result in ("passed", "failed")
        ],
    )
    yield gauge(
        "validation_pass_ratio",
        "Share of the validation cases that passed in the last round.",
        ("arm", "kind"),
        [
            ([arm, kind], group.ratio)
            for (arm, kind), group in groups.items()
            if group.ratio is not None
        ],
    )
    yield counter("watched_rows", "Rows compared with the baseline.", _OF_MODEL, rows)
