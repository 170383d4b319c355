"""The state of a model's watch, as figures for machines and for the page."""

from __future__ import annotations

from typing import Any

import numpy as np

from understudy.monitor.health.drift.watch import ModelWatch


def summary_of(watch: ModelWatch) -> dict[str, Any]:
    """As JSON. ``statistic`` and ``spread`` alarm at 1; ``psi`` is that of the last rows; rates of
    rules are recent averages."""
    watch.flush_joint()
    encoder = watch.encoder
    series = len(encoder.series)
    statistic = watch.cusum.evidence().statistic
    psi = psi_of(watch)
    alarmed = watch.drifted()
    shares = dict(zip(watch.categories.indices.tolist(), watch.categories.statistic, strict=True))
    rates = watch.broken.recent
    return {
        "rows": watch.rows,
        "baseline": {
            "rows": watch.baseline.rows,
            "source": watch.baseline.source,
            "created": watch.baseline.created,
        },
        "run_length": watch.options.run_length,
        "assumptions": list(watch.assumptions),
        "series": [
            {
                "name": name,
                "column": encoder.names[encoder.column_of[number]],
                "role": encoder.columns[encoder.column_of[number]].role,
                "statistic": round(float(statistic[number]), 4),
                "spread": round(float(statistic[series + number]), 4),
                "location": round(float(watch.shifts.recent[number]), 4),
                "psi": psi[number],
                "composition": round(float(shares[number]), 4) if number in shares else None,
                "drifted": bool(alarmed[number]),
            }
            for number, name in enumerate(encoder.series)
        ],
        "rules": [
            {
                "rule": str(rule.rule),
                "feature": rule.feature,
                "rate": round(float(rates[number]), 6),
                "null": round(rule.null, 6),
                "broken": bool(watch.broken.alarmed[number]),
            }
            for number, rule in enumerate(watch.rules)
            if rates[number] > 1e-6 or watch.broken.alarmed[number]
        ],
        "unwatched": watch.unwatched,
        "inflation": {
            name: round(float(factor), 3)
            for name, factor in zip(encoder.series, watch.inflation[:series], strict=True)
        },
        "together": _joint(watch),
        "detectors": [detector.summary() for _, detector in watch.corroborators],
        "errors": list(watch.errors),
        "stuck": [encoder.names[int(number)] for number in np.flatnonzero(watch.stuck())],
        "segments": [
            {"feature": feature, "value": value, "rows": int(watch.segments.rows[number])}
            for number, (feature, value) in enumerate(watch.segments.names)
        ],
    }


def _joint(watch: ModelWatch) -> dict[str, Any] | None:
    together = watch.together
    if together is None:
        return None
    kernel = together.kernel
    return {
        "series": list(together.known.series),
        "reconstruction": round(together.statistic, 4),
        "discrepancy": round(float(kernel.statistics.max()), 4) if kernel is not None else None,
        "alarmed": [one.rule for one in together.alarms()],
    }


def psi_of(watch: ModelWatch) -> list[float | None]:
    """Population stability index of the last rows, by series; None before there are a hundred.

    Half a row is added to each group, so that an empty one counts for little.
    """
    now = watch.window.counts().astype(np.float64)
    before = watch.window.baseline
    result: list[float | None] = []
    for number in range(len(now)):
        nonempty = before[number] > 0.0
        total = now[number].sum()
        if total < 100.0 or np.count_nonzero(nonempty) < 2:
            result.append(None)
            continue
        groups = np.count_nonzero(nonempty)
        p = (before[number][nonempty] + 0.5) / (before[number].sum() + 0.5 * groups)
        q = (now[number][nonempty] + 0.5) / (total + 0.5 * groups)
        result.append(round(float(((q - p) * np.log(q / p)).sum()), 4))
    return result
