"""Clients of the control port cannot make the evaluation plane hold memory, or stop answering."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.patience import eventually, patient
from tests.support.plane_process import PlaneProcess
from understudy.monitor.supervisor.process_use import use_of

MIB = 1024 * 1024
TOKEN = "correct horse"


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[PlaneProcess]:
    with PlaneProcess(tmp_path).start(UNDERSTUDY_TEST_TOKEN=TOKEN) as process:
        yield process


def memory(plane: PlaneProcess) -> float:
    """Resident MiB."""
    assert plane.process is not None
    use = use_of(plane.process.pid)
    assert use is not None
    return use.memory_bytes / MIB


def post(plane: PlaneProcess, path: str, body: bytes, *headers: str) -> int:
    """The status of a call whose body is sent whatever is answered meanwhile; 0 when the
    connection was cut before."""
    head = [f"POST {path} HTTP/1.1", f"host: 127.0.0.1:{plane.port}", *headers]
    head += ["content-type: application/json", f"content-length: {len(body)}", "", ""]
    with socket.create_connection(("127.0.0.1", plane.port), patient(20)) as client:
        try:
            client.sendall("\r\n".join(head).encode() + body)
            return int((client.recv(4096).split() or [b"", b"0"])[1])
        except ConnectionError:
            return 0


def test_large_bodies_leave_no_memory_behind(plane: PlaneProcess) -> None:
    """Each body of 8 MiB left 16 MiB: it was kept, as bytes and as text, by the error that it had
    caused."""
    body = b" " * (8 * MIB)
    calls = [
        (f"/v1/{path}", headers)
        for path in ("silences", "records", "feedback", "cloudevents", "flagger/x/rollback")
        for headers in ([], [f"authorization: Bearer {TOKEN}"])
    ]
    for path, headers in calls:
        post(plane, path, body, *headers)
    before = memory(plane)
    for path, headers in calls:
        for _ in range(6):
            assert post(plane, path, body, *headers) in (0, 401, 404, 413, 422)
    assert memory(plane) < before + 32


@pytest.mark.parametrize("line", [b"x: " + b"y" * MIB, b"a: b\r\n" * 10_000], ids=["long", "many"])
def test_a_head_without_end_is_cut(plane: PlaneProcess, line: bytes) -> None:
    """It needs no token: the head comes before."""
    before = memory(plane)
    client = socket.create_connection(("127.0.0.1", plane.port), patient(20))
    with client, contextlib.suppress(ConnectionError):  # a timeout is none
        client.sendall(b"GET /healthz HTTP/1.1\r\nhost: localhost\r\n")
        for _ in range(64):
            client.sendall(line)
        while client.recv(4096):
            pass
    assert memory(plane) < before + 16
    assert plane.get("/healthz").status_code == 200


BODIES = {
    "small items": b"[" + b"{}," * (8 * MIB // 3 - 2) + b"{}]",
    "one item of small values": b'{"request_id": "r", "label": ['
    + b"[]," * (8 * MIB // 3 - 20)
    + b"[]]}",
    "deep": b"[" * (8 * MIB),
    "escapes": b'["' + b"\\" * (8 * MIB - 4) + b'"]',
    "a long name in each row": json.dumps(
        {"features": {"x" * 100_000: [0.0] * 10_000}, "predictions": {"p": [0.0] * 10_000}}
    ).encode(),
}


def test_a_body_does_not_become_much_larger_in_memory(tmp_path: Path) -> None:
    models = [{"name": "delays", "version": "1", "protocol": "kserve-v1"}]
    with PlaneProcess(tmp_path, models=models).start() as plane:
        before = memory(plane)
        for name, body in BODIES.items():
            for path in ("/v1/records", "/v1/feedback"):
                assert post(plane, path, body) in (413, 422), name
            assert peak(plane) < before + 120, name


def peak(plane: PlaneProcess) -> float:
    """The largest resident MiB since the start."""
    assert plane.process is not None
    status = Path(f"/proc/{plane.process.pid}/status").read_text()
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


def test_many_slow_bodies_at_once_are_bounded_and_reading_goes_on(plane: PlaneProcess) -> None:
    before = memory(plane)
    head = (
        f"POST /v1/records HTTP/1.1\r\nhost: 127.0.0.1\r\nauthorization: Bearer {TOKEN}\r\n"
        f"content-length: {8 * MIB}\r\n\r\n"
    ).encode()
    statuses: list[bytes] = []

    def send(client: socket.socket) -> None:
        try:
            client.sendall(head + b" " * (8 * MIB - 1))
            statuses.append(client.recv(4096)[9:12])
        except OSError:
            statuses.append(b"")

    clients = [socket.create_connection(("127.0.0.1", plane.port)) for _ in range(40)]
    threads = [threading.Thread(target=send, args=(client,)) for client in clients]
    try:
        for thread in threads:
            thread.start()
        # Those beyond the limit are told to come again; the others wait for their last byte.
        eventually(lambda: statuses.count(b"503") >= 8)
        assert plane.get("/readyz").status_code in (200, 503)
        assert plane.status()["records"]["evaluated"] == 0
        assert memory(plane) < before + 96
    finally:
        for client in clients:
            client.shutdown(socket.SHUT_RDWR)
        for thread in threads:
            thread.join()

    for client in clients:
        client.close()


def test_cloudevents_that_wait_for_their_other_half_are_bounded_in_bytes(
    plane: PlaneProcess,
) -> None:
    body = b'{"inputs":[]}' + b" " * (4 * MIB)
    headers = [
        f"authorization: Bearer {TOKEN}",
        "ce-type: org.kubeflow.serving.inference.request",
        "ce-specversion: 1.0",
        "ce-source: x",
    ]
    before = memory(plane)
    for number in range(40):
        assert post(plane, "/v1/cloudevents", body, *headers, f"ce-id: e-{number}") == 200
    assert memory(plane) < before + 96
    assert plane.metric("understudy_ingested_total", source="cloudevents", outcome="overflow") == 37
