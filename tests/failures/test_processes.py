"""Our own processes are killed under load: no wrong answer, exact accounts, counters that only grow."""

from __future__ import annotations

import json
import signal
from pathlib import Path

import httpx
import pytest

from tests.support.patience import eventually, patient
from tests.support.world import PATH, Load, Model, Watch, World
from understudy.monitor.pipeline.state import FILE_NAME


def test_a_worker_is_killed(tmp_path: Path) -> None:
    with World(tmp_path, Model()) as world:
        watch = Watch(world)
        load = Load(world.service.url, clients=8)
        for _ in range(2):
            load.answered(200)
            world.kill("understudy.monitor.proxy.worker")
            load.answered(200)
        seen = load.stop()
        # A client of the killed worker loses its connection once, and finds the next one open.
        assert set(seen) <= {"200", "cut"}
        assert seen["cut"] <= 2 * 8
        eventually(lambda: sum(one["restarts"] for one in world.status()["workers"]) == 2)
        world.settled()
        watch.stop()
        counted = world.total("understudy_requests_total", arm="champion", outcome="ok")
        # An answer can be out before it is counted, and a kill can fall in between.
        assert seen["200"] - 16 <= counted <= seen["200"] + 16


def test_the_evaluation_plane_is_killed(tmp_path: Path) -> None:
    with World(tmp_path, Model()) as world:
        load = Load(world.service.url)
        load.answered(200)
        for restarts in (1, 2):
            world.kill("understudy.monitor.service")
            load.answered(200)
            eventually(lambda n=restarts: world.total("understudy_evaluation_restarts_total") == n)
        seen = load.stop()
        assert set(seen) == {"200"}, "no client notices"
        found = world.settled()
        assert world.total("understudy_requests_total", arm="champion") == seen["200"]
        assert found["records"]["eligible"] == 2 * seen["200"]


def test_a_full_stop_loses_nothing(tmp_path: Path) -> None:
    with World(tmp_path, Model()) as world:
        load = Load(world.service.url)
        load.answered(300)
        world.service.signal(signal.SIGTERM)
        assert world.service.wait() == 0, world.service.log
        seen = load.stop()
        assert set(seen) <= {"200", "refused", "cut"}
        state = json.loads((world.service.state / FILE_NAME).read_text())
        received = sum(slot["received"] for slot in state["slots"])
        # Each request has a record, and each copy has one.
        assert seen["200"] <= received
        assert received <= 2 * (seen["200"] + seen["cut"])


@pytest.mark.parametrize("way", ["signal", "call"])
def test_configurations_change_under_load(tmp_path: Path, way: str) -> None:
    old, new = Model(), Model()
    with World(tmp_path, old, new) as world:
        world.service.write(challengers=[{"name": "only", "url": old.url}])

        def reload() -> httpx.Response | None:
            if way == "call":
                return httpx.post(world.service.control + "/v1/config/reload")
            world.service.signal(signal.SIGHUP)
            return None

        load = Load(world.service.url)
        load.answered(50)
        reload()
        eventually(lambda: world.status()["config"]["generation"] == 2)
        eventually(lambda: world.total("understudy_mirror_total", arm="only", outcome="ok") > 20)
        world.service.write(challengers=[{"name": "only", "url": "ftp://nowhere"}])
        refused = reload()
        if refused is not None:
            assert refused.status_code in (400, 409, 422)
            assert "challengers[0].url" in refused.text
        error = eventually(lambda: world.status()["config"]["error"])
        assert "challengers[0].url" in error
        assert world.total("understudy_config_last_reload_successful") == 0
        load.answered(50)
        world.service.write(challengers=[{"name": "only", "url": new.url}])
        reload()
        eventually(lambda: world.status()["config"]["generation"] == 3)
        assert world.total("understudy_config_last_reload_successful") == 1
        old.kill()
        before = world.total("understudy_mirror_total", arm="only", outcome="ok")
        eventually(
            lambda: world.total("understudy_mirror_total", arm="only", outcome="ok") > before + 20
        )
        assert set(load.stop()) == {"200"}


def test_payloads_of_every_kind_pass(tmp_path: Path) -> None:
    # Time and room for a challenger that a busy machine holds up.
    mirror = {"timeout": "5m", "queue": {"bytes": "128MiB"}}
    with World(tmp_path, Model(), mirror=mirror) as world:
        big = b'{"id": "big", "padding": "' + b"x" * 64_000_000 + b'"}'
        for body in (
            b"",
            b"not json",
            b"\xff\xfe",
            b"[1, 2",
            b'{"inputs": 5}',
            b'{"inputs": [NaN]}',
            big,
        ):
            answer = httpx.post(
                world.service.url + PATH,
                content=body,
                headers={"x-echo": "size"},
                timeout=patient(60),
            )
            assert answer.status_code == 200
            assert answer.json()["size"] == len(body)
        found = world.settled()
        reasons = {entry["reason"] for entry in found["undecodable"] if entry["part"] == "request"}
        assert reasons >= {"not_json", "empty", "wrong_shape", "not_captured"}
        outcomes = found["arms"][1]["mirror"]["outcomes"]
        assert outcomes == {"ok": 7}
        assert world.total("understudy_request_bytes_total", arm="champion") > 64_000_000
        records = httpx.get(world.service.control + "/v1/records?limit=50").json()
        assert "padding" not in json.dumps(records)
