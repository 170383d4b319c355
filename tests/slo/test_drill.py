"""The page drill: a model server dies, somebody is paged, it comes back, they are told."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.alert_drill import BURN, DOWN, FINDING, TICKET, messages, served, stack, stories
from tests.support.patience import eventually
from tests.support.webhook_receiver import Receiver, receiver
from tests.support.world import Load, World
from tools.parts.debian import need

pytestmark = pytest.mark.integration


@pytest.fixture
def told() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


@pytest.fixture
def world(tmp_path: Path) -> Iterator[World]:
    need("prometheus")
    with served(tmp_path) as made:
        yield made


def test_a_dead_model_server_pages_once_and_resolves_once(
    tmp_path: Path, world: World, told: Receiver
) -> None:
    load = Load(world.service.url, clients=3, pause=0.01)
    with stack(tmp_path / "servers", told, world) as running:
        eventually(running.is_well)
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
    # The ticket has a longer short window, and the finding ends with the next validation: either
    # may be told once, when the page no longer hides it.
    once = ["firing", "resolved"]
    found_once = stories(messages(told))
    for late in (TICKET, FINDING):
        assert found_once.pop(late, once) in (once, ["firing"])
    assert found_once == {DOWN: once, BURN: once}


def _holds(check: Any) -> bool:
    try:
        check()
    except AssertionError:
        return False
    return True
