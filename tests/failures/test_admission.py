"""Connections and descriptors run out: who is served stays served, and it is reported."""

from __future__ import annotations

import contextlib
import http.client
import json
import resource
import socket
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.support.patience import eventually, patient
from tests.support.service import REAL
from tests.support.world import PATH, Load, World

TENSOR = {"name": "x", "shape": [1], "datatype": "FP64", "data": [1.0]}
BODY = json.dumps({"id": "1", "inputs": [TENSOR]})


def address(url: str) -> tuple[str, int]:
    host, _, port = url.removeprefix("http://").rpartition(":")
    return host, int(port)


def ready(world: World) -> httpx.Response:
    return httpx.get(world.service.control + "/readyz", timeout=patient(20))


class Clients(Load):
    """They may be kept from sending for a while, on a busy machine: then they are idle as well, are
    closed in favour of others, and wait until there is room for them again."""

    def __init__(self, world: World, clients: int) -> None:
        self._closed: set[str] = set()
        self._world = world
        super().__init__(world.service.url, clients)

    def _one(self, connection: http.client.HTTPConnection, number: str) -> str:
        outcome = super()._one(connection, number)
        client = number.partition("-")[0]
        if outcome == "200":
            self._closed.discard(client)
        elif outcome == "cut":
            self._closed.add(client)
        elif outcome == "503" and client in self._closed:
            return "503 after it was closed"
        return outcome

    def were_served_unless_idle(self) -> None:
        """Stop, and look at what they got."""
        seen = self.stop()
        assert set(seen) <= {"200", "cut", "503 after it was closed"}
        reclaimed = "understudy_connections_reclaimed_total"
        eventually(lambda: seen["cut"] <= self._world.total(reclaimed))


def test_more_silent_clients_than_descriptors(tmp_path: Path) -> None:
    """Both clients that were there before, and those that come later."""
    world = World(tmp_path, workers=1)
    world.service.command = ("sh", "-c", 'ulimit -n 150 && exec "$0" "$@"', *REAL)
    with world, ExitStack() as stack:
        load = Clients(world, 3)
        load.answered(20)
        for _ in range(200):
            stack.enter_context(socket.create_connection(address(world.service.url)))
        load.answered(50)

        def served() -> bool:
            """New clients get a 503 until silent ones have been idle for long enough."""
            answer = httpx.post(world.service.url + PATH, content=BODY, timeout=patient(20))
            assert answer.status_code in (200, 503)
            return answer.status_code == 200

        eventually(served)
        load.answered(50)
        load.were_served_unless_idle()
        world.settled()
        assert world.total("understudy_rejected_requests_total", reason="connections") > 0
        assert world.total("understudy_connections_reclaimed_total") > 0
        assert world.total("understudy_descriptors_exhausted_total") == 0
        limit = world.total("understudy_connections_limit")
        assert 20 < limit < 150
        assert any(f"serves {limit} connections" in text for text in world.status()["warnings"])
        assert ready(world).status_code == 200


def test_descriptors_that_are_missing_are_reported_until_there_are_some(tmp_path: Path) -> None:
    with World(tmp_path, workers=1) as world, ExitStack() as stack:
        # One needs no second connection to the model server, for which there is no descriptor.
        load = Clients(world, 1)
        load.answered(20)
        worker = world.pid("understudy.monitor.proxy.worker")
        before = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        taken = max(int(path.name) for path in Path(f"/proc/{worker}/fd").iterdir())
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (taken + 1, before[1]))
        ours = [
            stack.enter_context(socket.create_connection(address(world.service.url)))
            for _ in range(30)
        ]
        eventually(lambda: world.total("understudy_descriptors_exhausted_total", where="accept"))
        eventually(lambda: ready(world).status_code == 503)
        assert "no file descriptor left" in ready(world).text
        load.answered(100)
        # A few attempts a second, and as many lines in the log as there were shortages.
        assert world.total("understudy_descriptors_exhausted_total", where="accept") < 200
        assert world.service.log.count("no file descriptor left") == 1
        resource.prlimit(worker, resource.RLIMIT_NOFILE, before)
        for one in ours:
            one.settimeout(patient(20))
            one.sendall(b"GET /x HTTP/1.1\r\nHost: here\r\nConnection: close\r\n\r\n")
        answers = [one.recv(100) for one in ours]
        # An idle client may have been closed in favour of another.
        assert sum(answer.startswith(b"HTTP/1.1 ") for answer in answers) > len(ours) // 2
        eventually(lambda: ready(world).status_code == 200, seconds=40.0)
        load.were_served_unless_idle()


def resident(pid: int) -> int:
    """Resident memory of a process in bytes."""
    status = Path(f"/proc/{pid}/status").read_text()
    return int(status.partition("VmRSS:")[2].split()[0]) * 1024


def test_slow_clients_share_a_budget_of_memory(tmp_path: Path) -> None:
    """300 clients that send 250 kB each and no more: 75 MB, of which the worker keeps 8 MiB."""
    head = f"POST {PATH} HTTP/1.1\r\nHost: here\r\nContent-Length: 250001\r\n\r\n"
    with World(tmp_path, workers=1, limits={"memory": "8MiB"}) as world, ExitStack() as stack:
        load = Load(world.service.url, clients=3)
        load.answered(100)
        worker = world.pid("understudy.monitor.proxy.worker")
        before = resident(worker)
        for _ in range(300):
            client = stack.enter_context(socket.create_connection(address(world.service.url)))
            client.settimeout(patient(20))
            # One that was cut off meanwhile need not take the rest.
            with contextlib.suppress(ConnectionError, TimeoutError):
                client.sendall(head.encode() + bytes(250_000))
        eventually(
            lambda: world.total("understudy_rejected_requests_total", reason="slow_client") > 50
        )
        load.answered(100)
        assert set(load.stop()) == {"200"}
        assert resident(worker) - before < 32 << 20
        assert world.total("understudy_connection_memory_limit_bytes") == 8 << 20
        # Bytes on their way to a model server are counted, and not refused: a read of each body.
        assert world.total("understudy_connection_memory_bytes") <= 16 << 20
