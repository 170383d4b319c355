"""The same model in two namespaces is two models."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.support.promtool import passes, write
from understudy.monitor.slo.outage_alerts import outage_alerts

REQUESTS = "understudy_requests_total"


def test_alerts_are_separate_for_each_namespace(tmp_path: Path) -> None:
    """The many requests of the one that is well do not hide the few of the other."""
    down = outage_alerts({}, 15.0)[0]
    groups = [{"name": "outage", "rules": [down.rule("understudy", "page")]}]

    def series(namespace: str, outcome: str, grows: int) -> dict[str, Any]:
        labels = (
            f'namespace="{namespace}",model="m",arm="champion",role="primary",outcome="{outcome}"'
        )
        return {"series": f"{REQUESTS}{{{labels}}}", "values": f"0+{grows}x40"}

    alert = {
        "exp_labels": {
            **{"namespace": "prod", "model": "m", "arm": "champion"},
            **{"severity": "page", "service": "understudy", "understudy_kind": "outage"},
        }
    }
    trial = {
        "interval": "15s",
        "input_series": [series("staging", "ok", 1000), series("prod", "upstream_connect", 10)],
        "alert_rule_test": [
            {"eval_time": "5m", "alertname": down.name, "exp_alerts": [alert | _words(down)]}
        ],
    }
    write(
        tmp_path,
        {
            "rules.yml": {"groups": groups},
            "test.yml": {"rule_files": ["rules.yml"], "tests": [trial]},
        },
    )
    passes(tmp_path, "test.yml")


def _words(down: Any) -> dict[str, Any]:
    return {
        "exp_annotations": {
            "summary": "champion is down for m",
            "description": down.description.replace("{{ $value | humanizePercentage }}", "100%"),
            "runbook_url": "page",
        }
    }
