"""The champion fails: clients are told, and only as long as it is so."""

from __future__ import annotations

import json
import signal
import socket
from pathlib import Path

import httpx

from tests.support.patience import eventually, patient
from tests.support.world import PATH, Load, World

BODY = {"id": "1", "inputs": [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}]}


def test_a_champion_that_is_killed_and_comes_back(tmp_path: Path) -> None:
    with World(tmp_path) as world:
        load = Load(world.service.url)
        load.answered(100)
        world.champion.kill()
        eventually(lambda: load.seen["502"] > 20)
        answer = httpx.post(world.service.url + PATH, json=BODY)
        assert answer.status_code == 502
        assert answer.json()["outcome"] == "upstream_connect"
        world.champion.start()
        load.all_answered()
        failed = load.seen["502"] + load.seen["cut"]
        load.answered(100)
        seen = load.stop()
        assert seen["502"] + seen["cut"] == failed, "afterwards all is well again"
        assert set(seen) <= {"200", "502", "cut"}
        found = world.settled()
        outcomes = found["arms"][0]["windows"]["start"]["outcomes"]
        assert outcomes["ok"]["count"] == seen["200"]
        assert outcomes["upstream_connect"]["count"] > 0
        assert found["arms"][0]["cold_starts"] >= 1
        assert world.total("understudy_retries_total") > 0


def test_a_champion_that_hangs(tmp_path: Path) -> None:
    timeouts = {"first_byte": "300ms"}
    with World(tmp_path) as world:
        world.service.write(champion={"url": world.champion.url, "timeouts": timeouts})
        world.service.signal(signal.SIGHUP)
        eventually(lambda: world.status()["config"]["generation"] == 2)
        world.champion.signal(signal.SIGSTOP)
        answer = httpx.post(world.service.url + PATH, json=BODY, timeout=patient(30))
        assert answer.status_code == 504
        assert answer.json()["outcome"] == "timeout"
        world.champion.signal(signal.SIGCONT)
        eventually(
            lambda: (
                httpx.post(world.service.url + PATH, json=BODY, timeout=patient(30)).status_code
                == 200
            )
        )
        assert world.total("understudy_requests_total", outcome="timeout") >= 1


def test_clients_that_leave_and_clients_that_are_slow(tmp_path: Path) -> None:
    with World(tmp_path, limits={"header_timeout": "10m"}) as world:
        host, port = world.service.url.removeprefix("http://").split(":")
        load = Load(world.service.url)
        payload = json.dumps(BODY).encode()
        head = f"POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {len(payload)}\r\n\r\n".encode()
        slow = [socket.create_connection((host, int(port))) for _ in range(20)]
        for i, connection in enumerate(slow):
            connection.sendall(head[: 5 + i])
        world.champion.signal(signal.SIGSTOP)
        for _ in range(10):
            leaver = socket.create_connection((host, int(port)))
            leaver.sendall(head + payload)
            leaver.close()
        eventually(lambda: world.total("understudy_requests_total", outcome="cancelled") == 10)
        world.champion.signal(signal.SIGCONT)
        load.answered(100)
        for i, connection in enumerate(slow):
            connection.sendall(head[5 + i :] + payload)
            assert connection.recv(100).startswith(b"HTTP/1.1 200")
            connection.close()
        assert set(load.stop()) == {"200"}
