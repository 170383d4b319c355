"""Recorded objectives under Sloth's names, at the speed of a test."""

from __future__ import annotations

from typing import Any

WINDOWS = ("5m", "30m", "1h", "2h", "6h", "1d", "3d", "30d")


def rules(service: str, slo: str, objective: float) -> dict[str, Any]:
    """What `understudy slo generate` makes of the availability of a model, as one group."""
    labels = {"sloth_service": service, "sloth_slo": slo, "sloth_id": f"{service}-{slo}"}
    found: list[dict[str, Any]] = [
        {"record": "slo:objective:ratio", "expr": f"vector({objective})", "labels": labels},
        {
            "record": "slo:error_budget:ratio",
            "expr": f"vector({1 - objective})",
            "labels": labels,
        },
    ]
    for window in WINDOWS:
        bad, total = (
            f'sum(rate(understudy_requests_total{{role="primary"{more}}}[{window}]))'
            for more in (', outcome!="ok"', "")
        )
        found.append(
            {
                "record": f"slo:sli_error:ratio_rate{window}",
                "expr": f"{bad} / {total}",
                "labels": {**labels, "sloth_window": window},
            }
        )
    for name, window in (("current", "5m"), ("period", "30d")):
        found.append(
            {
                "record": f"slo:{name}_burn_rate:ratio",
                "expr": f"slo:sli_error:ratio_rate{window} / on (sloth_id) group_left () "
                "slo:error_budget:ratio",
                "labels": labels,
            }
        )
    found += [
        {
            "record": "slo:period_error_budget_remaining:ratio",
            "expr": "1 - slo:period_burn_rate:ratio",
            "labels": labels,
        },
        {
            "alert": "ErrorBudgetBurn",
            "expr": "slo:current_burn_rate:ratio > 1",
            "labels": {"sloth_severity": "page"},
        },
    ]
    return {"groups": [{"name": f"{service}-{slo}", "rules": found}]}
