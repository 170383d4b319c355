"""The wall clock jumps, to and fro: no client notices, no request is lost or judged by its date."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx

from tests.support.patience import eventually
from tests.support.world import Load, Model, World, total
from tools.parts.debian import need

EXPERIMENT: dict[str, Any] = {
    "name": "e",
    "challengers": ["other0"],
    "mode": "canary",
    "metrics": [{"metric": "error_rate", "margin": "1 pp"}],
    "stages": [{"weight": 0.0, "requests": 50}, {"weight": 0.3, "requests": 10_000_000}],
}


def test_the_clock_jumps_back_and_forth(tmp_path: Path) -> None:
    clock = tmp_path / "clock"
    clock.write_text("+0\n")
    faked = {
        "LD_PRELOAD": str(need("libfaketime.so.1")),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        # A step of the real clock does not move the monotonic one either.
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        "DONT_FAKE_MONOTONIC": "1",
    }
    log = {"records": {"log": {"path": "records"}}}
    with World(
        tmp_path, Model(), environment=faked, experiments=[EXPERIMENT], monitoring={}, **log
    ) as world:
        load = Load(world.service.url)

        def experiment() -> dict[str, Any]:
            found = httpx.get(world.service.control + "/v1/experiments/e").json()
            (challenger,) = found["challengers"]
            return dict(challenger)

        eventually(lambda: experiment()["weight"] == 0.3, "the first stage has passed")
        for shift in ("-27y", "+73y", "+0"):
            year = world.status()["time"]
            clock.write_text(shift + "\n")
            eventually(lambda: abs(world.status()["time"] - year) > 3000, "the clock jumps")  # noqa: B023
            load.answered(300)
            load.all_answered()
            assert httpx.get(world.service.control + "/readyz").status_code == 200
        outcomes = load.stop()
        assert set(outcomes) == {"200"}
        assert world.settled()["records"]["dropped"] == {}
        assert (
            total(world.metrics(), "understudy_requests_total", role="primary") == outcomes["200"]
        )
        assert (experiment()["phase"], experiment()["weight"]) == ("running", 0.3)
        findings = httpx.get(world.service.control + "/v1/findings?state=all").json()["findings"]
        assert findings == []
