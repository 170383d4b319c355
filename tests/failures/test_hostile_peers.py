"""Peers whose messages have as many pieces as can be: clients of others are answered all the same."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.patience import eventually
from tests.support.service import ROOT
from tests.support.world import PATH, Load, Model, World, total

REQUESTS = 300
# Their answers never end by themselves, so that the end would wait for them.
QUICK_END = {"drain": "1s"}


@contextmanager
def hostile_client(world: World, kind: str) -> Iterator[subprocess.Popen[bytes]]:
    """A client that sends as fast as it can."""
    port = world.service.url.rpartition(":")[2]
    command = [sys.executable, "-m", "tests.support.hostile", port, kind, PATH, "2"]
    process = subprocess.Popen(command, cwd=ROOT)
    try:
        yield process
    finally:
        process.kill()
        process.wait()


@pytest.mark.parametrize(
    ("mode", "outcome", "reason"),
    [
        ("interim", "garbage", "interim"),
        ("one_byte_chunks", "too_large", ""),
        ("tiny_events", "too_large", ""),
        ("single_events", "too_large", ""),
        ("extensions", "garbage", "chunk_overhead"),
        ("header_lines", "garbage", "header_lines"),
        ("endless_head", "garbage", "head_too_large"),
    ],
)
def test_a_hostile_challenger_is_cut_by_a_named_limit(
    tmp_path: Path, mode: str, outcome: str, reason: str
) -> None:
    with World(tmp_path, Model(mode), mirror={"connections": 4}, limits=QUICK_END) as world:
        load = Load(world.service.url)
        load.answered(REQUESTS)
        eventually(lambda: world.total("understudy_mirror_total", outcome=outcome))
        seen = load.stop()
        assert set(seen) == {"200"}
        refused = world.total("understudy_refused_responses_total", arm="other0", reason=reason)
        assert refused > 0 if reason else refused == 0


@pytest.mark.parametrize("mode", ["one_byte_chunks", "tiny_events", "single_events"])
def test_clients_are_answered_while_a_challenger_still_sends(tmp_path: Path, mode: str) -> None:
    """Without limits that would end its answers."""
    model = Model(mode)
    mirror = {"timeout": "1h", "max_response": "100GiB", "connections": 4}
    challenger = {"name": "other", "url": model.url, "mirror": mirror}
    with World(tmp_path, model, challengers=[challenger], limits=QUICK_END) as world:

        def sending() -> bool:
            return world.total("understudy_in_flight_requests", arm="other", role="mirror") >= 4

        load = Load(world.service.url)
        eventually(sending)
        load.answered(REQUESTS)
        assert sending()
        # Those that found no place were not sent; none of the others has ended.
        found = world.metrics()
        ended = total(found, "understudy_mirror_total", arm="other")
        assert ended == total(found, "understudy_mirror_total", arm="other", outcome="queue_full")
        assert set(load.stop()) == {"200"}


@pytest.mark.parametrize("kind", ["one_byte_chunks", "single_chunks"])
def test_clients_are_answered_while_another_uploads_tiny_chunks(tmp_path: Path, kind: str) -> None:
    with World(tmp_path) as world, hostile_client(world, kind) as hostile:
        size = "understudy_in_flight_requests"
        eventually(lambda: world.total(size, arm="champion", role="primary") >= 1)
        load = Load(world.service.url)
        load.answered(REQUESTS)
        assert hostile.poll() is None
        assert world.total(size, arm="champion", role="primary") >= 1
        assert set(load.stop()) == {"200"}
        assert world.total("understudy_rejected_requests_total") == 0


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("extensions", "chunk_overhead"),
        ("header_lines", "header_lines"),
        ("empty_lines", "empty_lines"),
    ],
)
def test_a_hostile_client_is_rejected_by_a_named_limit(
    tmp_path: Path, kind: str, reason: str
) -> None:
    with World(tmp_path) as world, hostile_client(world, kind) as hostile:
        load = Load(world.service.url)
        load.answered(REQUESTS)
        eventually(lambda: world.total("understudy_rejected_requests_total", reason=reason) > 0)
        assert hostile.poll() is None
        assert set(load.stop()) == {"200"}


@pytest.mark.parametrize("mode", ["one_byte_chunks", "tiny_events"])
def test_clients_are_answered_while_another_reads_an_endless_answer(
    tmp_path: Path, mode: str
) -> None:
    """The champion's own stream flows on, and takes no more than its share."""
    with World(tmp_path) as world:
        address = f"{world.service.url}/hostile/{mode}"
        reader = subprocess.Popen(
            [sys.executable, "-c", f"import urllib.request as r; s = r.urlopen({address!r})\n"
             "while s.read(65536): print(flush=True)"],
            stdout=subprocess.PIPE,
        )  # fmt: skip
        try:
            assert reader.stdout is not None
            reader.stdout.readline()
            load = Load(world.service.url)
            load.answered(REQUESTS)
            assert set(load.stop()) == {"200"}
            assert reader.poll() is None
            assert reader.stdout.readline() == b"\n"
        finally:
            reader.kill()
            reader.wait()
