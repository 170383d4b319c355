"""Explains the rules of an objective: when its alerts fire, and how much budget is spent then."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from understudy.common.units import duration, percent, spoken, times
from understudy.monitor.slo.burn import SEVERITIES, Firing, false_pages, first
from understudy.monitor.slo.model import Events, Slices, Slo
from understudy.monitor.slo.trials import FAULTS


def firing(slo: Slo, severity: Any, bad: float, rate: float | None) -> Firing | None:
    """The first alert of a severity to fire at the share ``bad`` of bad events."""
    burns = [burn for burn in slo.burns if burn.window.severity == severity]
    return first(burns, severity, bad, slo.period, rate=rate, least=slo.least_bad)


def explained(
    slo: Slo, faults: Sequence[float] = FAULTS, rate: float | None = None
) -> dict[str, Any]:
    """The explanation as plain data; times in seconds, shares in [0, 1], None for never.

    ``rate`` is in events per second; None assumes enough events.
    """
    rate = slo.rate if rate is None else rate
    if isinstance(slo.sli, Slices):
        rate = None
    table: list[dict[str, Any]] = []
    for bad in faults:
        row: dict[str, Any] = {"bad": bad}
        for severity in SEVERITIES:
            result = firing(slo, severity, bad, rate)
            row[severity] = (
                None
                if result is None
                else {
                    "after_seconds": result.seconds,
                    "budget_spent": result.spent,
                    "window": duration(result.burn.window.long),
                    "waits_for_events": result.guarded,
                    "ends_after_seconds": result.burn.to_end(bad),
                }
            )
        lasts = slo.budget * slo.period / bad
        row["budget_gone_after_seconds"] = lasts if lasts <= slo.period else None
        table.append(row)
    return {
        "service": slo.service,
        "name": slo.name,
        "kind": slo.kind,
        "objective": slo.objective,
        "budget": slo.budget,
        "period_seconds": slo.period,
        "unit": slo.sli.unit,
        "good": slo.sli.good,
        "lag_seconds": slo.sli.lag if isinstance(slo.sli, Slices) else 0.0,
        "read": slo.sli.exactness,
        "scope": slo.scope.describe() if slo.kind != "openslo" else "",
        "rate": rate,
        "least_bad": slo.least_bad,
        "alerts": [
            {
                "severity": burn.window.severity,
                "factor": burn.factor,
                "threshold": burn.threshold,
                "long_seconds": burn.window.long,
                "short_seconds": burn.window.short,
                "budget_share": burn.window.share,
                "reason": burn.reason,
                "chance_of_false_alarm": false_pages(burn.factor, slo.least_bad),
            }
            for burn in slo.burns
        ],
        "faults": table,
    }


def text(slo: Slo, faults: Sequence[float] = FAULTS, rate: float | None = None) -> str:
    """The explanation as text."""
    result = explained(slo, faults, rate)
    unit = slo.sli.unit
    counted = unit if isinstance(slo.sli, Events) else "the time"
    lines = [
        f"{slo.service}/{slo.name}: {percent(slo.objective)} of {counted} good over "
        f"{spoken(slo.period)}",
        *([f"  {slo.description}"] if slo.description else []),
        *([f"  of      {result['scope']}"] if result["scope"] else []),
        *([f"  good    {slo.sli.good}"] if slo.sli.good else []),
        f"  budget  {_budget(slo, result['rate'])}",
        f"  read    {slo.sli.exactness}",
        f"  keep    {duration(slo.period)} of data in Prometheus (--storage.tsdb.retention.time); "
        "with less, the budget is that of what is kept",
    ]
    for burn in slo.burns:
        lines.append(
            f"  {burn.window.severity:<7} when more than {percent(burn.threshold)} of the last "
            f"{duration(burn.window.long)} and of the last {duration(burn.window.short)} are bad "
            f"({times(burn.factor)})"
        )
        if burn.reason:
            lines.append(f"          {burn.reason}")
        if burn.threshold > 0.5:
            lines.append(
                "          notice: fires only when most are bad; a tighter objective detects more"
            )
    if slo.burns and slo.least_bad:
        few = f"few {unit}" if isinstance(slo.sli, Events) else "a single look"
        lines.append(
            f"          and at least {slo.least_bad:g} bad {unit} in the long window, so that "
            f"{few} cannot page"
        )
    if lag := result["lag_seconds"]:
        lines.append(
            f"  late    the fault itself becomes visible after {spoken(lag)}; add that to the "
            "times below"
        )
    return "\n".join([*lines, *_table(result)])


def _budget(slo: Slo, rate: float | None) -> str:
    if isinstance(slo.sli, Slices):
        return f"{percent(slo.budget)} of the time: {spoken(slo.budget * slo.period)}"
    amount = f"{percent(slo.budget)} of {slo.sli.unit}"
    if rate is not None:
        whole = rate * slo.period
        amount += f": {slo.budget * whole:,.0f} of {whole:,.0f} at {rate:g}/s"
    return f"{amount}; all bad for {spoken(slo.budget * slo.period)} spends it"


def _table(found: dict[str, Any]) -> list[str]:
    rows = [("bad", "page after", "budget spent", "ticket after", "budget spent", "budget gone")]
    for row in found["faults"]:
        cells = [percent(row["bad"])]
        for severity in SEVERITIES:
            one = row[severity]
            if one is None:
                cells += ["never", ""]
                continue
            waits = " *" if one["waits_for_events"] else ""
            cells += [spoken(one["after_seconds"]) + waits, percent(one["budget_spent"])]
        gone = row["budget_gone_after_seconds"]
        rows.append((*cells, "never" if gone is None else spoken(gone)))  # type: ignore[arg-type]
    widths = [max(len(row[n]) for row in rows) for n in range(len(rows[0]))]
    lines = [
        "  "
        + "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    if any("*" in line for line in lines):
        lines.append("  * waits for the minimum number of bad events")
    return lines
