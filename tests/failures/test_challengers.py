"""Whatever a challenger does, no client notices, and every copy is accounted for."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest

from tests.support.patience import eventually
from tests.support.world import Load, Model, World


@pytest.mark.parametrize(
    ("mode", "outcome"),
    [
        ("slow", "ok"),
        ("hang", "timeout"),
        ("garbage", "garbage"),
        ("big", "too_large"),
        ("drop", "upstream_reset"),
    ],
)
def test_bad_challengers(tmp_path: Path, mode: str, outcome: str) -> None:
    mirror = {"timeout": "1s"} if mode == "hang" else {}
    with World(tmp_path, Model(mode), mirror=mirror) as world:
        load = Load(world.service.url)
        load.answered(300)
        eventually(lambda: world.total("understudy_mirror_total", outcome=outcome) > 0)
        if outcome != "ok":
            # After its first failures it is spared.
            eventually(lambda: world.total("understudy_mirror_total", outcome="breaker_open") > 0)
        seen = load.stop()
        assert set(seen) == {"200"}
        found = world.settled()
        mirror = found["arms"][1]["mirror"]
        assert sum(mirror["outcomes"].values()) == seen["200"]
        assert mirror["outcomes"][outcome] > 0


def test_a_challenger_that_dies_and_one_that_stops_come_back(tmp_path: Path) -> None:
    one, two = Model(), Model()
    with World(tmp_path, one, two, mirror={"timeout": "1s"}) as world:
        load = Load(world.service.url)
        load.answered(50)
        one.kill()
        two.signal(signal.SIGSTOP)
        for arm in ("other0", "other1"):
            eventually(
                lambda arm=arm: world.total(
                    "understudy_mirror_total", arm=arm, outcome="breaker_open"
                )
            )
        one.start()
        two.signal(signal.SIGCONT)

        def closed() -> bool:
            arms = world.status()["arms"][1:]
            return all(set(arm["mirror"]["breaker"]) == {"closed"} for arm in arms)

        eventually(closed)
        before = world.total("understudy_mirror_total", outcome="ok")
        eventually(lambda: world.total("understudy_mirror_total", outcome="ok") > before + 20)
        seen = load.stop()
        assert set(seen) == {"200"}
        found = world.settled()
        for arm in found["arms"][1:]:
            assert sum(arm["mirror"]["outcomes"].values()) == seen["200"]
        assert found["arms"][1]["mirror"]["outcomes"]["upstream_connect"] > 0
        assert found["arms"][2]["mirror"]["outcomes"]["timeout"] > 0
