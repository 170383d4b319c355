"""`reload: watch`: a changed configuration file is taken over without a signal, if it is valid."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.support.named_model import ModelServer, predict, status
from tests.support.patience import eventually, patient
from tests.support.service import REAL, Service
from understudy.monitor.config.load import parse
from understudy.monitor.config.model import Config
from understudy.monitor.supervisor.config_file import ConfigFile


def config_of(reload: str, folder: Path, **changes: Any) -> Config:
    document = {
        "version": 1,
        "listen": "127.0.0.1:0",
        "models": [{"name": "m"}],
        "champion": {"url": "http://127.0.0.1:9"},
        "reload": reload,
        **changes,
    }
    return parse(json.dumps(document), "test", folder)


def polled(file: ConfigFile, config: Config, polls: int, before: Callable[[int], None]) -> int:
    """How many changes are reported in so many looks, each after ``before``."""
    changes = count = 0

    def active() -> Config:
        nonlocal count
        count += 1
        before(count)
        return config

    def changed() -> None:
        nonlocal changes
        changes += 1
        file.was_read(file.content(), config)

    async def run() -> None:
        task = asyncio.create_task(file.follow(active, changed))
        while count < polls:
            await asyncio.sleep(0.001)
        task.cancel()
        await asyncio.wait([task])

    asyncio.run(asyncio.wait_for(run(), patient(30)))
    return changes


def in_place(path: Path, text: str) -> None:
    path.write_text(text)


def by_rename(path: Path, text: str) -> None:
    other = path.with_name(".other")
    other.write_text(text)
    os.replace(other, path)


@pytest.mark.parametrize("write", [in_place, by_rename])
@pytest.mark.parametrize(("reload", "changes"), [("watch", 1), ("signal", 0)])
def test_a_file_is_taken_over_once_it_is_written_whole(
    tmp_path: Path, write: Callable[[Path, str], None], reload: str, changes: int
) -> None:
    path = tmp_path / "understudy.yaml"
    path.write_text("first")
    config = config_of(reload, tmp_path)
    file = ConfigFile(path, poll_seconds=0.0)
    file.was_read(file.content(), config)
    assert polled(file, config, 10, lambda count: None) == 0
    assert polled(file, config, 10, lambda count: write(path, "half" * count)) == 0
    assert polled(file, config, 10, lambda count: None) == changes


def test_the_same_text_and_a_file_that_is_named_are_changes_too(tmp_path: Path) -> None:
    """An operator who touches the file wants it read; a key may be new where the rest is not."""
    path, key = tmp_path / "understudy.yaml", tmp_path / "key"
    path.write_text("same")
    champion = {"url": "http://127.0.0.1:9", "headers": {"x-key": {"file": "key"}}}
    config = config_of("watch", tmp_path, champion=champion)
    file = ConfigFile(path, poll_seconds=0.0)
    file.was_read(file.content(), config)
    for number in range(3):
        key.write_text("k" * number)
        assert polled(file, config, 10, lambda count: None) == 1
    by_rename(path, "same")
    assert polled(file, config, 10, lambda count: None) == 1
    path.unlink()
    assert polled(file, config, 10, lambda count: None) == 1
    assert polled(file, config, 10, lambda count: None) == 0


class ConfigMap:
    """A volume as the kubelet writes it: ``understudy.yaml`` leads over ``..data``, which is
    swapped."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.number = 0
        self.swap({})
        (folder / "understudy.yaml").symlink_to("..data/understudy.yaml")
        (folder / "key").symlink_to("..data/key")

    def swap(self, files: dict[str, str]) -> None:
        self.number += 1
        fresh = self.folder / f"..2026_{self.number}"
        fresh.mkdir()
        for name, text in files.items():
            (fresh / name).write_text(text)
        link = self.folder / "..data_tmp"
        link.symlink_to(fresh.name)
        os.replace(link, self.folder / "..data")
        shutil.rmtree(self.folder / f"..2026_{self.number - 1}", ignore_errors=True)


def test_a_config_map_that_changes_is_taken_over(tmp_path: Path) -> None:
    first, second = ModelServer("first"), ModelServer("second")
    volume = tmp_path / "volume"
    volume.mkdir()
    mounted = ConfigMap(volume)
    service = Service(
        volume, REAL, state_dir=str(tmp_path / "state"), reload="watch",
        champion={"url": first.url, "headers": {"x-key": {"file": "key"}}},
    )  # fmt: skip
    (volume / "..data" / "key").write_text("one")

    def swap(key: str = "one", **changes: Any) -> None:
        service.config |= changes
        mounted.swap({"understudy.yaml": json.dumps(service.config), "key": key})

    def generation() -> int:
        return int(status(service)["config"]["generation"])

    def successful() -> bool:
        text = httpx.get(service.control + "/metrics").text
        return "understudy_config_last_reload_successful 1.0" in text

    try:
        with service.start():
            assert predict(service)["model_name"] == "first"
            champion = {**service.config["champion"], "url": second.url}
            swap(champion=champion)
            eventually(lambda: {predict(service)["model_name"] for _ in range(6)} == {"second"})
            assert generation() == 2
            assert "understudy.yaml has changed" in service.log
            # A file that the configuration names.
            swap(key="two")
            eventually(lambda: generation() == 3)
            # An invalid one: the old configuration serves, and status, metric and log show it.
            swap(champion={**champion, "url": "nonsense"})
            eventually(lambda: "champion.url" in (status(service)["config"]["error"] or ""))
            eventually(lambda: not successful())
            assert "configuration rejected, the running one stays active" in service.log
            assert predict(service)["model_name"] == "second"
            # Written in place, by half and then whole.
            text = json.dumps({**service.config, "champion": {"url": first.url}})
            file = volume / "..data" / "understudy.yaml"
            file.write_text(text[: len(text) // 2])
            eventually(lambda: "line 1" in (status(service)["config"]["error"] or ""))
            assert (generation(), predict(service)["model_name"]) == (3, "second")
            file.write_text(text)
            eventually(lambda: {predict(service)["model_name"] for _ in range(6)} == {"first"})
            eventually(lambda: successful() and status(service)["config"]["error"] is None)
            assert generation() == 4
    finally:
        first.close()
        second.close()
