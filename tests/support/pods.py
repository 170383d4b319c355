"""A small cluster in a network namespace: pods with addresses, a name server, the real service.

``python -m tests.support.pods CASE FOLDER`` runs one case of :data:`CASES`, in a namespace of its
own where it may change addresses, routes and ``/etc/resolv.conf``; it fails by an exception.
"""

from __future__ import annotations

import contextlib
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx

from tests.support.patience import eventually
from tests.support.world import PATH, Load, Model, World

NAME = "model.pods.test"
PORT = 8081
BLACK_HOLE = "10.9.1.9"
PODS = ("10.9.0.1", "10.9.0.2", "10.9.0.3")


class NameServer:
    """Answers A queries for :data:`NAME` with ``addresses``; ``mode`` is ``well``, ``silent``,
    ``unknown`` (NXDOMAIN) or ``broken`` (SERVFAIL)."""

    def __init__(self) -> None:
        self.addresses: list[str] = []
        self.mode = "well"
        self.asked = 0
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 53))
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            query, client = self._socket.recvfrom(2048)
            end = 12
            labels = []
            while query[end]:
                labels.append(query[end + 1 : end + 1 + query[end]].decode())
                end += 1 + query[end]
            (kind,) = struct.unpack("!H", query[end + 1 : end + 3])
            question = query[12 : end + 5]
            mine = ".".join(labels).lower() == NAME
            self.asked += mine
            if self.mode == "silent":
                continue
            code = {"well": 0, "unknown": 3, "broken": 2}[self.mode] if mine else 3
            found = self.addresses if mine and kind == 1 and not code else []
            answers = b"".join(
                b"\xc0\x0c" + struct.pack("!HHIH", 1, 1, 5, 4) + socket.inet_aton(one)
                for one in found
            )
            head = query[:2] + struct.pack("!HHHHH", 0x8180 | code, 1, len(found), 0, 0)
            self._socket.sendto(head + question + answers, client)


class Cluster:
    """The service, whose champion is :data:`NAME`, with the pods that tests start."""

    def __init__(self, folder: Path, **settings: Any) -> None:
        _addresses()
        resolver = folder / "resolv.conf"
        resolver.write_text("nameserver 127.0.0.1\noptions timeout:1 attempts:1\n")
        _run("mount", "--bind", str(resolver), "/etc/resolv.conf")
        self.names = NameServer()
        self.pods: dict[str, Model] = {}
        champion = {"url": f"http://{NAME}:{PORT}", "resolve": "300ms", "max_age": "2s"}
        self.world = World(
            folder,
            champion={**champion, **settings},
            models=[{"name": "m", "retry": True}],
            workers=2,
        )

    def start(self, *hosts: str) -> None:
        for host in hosts:
            self.pods[host] = Model("right", host, PORT)

    @contextlib.contextmanager
    def traffic(self) -> Iterator[Load]:
        """Clients, of which none may fail."""
        with self.world:
            load = Load(self.world.service.url)
            try:
                load.answered(50)
                yield load
                load.answered(50)
                seen = load.stop()
                assert set(seen) == {"200"}, (seen, self._outcomes())
            finally:
                load.stop()
                for pod in self.pods.values():
                    pod.kill()

    def _outcomes(self) -> dict[str, float]:
        wanted = ("understudy_requests_total", "understudy_retries_total", "understudy_upstream")
        return {k: v for k, v in self.world.metrics().items() if k.startswith(wanted) and v}

    def who(self, requests: int = 40) -> Counter[str]:
        """Who answers so many requests."""
        seen: Counter[str] = Counter()
        with httpx.Client() as client:
            for _ in range(requests):
                answer = client.post(self.world.service.url + PATH, json={"id": "who"})
                assert answer.status_code == 200, answer.text
                seen[answer.json()["model_version"]] += 1
        return seen

    def total(self, name: str, **labels: str) -> int:
        return self.world.total(f"understudy_{name}", **labels)


def one_pod_is_unreachable(folder: Path) -> None:
    """From the first request on, and for as long as the name has its address."""
    cluster = Cluster(folder, timeouts={"connect": "5s"})
    cluster.start(PODS[0])
    cluster.names.addresses = [BLACK_HOLE, PODS[0]]
    with cluster.traffic() as load:
        eventually(lambda: cluster.total("upstream_connect_failures_total", reason="timeout") > 2)
        eventually(lambda: cluster.total("upstream_addresses", state="aside") == 1)
        assert set(cluster.who()) == {PODS[0]}
        load.answered(200)


def pods_come_and_go(folder: Path) -> None:
    """A rollout: new pods get their share, ending ones get nothing more, none fails."""
    cluster = Cluster(folder)
    cluster.start(*PODS[:2])
    cluster.names.addresses = list(PODS[:2])
    with cluster.traffic() as load:
        eventually(lambda: set(cluster.who()) == set(PODS[:2]))
        cluster.start(PODS[2])
        cluster.names.addresses = list(PODS)
        eventually(lambda: set(cluster.who()) == set(PODS))
        # As Kubernetes does: its address is withdrawn, and it is told to end, at the same moment.
        cluster.names.addresses = list(PODS[1:])
        cluster.pods[PODS[0]].signal(signal.SIGTERM)
        load.answered(100)
        eventually(lambda: cluster.pods[PODS[0]].process.poll() == 0)  # type: ignore[union-attr]
        eventually(lambda: set(cluster.who()) == set(PODS[1:]))
        # One that ends before its address is withdrawn.
        cluster.pods[PODS[1]].signal(signal.SIGTERM)
        eventually(lambda: set(cluster.who()) == {PODS[2]})
        load.answered(100)
        cluster.names.addresses = [PODS[2]]
        load.answered(100)


def a_pod_is_killed(folder: Path) -> None:
    """Its requests are repeated on the other one; the name keeps its address for a while.

    The connections are old: what is sent on a new one is not repeated, for it may be what killed
    the pod.
    """
    cluster = Cluster(folder, max_age="1h")
    cluster.start(*PODS[:2])
    cluster.names.addresses = list(PODS[:2])
    with cluster.traffic() as load:
        eventually(lambda: set(cluster.who()) == set(PODS[:2]))
        cluster.pods[PODS[0]].kill()
        load.answered(200)
        assert set(cluster.who()) == {PODS[1]}
        cluster.start(PODS[0])
        eventually(lambda: set(cluster.who()) == set(PODS[:2]))


def the_name_server_fails(folder: Path) -> None:
    """It answers wrongly or not at all: the addresses before stay in use."""
    cluster = Cluster(folder)
    cluster.start(PODS[0])
    cluster.names.addresses = [PODS[0]]
    with cluster.traffic() as load:
        for mode in ("broken", "unknown", "silent"):
            before = cluster.total("upstream_lookups_total", outcome="failed")
            connects = cluster.total("upstream_connects_total")
            cluster.names.mode = mode
            eventually(
                lambda: cluster.total("upstream_lookups_total", outcome="failed") > before + 2  # noqa: B023
            )
            eventually(lambda: cluster.total("upstream_connects_total") > connects)  # noqa: B023
            load.answered(50)
        cluster.names.mode = "well"
        cluster.start(PODS[1])
        cluster.names.addresses = [PODS[1]]
        eventually(lambda: set(cluster.who()) == {PODS[1]})


CASES = {
    case.__name__: case
    for case in (one_pod_is_unreachable, pods_come_and_go, a_pod_is_killed, the_name_server_fails)
}


def _run(*command: str) -> None:
    subprocess.run(command, check=True)


def _addresses() -> None:
    """Addresses of pods on the loopback device, and one where nothing answers."""
    _run("ip", "link", "set", "lo", "up")
    for pod in PODS:
        _run("ip", "addr", "add", f"{pod}/32", "dev", "lo")
    for kind in ("dummy", "ifb"):
        # A device that drops what it is given; which kinds there are depends on the kernel.
        command = ("ip", "link", "add", "hole", "type", kind)
        if subprocess.run(command, capture_output=True, check=False).returncode == 0:
            _run("ip", "link", "set", "hole", "up")
            _run("ip", "route", "add", f"{BLACK_HOLE}/32", "dev", "hole")
            return
    _run("ip", "addr", "add", f"{BLACK_HOLE}/32", "dev", "lo")
    full = socket.socket()
    full.bind((BLACK_HOLE, PORT))
    full.listen(0)
    held.append(full)
    for _ in range(4):
        filler = socket.socket()
        filler.setblocking(False)
        filler.connect_ex((BLACK_HOLE, PORT))
        held.append(filler)


held: list[socket.socket] = []
"""A server whose queue of handshakes is full: its kernel answers no further one."""

if __name__ == "__main__":
    CASES[sys.argv[1]](Path(sys.argv[2]))
