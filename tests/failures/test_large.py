"""A body of 1 GiB passes in both directions, and the worker's memory stays flat."""

from __future__ import annotations

import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx

from tests.support.patience import patient
from tests.support.world import PATH, Model, World

SIZE = 1 << 30
BLOCK = bytes(1 << 18)


def memory_mib(pid: int) -> float:
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return int(line.split()[1]) / 1024
    raise AssertionError("no VmRSS")


def absorb_and_send(listener: socket.socket) -> None:
    """An upstream that takes 1 GiB and gives 1 GiB."""
    connection, _ = listener.accept()
    head = b""
    while b"\r\n\r\n" not in head:
        head += connection.recv(65536)
    left = SIZE - len(head.partition(b"\r\n\r\n")[2])
    while left:
        left -= len(connection.recv(min(left, 1 << 20)))
    connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % SIZE)
    for _ in range(SIZE // len(BLOCK)):
        connection.sendall(BLOCK)
    connection.close()


def test_a_gibibyte_passes_both_ways_with_flat_memory(tmp_path: Path) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    upstream = threading.Thread(target=absorb_and_send, args=(listener,), daemon=True)
    upstream.start()
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with World(tmp_path, workers=1, champion={"url": url}) as world:
        worker = world.pid("understudy.monitor.proxy.worker")
        before = memory_mib(worker)
        host, port = world.service.url.removeprefix("http://").split(":")
        client = socket.create_connection((host, int(port)))
        client.sendall(
            f"POST {PATH} HTTP/1.1\r\nHost: h\r\nContent-Length: {SIZE}\r\n\r\n".encode()
        )
        peak = before
        for number in range(SIZE // len(BLOCK)):
            client.sendall(BLOCK)
            if number % 64 == 0:
                peak = max(peak, memory_mib(worker))
        received, head = 0, b""
        while received < SIZE:
            data = client.recv(1 << 18)
            assert data, "the answer was cut"
            if b"\r\n\r\n" not in head:
                head += data
                received = len(head.partition(b"\r\n\r\n")[2]) if b"\r\n\r\n" in head else 0
            else:
                received += len(data)
            if received % 7 == 0:
                peak = max(peak, memory_mib(worker))
        assert head.startswith(b"HTTP/1.1 200")
        assert peak - before < 16, f"grew from {before:.0f} to {peak:.0f} MiB"
        found = world.settled()
        assert found["arms"][0]["request_bytes"] == SIZE
        assert found["arms"][0]["response_bytes"] == SIZE
        upstream.join(30)
    listener.close()


def test_a_stopped_challenger_neither_holds_up_an_upload_nor_takes_memory(tmp_path: Path) -> None:
    """It is sent what its kernel takes; it runs again only after the client has its answer."""
    size = 64 << 20
    mirror = {"queue": {"bytes": "4MiB"}}
    with World(tmp_path, Model(), workers=1, mirror=mirror) as world:
        url, (other,) = world.service.url + PATH, world.challengers
        assert httpx.post(url, content=b"{}", timeout=patient(30)).status_code == 200
        world.settled()
        worker = world.pid("understudy.monitor.proxy.worker")
        before = memory_mib(worker)
        other.signal(signal.SIGSTOP)
        peak = before

        def body() -> Iterator[bytes]:
            nonlocal peak
            for number in range(size // len(BLOCK)):
                yield BLOCK
                if number % 16 == 0:
                    peak = max(peak, memory_mib(worker))

        headers = {"content-length": str(size), "x-echo": "size"}
        answer = httpx.post(url, content=body(), headers=headers, timeout=patient(60))
        assert answer.status_code == 200
        assert answer.json()["size"] == size
        other.signal(signal.SIGCONT)
        world.settled()
        assert world.total("understudy_mirror_total", outcome="fell_behind") == 1
        assert world.total("understudy_mirror_total", outcome="ok") == 1
        assert peak - before < 32
