"""The page drill: a model server dies, somebody is paged, it comes back, they are told."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from monitor.config.slo import SloFile
from monitor.slo.compile import compiled
from tests.failures.world import Load, World
from tests.findings.receiver import Receiver, receiver
from tests.parts import need
from tests.slo.drill import messages, now, past, stack, stories
from tests.supervisor.service import eventually

pytestmark = pytest.mark.integration

OBJECTIVES = {
    "version": 1,
    "service": "delays",
    "scrape": {"job": "understudy"},
    "scrape_interval": "1s",
    "interval": "1s",
    "alerting": {
        "windows": [
            {"severity": "page", "budget": "2 %", "long": "1h", "short": "5s"},
            {"severity": "ticket", "budget": "10 %", "long": "1d", "short": "10s"},
        ]
    },
    "slos": [{"name": "availability", "objective": "99.99 %", "availability": {}}],
}
DOWN = "UnderstudyModelServerDown page"
BURN = "UnderstudyErrorBudgetBurn page"
TICKET = "UnderstudyErrorBudgetBurn ticket"
FINDING = "UnderstudyValidation page"


@pytest.fixture
def told() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    need("prometheus")
    tensor = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}
    case = {"name": "one", "request": {"inputs": [tensor]}, "expect": {"p": 0.5}}
    (tmp_path / "cases.jsonl").write_text(json.dumps(case) + "\n")
    cases = {"cases": str(tmp_path / "cases.jsonl"), "every": "300ms"}
    with World(tmp_path, validation=cases, monitoring={"hold": 1.0}) as made:
        yield made


def test_a_dead_model_server_pages_once_and_is_over_once(
    tmp_path: Path, world: World, told: Receiver
) -> None:
    found = compiled(SloFile.model_validate(OBJECTIVES), "test")
    labels = ('instance="one",job="understudy",model="m",version="1",arm="champion",'
              'role="primary",protocol="open-inference"')  # fmt: skip
    target = world.service.control.removeprefix("http://")
    folder = tmp_path / "servers"
    folder.mkdir()
    load = Load(world.service.url, clients=3, pause=0.01)
    with stack(folder, told, target, found, past(labels, now() - 30)) as running:

        def all_is_well() -> bool:
            # The past counts, the present is scraped, and the budget is whole but for a little.
            ratio = running.value("slo:sli_error:ratio_rate1d")
            live = running.value('sum(rate(understudy_requests_total{outcome="ok"}[5s]))')
            passed = running.value("understudy_validation_pass_ratio")
            return ratio is not None and 0.0 < ratio < 1e-4 and (live or 0) > 10 and passed == 1.0

        eventually(all_is_well)
        assert running.value("slo:sli_events:rate1h * 3600") > 100_000  # type: ignore[operator]
        assert messages(told) == []
        assert running.alerts() == {}

        world.champion.kill()
        killed = time.monotonic()
        eventually(lambda: DOWN in stories(messages(told)))
        down = time.monotonic() - killed
        eventually(lambda: BURN in stories(messages(told)))
        burn = time.monotonic() - killed
        print(f"\npaged after {down:.1f} s (model server), {burn:.1f} s (budget)")

        # What follows from it is there, and hidden: the ticket by the page, the finding by the outage.
        def hidden() -> dict[str, Any]:
            alerts = running.alerts()
            assert {DOWN, BURN, TICKET, FINDING} <= alerts.keys()
            by = {key: one["status"]["inhibitedBy"] for key, one in alerts.items()}
            assert not by[DOWN]
            assert not by[BURN]
            assert alerts[BURN]["fingerprint"] in by[TICKET]
            assert alerts[DOWN]["fingerprint"] in by[FINDING]
            return alerts

        eventually(lambda: _holds(hidden))
        alerts = hidden()
        assert alerts[DOWN]["annotations"]["runbook_url"].endswith("UnderstudyModelServerDown.md")
        assert alerts[DOWN]["labels"]["arm"] == "champion"
        # Longer than either would have waited for its group.
        eventually(lambda: time.monotonic() - killed > 17)
        told_so_far = messages(told)
        assert stories(told_so_far) == {DOWN: ["firing"], BURN: ["firing"]}
        assert {one.receiver for one in told_so_far} == {"page"}

        world.champion.start()
        eventually(lambda: stories(messages(told)).get(DOWN) == ["firing", "resolved"])
        eventually(lambda: stories(messages(told)).get(BURN) == ["firing", "resolved"])
        eventually(lambda: not running.alerts())
    seen = load.stop()
    assert seen["502"] > 100
    # The ticket has a longer short window: it may be told once the page no longer hides it.
    once = ["firing", "resolved"]
    found_once = stories(messages(told))
    assert found_once.pop(TICKET, once) in (once, ["firing"])
    assert found_once == {DOWN: once, BURN: once}


def _holds(check: Any) -> bool:
    try:
        check()
    except AssertionError:
        return False
    return True
