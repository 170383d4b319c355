"""Arms and models come and go, and the service is restarted: statistics have no cliff."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import httpx

from tests.support.patience import eventually, patient
from tests.support.world import Load, Model, Watch, World

MANY = 30


def challengers(model: Model, prefix: str, count: int = MANY) -> list[dict[str, Any]]:
    return [{"name": f"{prefix}-{number}", "url": model.url} for number in range(count)]


def reload(world: World) -> httpx.Response:
    return httpx.post(world.service.control + "/v1/config/reload", timeout=patient(30))


def primaries(world: World) -> int:
    return world.total("understudy_requests_total", role="primary")


def test_reloads_with_ever_new_names(tmp_path: Path) -> None:
    other = Model()
    with World(tmp_path, other, workers=1) as world:
        watch = Watch(world)
        load = Load(world.service.url, clients=2, pause=0.05)
        for generation in range(12):
            world.service.write(challengers=challengers(other, f"sha-{generation:05}"))
            assert reload(world).json()["ok"] is True
            load.answered(4)
        world.service.write(challengers=[{"name": "last", "url": other.url}])
        assert reload(world).json() == {"ok": True, "generation": 14}
        load.answered(10)
        eventually(lambda: world.total("understudy_requests_total", arm="last") > 0)
        before = world.status()["workers"][0]["pid"]
        world.kill("understudy.monitor.proxy.worker")
        load.answered(10)
        eventually(lambda: world.status()["workers"][0]["pid"] not in (None, before))
        seen = load.stop()
        assert set(seen) <= {"200", "cut"}
        watch.stop()
        world.settled()
        assert seen["200"] - 2 <= primaries(world) <= seen["200"] + 2


def test_thirty_models_and_thirty_arms(tmp_path: Path) -> None:
    other = Model()
    models = [
        {"name": f"m{number}", "paths": [f"/v2/models/m{number}/infer"]} for number in range(MANY)
    ]
    arms = challengers(other, "arm")
    with World(tmp_path, models=models, challengers=arms, workers=1) as world:
        body = {
            "id": "1",
            "inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}],
        }
        with httpx.Client(timeout=patient(20)) as client:
            for number in range(MANY):
                answer = client.post(f"{world.service.url}/v2/models/m{number}/infer", json=body)
                assert answer.status_code == 200
        eventually(
            lambda: world.total("understudy_requests_total", role="mirror") == MANY * MANY,
            seconds=60.0,
        )
        assert world.total("understudy_statistics_overflowed_total") == 0
        assert len(world.status()["arms"]) == MANY + 1
        other.kill()


def test_counters_survive_a_restart_and_a_kill(tmp_path: Path) -> None:
    with World(tmp_path, workers=1) as world:
        load = Load(world.service.url)
        load.answered(50)
        total = load.stop()["200"]
        world.settled()
        assert primaries(world) == total
        duration = world.total("understudy_request_duration_seconds_count", role="primary")
        assert duration == total
        assert world.service.stop() == 0
        world.service.start()
        assert primaries(world) == total
        assert world.status()["arms"][0]["windows"]["start"]["count"] == 0, "of this run"
        load = Load(world.service.url)
        load.answered(50)
        world.service.signal(signal.SIGKILL)
        world.service.wait()
        seen = load.stop()
        world.service.start()

        def added_up() -> bool:
            # The orphans of the killed run finish what they have begun.
            counted = primaries(world)
            return total + seen["200"] <= counted <= total + sum(seen.values())

        eventually(added_up)
        world.settled()
        count = world.total("understudy_request_duration_seconds_count", role="primary")
        assert count == primaries(world)
