"""The disk of the state folder is full, read-only or gone, at every moment: no client notices."""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.conftest import NOT_TESTED
from tests.support.disks import disk
from tests.support.patience import eventually, patient
from tests.support.service import REAL
from tests.support.world import Load, Model, World, total
from understudy.monitor.pipeline.state import FILE_NAME

LOG: dict[str, Any] = {"records": {"log": {"path": "disk/records"}}}


def world_on(folder: Path, where: Path, **config: Any) -> World:
    return World(folder, Model(), state_dir=str(where), workers=1, **{**LOG, **config})


def warnings(world: World) -> list[str]:
    found = httpx.get(world.service.control + "/readyz")
    assert found.status_code == 200, found.text
    return [str(text) for text in found.json()["warnings"]]


def reload(world: World) -> httpx.Response:
    return httpx.post(world.service.control + "/v1/config/reload", timeout=patient(60))


def serves_through_everything(world: World, load: Load) -> None:
    """What asks most of a disk: outcomes and arms that are new, and processes that are."""
    load.answered(20)
    assert reload(world).json()["ok"] is True
    httpx.get(world.service.url + "/no-model")  # an outcome that is new
    restarts = sum(worker["restarts"] for worker in world.status()["workers"])
    world.kill("understudy.monitor.proxy.worker")
    load.answered(20)
    world.kill("understudy.monitor.service")
    load.answered(20)
    eventually(lambda: world.status()["evaluation"]["restarts"] == 1)
    eventually(lambda: sum(one["restarts"] for one in world.status()["workers"]) == restarts + 1)


def clients_noticed_nothing(load: Load) -> None:
    seen = load.stop()
    # Each client of the worker that the test killed loses its connection once.
    assert set(seen) <= {"200", "cut", "refused"}
    assert seen["cut"] + seen["refused"] <= 2 * 6


@pytest.mark.parametrize("kind", ["tmpfs", "ext4"])
def test_a_disk_becomes_full_and_has_room_again(tmp_path: Path, kind: str) -> None:
    with disk(tmp_path / "disk", 48, kind) as small, world_on(tmp_path, small.path / "s") as world:
        load = Load(world.service.url)
        load.answered(20)
        small.fill()
        eventually(lambda: any(FILE_NAME in text for text in warnings(world)))
        serves_through_everything(world, load)
        small.free()
        eventually(lambda: not warnings(world))
        clients_noticed_nothing(load)
        world.settled()
        # Nothing is left open on the disk that will be unmounted.
        stop(world)


def test_predictions_that_wait_for_labels_leave_room_for_the_state(tmp_path: Path) -> None:
    experiment = {
        "name": "e",
        "challengers": ["other0"],
        "metrics": [{"metric": "accuracy", "margin": "20 pp", "base_rate": 0.5}],
        "label": {"prediction": "p", "threshold": 0.6},
    }
    with (
        disk(tmp_path / "disk", 48) as small,
        World(
            tmp_path, Model(), state_dir=str(small.path / "s"), workers=1, experiments=[experiment]
        ) as world,
    ):
        # Few pauses: eight megabytes of predictions have to wait.
        load = Load(world.service.url, pause=0.002)
        load.answered(20)
        (small.path / "ballast").write_bytes(bytes(30 << 20))
        purged = "understudy_feedback_purged_total"
        eventually(
            lambda: total(world.metrics(), purged, reason="disk") > 0, "predictions give way"
        )
        state = small.path / "s" / FILE_NAME
        before = state.stat().st_mtime
        eventually(lambda: state.stat().st_mtime > before, "the state is saved")
        assert warnings(world) == []
        clients_noticed_nothing(load)
        stop(world)


def test_a_disk_fails_and_is_read_only(tmp_path: Path) -> None:
    with (
        disk(tmp_path / "disk", 48, "ext4") as small,
        world_on(tmp_path, small.path / "s") as world,
    ):
        load = Load(world.service.url)
        load.answered(20)
        small.fail()
        serves_through_everything(world, load)
        eventually(
            lambda: any("state_dir" in text or FILE_NAME in text for text in warnings(world))
        )
        clients_noticed_nothing(load)
        stop(world)


def test_a_disk_vanishes(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", 48) as small, world_on(tmp_path, small.path / "s") as world:
        load = Load(world.service.url)
        load.answered(20)
        small.vanish()
        serves_through_everything(world, load)
        clients_noticed_nothing(load)
        stop(world)


@pytest.mark.parametrize("state", ["full", "read-only"])
def test_a_start_without_a_usable_disk(tmp_path: Path, state: str) -> None:
    with disk(tmp_path / "disk", 16) as small:
        small.fill() if state == "full" else small.read_only()
        with world_on(tmp_path, small.path / "s") as world:
            load = Load(world.service.url)
            serves_through_everything(world, load)
            assert eventually(lambda: warnings(world))
            clients_noticed_nothing(load)
            world.settled()
            stop(world)
        if state == "read-only":
            small.read_only(False)


def test_a_restart_with_state_on_a_disk_that_is_read_only_now(tmp_path: Path) -> None:
    with disk(tmp_path / "disk", 16) as small:
        with world_on(tmp_path, small.path / "s") as world:
            load = Load(world.service.url)
            load.answered(20)
            load.stop()
            world.settled()
            evaluated = world.status()["records"]["evaluated"]
            stop(world)
        small.read_only()
        with world_on(tmp_path, small.path / "s") as world:
            assert world.status()["records"]["evaluated"] == evaluated
            assert world.total("understudy_requests_total", role="primary") >= 20
            load = Load(world.service.url)
            serves_through_everything(world, load)
            clients_noticed_nothing(load)
            stop(world)
        small.read_only(False)


@pytest.mark.parametrize("room", ["state", "temporary"])
def test_without_room_in_memory_the_run_is_elsewhere(tmp_path: Path, room: str) -> None:
    if shutil.which("unshare") is None or os.geteuid():
        pytest.skip(f"{NOT_TESTED}: mount namespaces are not allowed")
    mount = "mount -t tmpfs -o size=64k tmpfs /dev/shm"
    command = ("unshare", "-m", "sh", "-c", f'{mount} && exec "$@"', "sh", *REAL)
    with disk(tmp_path / "disk", 16) as small:
        if room == "temporary":
            (small.path / "s").mkdir()
            (small.path / "s" / "lock").touch()
            small.fill()
        world = world_on(tmp_path, small.path / "s")
        world.service.command = command
        with world:
            load = Load(world.service.url)
            load.answered(20)
            run = small.path / "s" / "run"
            assert (run.is_dir() and not run.is_symlink()) == (room == "state")
            httpx.get(world.service.url + "/no-model")
            assert set(load.stop()) == {"200"}
            found = world.settled()
            assert found["records"]["eligible"] >= 20
            stop(world)


def stop(world: World) -> None:
    """An orderly end, before the disk is unmounted."""
    assert world.service.stop() == 0, world.service.log
