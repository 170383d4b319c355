"""A promoted challenger that dies: every screen says who serves now."""

from __future__ import annotations

from pathlib import Path

import httpx
from click.testing import CliRunner

from tests.support.patience import eventually
from tests.support.world import Load, Model, World
from understudy.monitor.cli.main import main

SHADOW = {"name": "next", "challengers": ["other0"]}


def test_every_screen_says_that_the_promoted_arm_is_dead(tmp_path: Path) -> None:
    other = Model("second")
    with World(tmp_path, other, experiments=[SHADOW]) as world:
        url = ("--url", world.service.control)
        load = Load(world.service.url)
        load.answered(20)
        arms = world.status()["arms"]
        assert [arm["role"] for arm in arms] == ["serving", "mirrored"]
        order = ("experiment", "promote", "next", "--force", "--why", "the champion has to go")
        assert CliRunner().invoke(main, [*order, *url]).exit_code == 0
        served = eventually(
            lambda: [arm for arm in world.status()["arms"] if arm["shares"][0]["planned"] == 1.0]
        )
        assert [(arm["arm"], arm["role"]) for arm in served] == [("other0", "serving")]
        load.answered(50)
        other.kill()
        eventually(lambda: world.status()["arms"][1]["diverted_1m"] > 50)

        # While a probe of a breaker is under way, the state is another one for a moment.
        def said_everywhere() -> bool:
            champion, candidate = world.status()["arms"]
            assert (champion["role"], champion["state"]) == ("standby", "ok")
            assert candidate["state"] == "down"
            assert champion["description"].startswith("stands in for ")
            ready = httpx.get(world.service.control + "/readyz")
            assert ready.status_code == 200, "the champion serves its clients"
            (warning,) = ready.json()["warnings"]
            assert "'other0' should serve 100 % of 'm' (experiment 'next', promoted)" in warning
            shown = " ".join(CliRunner().invoke(main, ["top", "--once", *url]).output.split())
            assert "Understudy degraded" in shown
            assert "other0: should serve 100 %" in shown
            assert "diverted in the last minute" in shown
            metrics = world.metrics()
            assert metrics['understudy_arm_state{arm="other0",state="down"}'] == 1.0
            named = {key for key in metrics if "arm_share" in key and "other0" in key}
            assert any('of="planned"' in key and metrics[key] == 1.0 for key in named)
            return True

        eventually(said_everywhere)
        assert world.total("understudy_experiment_diverted_total", challenger="other0") > 50

        world.champion.kill()

        def nothing_serves() -> bool:
            ready = httpx.get(world.service.control + "/readyz")
            text = "nothing serves 'm': 'other0' and 'champion' are down"
            return ready.status_code == 503 and text in ready.json()["problems"]

        eventually(nothing_serves)
        load.stop()
