"""The live views on real terminals of several sizes, read from the screen."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from tests.support.plane_process import PlaneProcess
from tests.support.running_experiment import NOW, running
from tests.support.terminal import Terminal, understudy
from tests.support.traffic import count_traffic
from understudy.common.live import keys_in
from understudy.common.screen import shortened
from understudy.monitor.experiments.summary import document

SIZES = [(80, 24), (60, 20), (120, 40), (200, 50)]
LONG = "candidate-2026-11-30-with-a-name-as-pipelines-make-them-7f3a"
INCIDENT = {
    "id": "i20261123T221530-7",
    "headline": "delays: dep_delay_min is missing from 40 % of the requests, and temp_f has moved",
    "severity": "critical",
    "age_seconds": 125.0,
    "acknowledged": False,
    "open": 2,
    "findings": [],
}


class Answers:
    """A control API that answers each path with the same document."""

    def __init__(self, documents: dict[str, Any]) -> None:
        self.documents = documents
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                found = outer.documents.get(self.path.partition("?")[0])
                body = json.dumps(found if found is not None else {}).encode()
                self.send_response(200 if found is not None else 404)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    def __enter__(self) -> Answers:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture(scope="module")
def status(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a real evaluation plane says, with a finding and a long name."""
    plane = PlaneProcess(tmp_path_factory.mktemp("plane"))
    count_traffic(plane.stats())
    with plane:
        found: dict[str, Any] = plane.status()
    found["findings"] = {"open": 2, "open_incidents": 1, "incidents": [INCIDENT]}
    found["arms"][1]["arm"] = LONG
    return found


@pytest.fixture
def service(status: dict[str, Any]) -> Iterator[Answers]:
    live = running(3_000, 0.7)
    experiment = document(live, NOW + 200.0)
    open_ = document(running(60, 0.92), NOW + 200.0)
    answers = {
        "/v1/status": json.loads(json.dumps(status)),
        "/v1/experiments/x": json.loads(json.dumps(open_)),
        "/v1/experiments/over": json.loads(json.dumps(experiment)),
    }
    for one in answers["/v1/experiments/over"]["challengers"]:
        one["phase"] = "rolled_back"
    with Answers(answers) as server:
        yield server


def whole_words(text: str, words: list[str]) -> list[str]:
    """Those of the words that no line of the screen holds."""
    return [word for word in words if not any(word in line for line in text.splitlines())]


@pytest.mark.parametrize(("columns", "lines"), SIZES)
def test_top_cuts_nothing_and_says_who_serves_and_what_is_found(
    service: Answers, columns: int, lines: int
) -> None:
    with Terminal(understudy("top", "--url", service.url), columns, lines) as terminal:
        screen = terminal.wait_for(lambda text: "q quit" in text)
        assert not whole_words(screen, ["window", "per s", "errors", "p99.9", "10 s"]), screen
        flat = " ".join(screen.split())
        assert "champion: should serve 100 %; no traffic" in flat, screen
        assert INCIDENT["headline"] in flat
        assert LONG in flat, "the lines say the whole name, whatever the table has room for"
        assert "champion" in screen.split("arm ")[-1]
        terminal.press("q")
        assert terminal.ends() == 0
        assert b"\x1b[?25h" in terminal.raw, "the cursor is shown again"
        assert b"\x1b[?1049l" in terminal.raw, "the screen is as before"


def test_top_scrolls_by_keys_and_follows_the_size(service: Answers) -> None:
    with Terminal(understudy("top", "--url", service.url), 80, 12) as terminal:
        first = terminal.wait_for(lambda text: "lines 1–11 of" in text)
        assert "Understudy" in first.splitlines()[0]
        terminal.press("j")
        terminal.wait_for(lambda text: "lines 2–12 of" in text)
        terminal.press("\x1b[A")
        terminal.wait_for(lambda text: "lines 1–11 of" in text)
        terminal.press("G")
        end = terminal.wait_for(lambda text: "workers:" in text)
        assert "Understudy" not in end.splitlines()[0]
        terminal.press("g")
        terminal.wait_for(lambda text: "Understudy" in text.splitlines()[0])
        terminal.resize(80, 60)
        terminal.wait_for(lambda text: "workers:" in text and "scroll" not in text)
        terminal.press("\x03")
        assert terminal.ends() == 0


@pytest.mark.parametrize(("columns", "lines"), SIZES)
def test_watch_cuts_nothing(service: Answers, columns: int, lines: int) -> None:
    command = understudy("experiment", "watch", "x", "--url", service.url)
    with Terminal(command, columns, lines) as terminal:
        screen = terminal.wait_for(lambda text: "q quit" in text)
        wanted = ["accuracy", "error_rate", "undecided", "candidate", "│", "░"]
        assert not whole_words(screen, wanted), screen
        terminal.press("q")
        assert terminal.ends() == 0


def test_watch_leaves_the_last_frame_of_an_experiment_that_has_ended(service: Answers) -> None:
    command = understudy("experiment", "watch", "over", "--url", service.url)
    with Terminal(command, 80, 24) as terminal:
        assert terminal.ends() == 0
        assert "rolled back" in terminal.text
        assert "q quit" not in terminal.text


def test_a_view_quits_while_the_service_hangs(service: Answers, status: dict[str, Any]) -> None:
    with Terminal(understudy("top", "--url", service.url), 80, 24) as terminal:
        terminal.wait_for(lambda text: "q quit" in text)
        service.documents.clear()
        terminal.wait_for(lambda text: "--url" in text)
        service.documents["/v1/status"] = status
        terminal.wait_for(lambda text: "in flight" in text)
        terminal.press("q")
        assert terminal.ends() == 0


def test_streams_are_json_lines(service: Answers, tmp_path: Path) -> None:
    import subprocess

    for arguments in (("watch", "over"), ("watch", "x", "--once")):
        done = subprocess.run(
            understudy("experiment", *arguments, "--json", "--url", service.url),
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert done.returncode == 0, done.stderr
        (line,) = done.stdout.splitlines()
        assert json.loads(line)["name"] == "x"


def test_keys() -> None:
    assert list(keys_in(b"jk\x1b[A\x1b[6~xq")) == ["down", "up", "up", "page down", "quit"]
    assert list(keys_in(b"\x1b[99;5Z")) == []


def test_names_are_shortened_in_the_middle() -> None:
    assert shortened("candidate-2026-a", 16) == "candidate-2026-a"
    assert shortened("candidate-2026-a", 9) == "cand…26-a"
