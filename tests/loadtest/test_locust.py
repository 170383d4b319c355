"""Locust over the engine: its own users run beside ours, and workers report to their master."""

from __future__ import annotations

import csv
import importlib.util
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx
import pytest

from tests.support.documented import blocks, command
from tests.support.load_server import Server, written
from tests.support.patience import eventually, patient
from tests.support.ports import free_port

# Found, not imported: it would replace the sockets and threads of these tests by gevent's.
pytestmark = pytest.mark.skipif(
    importlib.util.find_spec("locust") is None,
    reason="NOT TESTED: Locust is not installed: pip install 'understudy-serving[load]'",
)

FILE = """
from locust import HttpUser, constant, task
from understudy.loadtest.locust.user import OpenLoopUser

class Predictions(OpenLoopUser):
    path = "/open"
    rate = 60.0
    limit = 10.0
    fixed_count = 2
    template = {"a": {"$uniform": [0, 1]}}

class Plain(HttpUser):
    wait_time = constant(0.2)
    @task
    def one(self):
        self.client.post("/plain", json={})
"""

QUIT = """
import gevent
from locust import events

@events.init.add_listener
def quit_after_some_requests(environment, **_):
    def wait():
        while environment.stats.total.num_requests < 50:
            gevent.sleep(0.1)
        gevent.sleep(3.0)  # Locust writes its files once a second
        environment.runner.quit()
    gevent.spawn(wait)
"""
"""Ends a run without a web page when requests have ended, however long that takes."""


LOCUST = Path(sys.executable).with_name("locust")
"""The command that users type, not ``python -m locust``."""


def started(folder: Path, words: list[str]) -> subprocess.Popen[str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    return subprocess.Popen(
        [LOCUST, *words[1:]], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True, env={**kept, "PYTHONUNBUFFERED": "1"},
    )  # fmt: skip


def locust(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    return started(folder, ["locust", "-f", "locustfile.py", *arguments])


def figures(folder: Path) -> dict[str, dict[str, str]]:
    with open(folder / "r_stats.csv") as file:
        return {row["Name"]: row for row in csv.DictReader(file)}


def test_users_of_both_kinds_run_on_workers_and_are_counted(tmp_path: Path) -> None:
    written(tmp_path, "locustfile.py", FILE)
    port, web = str(free_port()), free_port()
    page = f"http://127.0.0.1:{web}"
    with Server(seconds=0.01) as server:
        host = ("--host", server.url)
        master = locust(
            tmp_path, "--autostart", "--autoquit", "1", "--web-host", "127.0.0.1", "--web-port",
            str(web), "--master", "--master-bind-port", port, "--expect-workers",
            "2", "-u", "4", "-r", "4", "-t", "30s", "--csv", str(tmp_path / "r"), *host,
        )  # fmt: skip
        started = time.monotonic()
        workers = [locust(tmp_path, "--worker", "--master-port", port) for _ in range(2)]
        eventually(lambda: "Locust" in httpx.get(page).text)
        # What the workers have measured adds up in the master while it runs.
        (lag,) = eventually(
            lambda: [one for one in httpx.get(f"{page}/send-lag").json() if one["requests"]]
        )
        assert (lag["name"], lag["limit"], lag["valid"]) == ("/open", 10.0, True)
        assert lag["p99"] >= 0.009

        said = master.communicate(timeout=patient(90))[0]
        seconds = time.monotonic() - started
        for worker in workers:
            worker.communicate(timeout=patient(30))
    assert master.returncode == 0, said
    assert "send lag p50" in said
    found = figures(tmp_path)
    assert int(found["/plain"]["Request Count"]) >= 1
    # Two dispatchers of 60 per second send a Poisson number, for less than the whole run.
    expected = 2 * 60 * seconds
    assert 50 <= int(found["/open"]["Request Count"]) <= expected + 5 * expected**0.5
    assert found["/open"]["Failure Count"] == "0"
    # In milliseconds: the server takes ten, and no response takes longer than the run.
    assert 9.0 <= float(found["/open"]["50%"]) <= float(found["/open"]["100%"]) < 1e3 * seconds


def test_a_run_whose_senders_were_late_is_invalid(tmp_path: Path) -> None:
    """A limit of a microsecond makes every sender late."""
    late = FILE.replace("limit = 10.0", "limit = 1e-6").split("class Plain")[0]
    written(tmp_path, "locustfile.py", late + QUIT)
    with Server() as server:
        one = locust(tmp_path, "--headless", "-u", "2", "-r", "2", "--host", server.url)
        said = one.communicate(timeout=patient(60))[0]
    assert one.returncode == 2, said
    assert "INVALID /open: " in said


def test_answers_are_judged_as_by_the_gate(tmp_path: Path) -> None:
    """By the path, by `checks` of the user, and not at all, which is said."""
    users = """
from understudy.loadtest.locust.user import OpenLoopUser

class One(OpenLoopUser):
    path, rate, fixed_count = "/error/v1/models/m:predict", 60.0, 1
    template = {"instances": [[1.0]]}

class Two(One):
    path, template = "/v1/models/m:predict", {"instances": [[1.0], [2.0]]}

class Three(Two):
    path = "/three/v1/models/m:predict"
    checks = {"row_count": "any", "schema": {"required": ["predictions"]}}

class Four(One):
    path = "/four"
"""
    each = "min([one.num_requests for one in environment.stats.entries.values()] * "
    each += "(len(environment.stats.entries) == 4) or [0])"
    quits = QUIT.replace("environment.stats.total.num_requests", each)
    assert quits != QUIT
    written(tmp_path, "locustfile.py", users + quits)
    with Server() as server:
        one = locust(tmp_path, "--headless", "-u", "4", "-r", "4", "--host", server.url, "--csv",
                     str(tmp_path / "r"))  # fmt: skip
        said = one.communicate(timeout=patient(60))[0]
    assert one.returncode == 1, said
    found = figures(tmp_path)
    wrong = {name: int(row["Failure Count"]) / int(row["Request Count"]) for name, row in found.items()
             if name != "Aggregated"}  # fmt: skip
    assert wrong == {
        "/error/v1/models/m:predict": 1.0, "/v1/models/m:predict": 1.0,
        "/three/v1/models/m:predict": 0.0, "/four": 0.0,
    }, said  # fmt: skip
    assert "an error in a 2xx response" in said
    assert "1 rows in the response to 2" in said
    assert "note: /four: answers were not looked at, only their status" in said
    assert said.count("were not looked at") == 1


def test_checks_that_are_not_valid_name_the_key(tmp_path: Path) -> None:
    file = FILE.split("class Plain")[0] + '    checks = {"shema": {}}\n'
    written(tmp_path, "locustfile.py", file)
    with Server() as server:
        one = locust(tmp_path, "--headless", "-u", "2", "-r", "2", "-t", "3s", "--host", server.url)
        said = one.communicate(timeout=patient(60))[0]
    assert one.returncode == 2, said
    assert "Predictions.checks.shema: unknown key; did you mean 'schema'?" in said


def test_an_exit_code_of_the_user_does_not_hide_an_invalid_run(tmp_path: Path) -> None:
    """The words of Locust's own documentation, by which a run with few failures exits with 0."""
    code = """
from locust import events

@events.quitting.add_listener
def own(environment, **_):
    environment.process_exit_code = 1 if environment.stats.total.fail_ratio > 0.01 else 0
"""
    late = FILE.split("class Plain")[0].replace("limit = 10.0", "limit = 1e-6")
    for text in (late + code + QUIT, code + late + QUIT):
        written(tmp_path, "locustfile.py", text)
        with Server() as server:
            one = locust(tmp_path, "--headless", "-u", "2", "-r", "2", "--host", server.url)
            said = one.communicate(timeout=patient(60))[0]
        assert one.returncode == 2, said


def test_failures_are_locust_s_failures(tmp_path: Path) -> None:
    written(
        tmp_path, "locustfile.py", FILE.replace("/open", "/broken").split("class Plain")[0] + QUIT
    )
    with Server() as server:
        one = locust(
            tmp_path, "--headless", "-u", "2", "-r", "2", "--host", server.url, "--csv",
            str(tmp_path / "r"),
        )  # fmt: skip
        said = one.communicate(timeout=patient(60))[0]
    assert one.returncode == 1, said
    found = figures(tmp_path)["/broken"]
    assert found["Failure Count"] == found["Request Count"] != "0"
    assert "status 503" in said


def test_the_documented_command_measures(tmp_path: Path) -> None:
    """The words of docs/gate.md, but for the address of the server, in a folder with nothing but
    the documented file; ended as by Ctrl-C once there are requests."""
    (file,) = blocks("gate.md", "Locust", "python")
    written(tmp_path, "locustfile.py", file)
    words = command("gate.md", "Locust", "--headless")
    assert words[-2] == "--host"
    with Server() as server:
        one = started(tmp_path, [*words[:-1], server.url])
        assert one.stdout is not None
        lines = []
        for line in one.stdout:
            lines.append(line)
            cells = line.split()
            if cells[:1] == ["POST"] and int(cells[2]) > 0:
                break
        one.send_signal(signal.SIGINT)
        said = "".join(lines) + one.communicate(timeout=patient(60))[0]
    assert one.returncode == 0, said
    assert "/v2/models/m/infer: " in said
    assert "INVALID" not in said
    assert "were not looked at" not in said, "the path says what answers look like"
    assert said.count("Starting Locust") == 1, "a sender ran the script of Locust again"
    assert "Traceback" not in said


def test_a_run_without_requests_is_invalid(tmp_path: Path) -> None:
    """None of a user's is due before the run ends."""
    file = FILE.split("class Plain")[0].replace("rate = 60.0", "rate = 1e-6")
    written(tmp_path, "locustfile.py", file)
    with Server() as server:
        one = locust(tmp_path, "--headless", "-u", "2", "-r", "2", "-t", "2s", "--host", server.url)
        said = one.communicate(timeout=patient(60))[0]
    assert one.returncode == 2, said
    assert "INVALID /open: no request has ended, so nothing was measured" in said


def test_a_run_without_users_is_invalid(tmp_path: Path) -> None:
    written(tmp_path, "locustfile.py", FILE.split("class Plain")[0])
    one = locust(tmp_path, "--headless", "-u", "0", "-t", "1s", "--host", "http://127.0.0.1:1")
    said = one.communicate(timeout=patient(60))[0]
    assert one.returncode == 2, said
    assert "INVALID the run: " in said


DISTRIBUTED = r"""
import json, subprocess, sys, threading, time, urllib.request
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

class Model(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_POST(self):
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        answer = b'{"outputs": [{"name": "y", "shape": [1], "datatype": "FP64", "data": [0.5]}]}'
        self.send_header("content-length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)
    def log_message(self, *_):
        pass

def ask(path, data=None):
    with urllib.request.urlopen("http://127.0.0.1:8089" + path, data, timeout=10) as response:
        return json.load(response)

def until(check):
    end = time.monotonic() + float(sys.argv[1])
    while time.monotonic() < end:
        try:
            if check():
                return
        except OSError:
            pass
        time.sleep(0.1)
    raise SystemExit(f"did not come true: {check.__doc__}")

def ready():
    "both workers are there"
    return ask("/stats/requests")["worker_count"] == 2

def measured():
    "requests are counted"
    return sum(one["requests"] for one in ask("/send-lag")) > 0

server = ThreadingHTTPServer(("10.0.0.5", 8080), Model)
threading.Thread(target=server.serve_forever, daemon=True).start()
master, worker = (json.loads(text) for text in sys.argv[2:])
leader = subprocess.Popen(master)
followers = [subprocess.Popen(worker) for _ in range(2)]
try:
    until(ready)
    ask("/swarm", b"user_count=2&spawn_rate=2&host=http://10.0.0.5:8080")
    until(measured)
    ask("/stop", b"")
    leader.terminate()
    codes = [one.wait(60) for one in (leader, *followers)]
finally:
    for one in (leader, *followers):
        one.kill()
print("codes", *codes)
"""
"""Starts the documented master and workers, and the run by the master's web page."""


def test_the_documented_master_and_workers_measure(tmp_path: Path) -> None:
    """The words of docs/gate.md, with their addresses, in a network of their own."""
    (file,) = blocks("gate.md", "Locust", "python")
    written(tmp_path, "locustfile.py", file)
    script = written(tmp_path, "run.py", DISTRIBUTED)
    words = [
        json.dumps([str(LOCUST), *command("gate.md", "Locust", part)[1:]])
        for part in ("--master ", "--worker ")
    ]
    network = "ip link set lo up && ip addr add 10.0.0.2 dev lo && ip addr add 10.0.0.5 dev lo"
    done = subprocess.run(
        ["unshare", "--map-root-user", "--net", "sh", "-c", f'{network} || exit 77; exec "$@"', "sh",
         sys.executable, "-P", str(script), str(patient(60)), *words],
        cwd=tmp_path, capture_output=True, text=True, timeout=patient(200),
    )  # fmt: skip
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip(f"NOT TESTED: no network of its own here: {done.stderr[-200:]}")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "codes 0 0 0", done.stdout + done.stderr
    assert "/v2/models/m/infer: " in done.stderr
    assert "INVALID" not in done.stderr
