"""Every alert of the rule set, from its fault over Prometheus and Alertmanager to a webhook."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.support.alert_drill import ALERTING, DAY, DOWN, Stack, job, key, messages, stories
from tests.support.all_alerts import ALL
from tests.support.every_alert import SLOS, everything, serving, shortened
from tests.support.patience import eventually
from tests.support.ports import free_port
from tests.support.webhook_receiver import Receiver, receiver
from tools.parts.debian import need
from understudy.monitor.config.slo import SloFile
from understudy.monitor.slo.compile import compiled
from understudy.monitor.slo.kafka_alerts import kafka_alerts
from understudy.monitor.slo.rules import ALERT
from understudy.monitor.slo.scope import Scope

pytestmark = pytest.mark.integration

NOT_SEEN = "UnderstudyNotSeen page"
_WITHIN = {"labels": {"freshness": {"within": "1m"}}}
OBJECTIVES: dict[str, Any] = {
    **ALL,
    "scrape_interval": "1s",
    "interval": "1s",
    "alerting": ALERTING,
    # A page would hide the ticket of the same objective.
    "slos": [
        {**one, "model": "m", **_WITHIN.get(one["name"], {}), "objective": "99.99 %", "severities": [severity],
         "name": f"{one['name']}-{severity}"}
        for one in ALL["slos"]
        for severity in ("page", "ticket")
    ],
}  # fmt: skip
for _one in OBJECTIVES["slos"]:
    if "latency" in _one:
        _one["latency"] = {k: v for k, v in _one["latency"].items() if k != "quantile"}


def named(labels: dict[str, str]) -> str:
    """Objectives have one name for all their alerts."""
    return " ".join((key(labels), *([labels["sloth_slo"]] if "sloth_slo" in labels else [])))


@pytest.fixture
def told() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def test_times_are_shortened_by_one_factor() -> None:
    (rule,) = [one for one in kafka_alerts(Scope()) if one.name == "UnderstudyEvaluatorBehind"]
    (found,), factor = shortened({**rule.rules("s", "")[0], "for": "1h"})
    assert factor == 120.0
    assert "[5000ms]" in found["expr"]
    assert found["for"] == "30000ms"


def test_every_alert_notifies_once_and_resolves_once(tmp_path: Path, told: Receiver) -> None:
    need("prometheus")
    found = compiled(SloFile.model_validate(OBJECTIVES), "drill")
    rules, exporter = everything(found)
    exporter.recorded |= {
        f'up{{job="understudy",instance="{one}"}}': 1.0 for one in ("one", "lost")
    }
    alerts = {
        *(f"{one.name} {one.severity}" for one in found.alerts),
        *(f"{ALERT} {slo.burns[0].window.severity} {slo.name}" for slo in found.slos),
    }
    assert len(alerts) == len(found.alerts) + len(found.slos)

    def heard() -> dict[str, list[str]]:
        return stories(messages(told, named))

    lost = free_port()
    with ExitStack() as around:
        port = around.enter_context(serving(exporter))
        jobs = [job(one=f"127.0.0.1:{port}", lost=f"127.0.0.1:{lost}")]
        folder = tmp_path / "servers"
        folder.mkdir()
        servers = Stack(folder, told, rules, jobs, findings_wait="1s")
        servers.backfill(exporter.past(time.time() - 30, DAY, 60))
        around.callback(servers.stop)
        with serving(None, lost):
            servers.start()
            # As far back as the longest of the shortened times looks.
            calm = 'min(count_over_time(up{job="understudy"}[30s])) >= bool 25'
            eventually(lambda: servers.value(calm), seconds=60)
            assert (
                servers.value('slo:sli_events:rate1h{sloth_slo="availability-page"} * 3600') > 1e4
            )  # type: ignore[operator]
            assert servers.value("count(ALERTS)") is None
            assert heard() == {}
            # An outage inhibits its consequences, so it has a separate time.
            exporter.fault(SLOS, *(alerts - {DOWN}))
        _until(lambda: alerts - {DOWN} - heard().keys())
        exporter.fault()
        with serving(None, lost):
            _until(lambda: _open(heard()))
            exporter.fault(DOWN)
            _until(lambda: {DOWN} - heard().keys())
            exporter.fault()
            _until(lambda: _open(heard()))
            _until(servers.alerts)
    assert heard() == {alert: ["firing", "resolved"] for alert in alerts}
    receivers = {one.alert: one.receiver for one in messages(told, named)}
    assert all(receiver in alert.split() for alert, receiver in receivers.items())


def _open(heard: dict[str, list[str]]) -> set[str]:
    return {alert for alert, story in heard.items() if story[-1] == "firing"}


def _until(left: Callable[[], Any]) -> None:
    """Nothing is left; or a failure that says what is."""
    try:
        eventually(lambda: not left(), seconds=60)
    except AssertionError:
        raise AssertionError(left()) from None
