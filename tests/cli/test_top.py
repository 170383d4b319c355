"""``understudy top`` against a real evaluation plane, and against things that are none."""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from tests.support.patience import eventually
from tests.support.plane_process import PATIENCE, PlaneProcess, WorkerEnd, encoded
from tests.support.ports import free_port
from tests.support.traffic import count_traffic
from understudy.monitor.cli import top_view as top
from understudy.monitor.cli.client import Client
from understudy.monitor.records import frames


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[PlaneProcess]:
    plane = PlaneProcess(tmp_path)
    count_traffic(plane.stats())
    with plane:
        worker = WorkerEnd(plane)
        worker.batch(1, [encoded({"a": [1.0]}, {"p": [0.25], "label": ["x"]})])
        worker.wait_for(frames.ACK, 1)
        plane.report(0, config_error="champion.url: nonsense")
        eventually(lambda: plane.status()["config"]["error"])
        yield plane


def test_one_frame_shows_what_matters_without_colour(
    plane: PlaneProcess, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    assert top.run(Client(plane.url), once=True) == 0
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "Understudy degraded" in shown
    for text in (
        "champion",
        "champion (clients)",
        "candidate (mirrored)",
        "candidate: gets mirrored requests; down",
        "! challenger 'candidate' is down, its circuit breaker is open on 1 of 1 worker",
        "50 %",  # half of the champion's exchanges timed out
        "p99.9",
        "100 ms",
        "ok 8",
        "breaker half_open 1",
        "20 eligible, 17 sent, 3 dropped (queue_full 3), 1 lost",
        "champion delays.p: 1 values, mean 0.25",
        "delays.label: 0 values, x 100 %",
        "the last configuration was refused: champion.url: nonsense",
        "rejected: header_too_large 4",
    ):
        assert text in shown


def test_json_is_the_status_document(
    plane: PlaneProcess, capsys: pytest.CaptureFixture[str]
) -> None:
    assert top.run(Client(plane.url + "/"), as_json=True) == 0
    document = json.loads(capsys.readouterr().out)
    assert document["records"]["eligible"] == 20


def read_to_end(terminal: int) -> None:
    """Read until the program at the other end has closed the terminal."""
    try:
        while os.read(terminal, 65536):
            pass
    except OSError:
        pass


def test_the_live_view_refreshes_and_ends_with_ctrl_c(plane: PlaneProcess) -> None:
    ours, theirs = pty.openpty()
    code = (
        "import signal, sys; from understudy.monitor.cli import top_view as top\n"
        # A shell that runs the tests in the background ignores Ctrl-C, and children inherit that.
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
        "from understudy.monitor.cli.client import Client\n"
        f"sys.exit(top.run(Client({plane.url!r}), interval=0.1))"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=theirs,
        stderr=theirs,
        env={**os.environ, "TERM": "xterm-256color", "COLUMNS": "120", "LINES": "50"},
    )
    os.close(theirs)
    try:
        shown = b""
        while shown.count(b"Understudy") < 3:
            shown += os.read(ours, 65536)
        process.send_signal(signal.SIGINT)
        read_to_end(ours)
        assert process.wait(PATIENCE) == 0
    finally:
        process.kill()
        os.close(ours)


def test_an_unreachable_service_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    assert top.run(Client(url), once=True) == 1
    said = capsys.readouterr().err
    assert f"{url}/v1/status" in said
    assert "understudy serve" in said
    assert "control.listen" in said


@pytest.mark.parametrize("body", ["<html>", "[]", "{}"])
@pytest.mark.parametrize("code", [200, 404])
def test_another_server_at_the_address_is_reported(
    capsys: pytest.CaptureFixture[str], body: str, code: int
) -> None:
    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(code)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Other) as server:
        thread = threading.Thread(target=server.handle_request)
        thread.start()
        assert top.run(Client(f"http://127.0.0.1:{server.server_port}"), once=True) == 1
        thread.join()
    assert "--url" in capsys.readouterr().err


def test_an_invalid_url_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    assert top.run(Client("127.0.0.1:9090"), once=True) == 1
    assert "--url" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "–"),
        (0.0000021, "2 µs"),
        (0.00123, "1.23 ms"),
        (0.0999, "100 ms"),
        (0.25, "250 ms"),
        (1.5, "1.5 s"),
        (123.4, "123 s"),
    ],
)
def test_durations(seconds: float | None, text: str) -> None:
    assert top.duration(seconds) == text
