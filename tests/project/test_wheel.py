"""The distribution as a user installs it: a wheel, in an environment that has nothing else.

Every program runs in a folder with files that have the names of our folders and of modules that we
import, each of which raises when it is imported.
"""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import tarfile
import threading
import urllib.request
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.documented import blocks, command
from tests.support.installed import ROOT, build, environment, install
from tests.support.patience import eventually
from tests.support.ports import free_port
from understudy import __version__

HOSTILE = (
    *("monitor", "shadow", "loadtest", "tests", "deploy", "understudy_state"),
    *("yaml", "logging", "numpy", "click", "queue"),
)
"""Modules that raise when they are imported."""
OURS = ("monitor", "shadow", "loadtest", "tests", "deploy", "understudy_state")
"""Those that a script of the user's own folder may stand beside."""
PURE = "pure Python: it was installed without the compiled form"

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]


@dataclass(frozen=True)
class Built:
    """``wheel`` from the tree, and ``again`` from the source distribution ``source``."""

    wheel: Path
    source: Path
    again: Path


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    folder = tmp_path_factory.mktemp("dist")
    build(folder / "tree", "--wheel")
    build(folder / "sdist")
    (wheel,) = (folder / "tree").glob("*.whl")
    (again,) = (folder / "sdist").glob("*.whl")
    (source,) = (folder / "sdist").glob("*.tar.gz")
    return Built(wheel, source, again)


@pytest.fixture(scope="module")
def programs(built: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of programs of an environment with the wheel and its extras."""
    home = tmp_path_factory.mktemp("environment") / "venv"
    return install(built.wheel, home, "[kafka,load]")


def make_hostile(folder: Path, names: tuple[str, ...] = HOSTILE) -> Path:
    folder.mkdir(exist_ok=True)
    for name in names:
        (folder / f"{name}.py").write_text(f"raise RuntimeError('imported {name}.py')\n")
    return folder


def run(programs: Path, cwd: Path, *words: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [programs / words[0], *map(str, words[1:])],
        capture_output=True,
        text=True,
        cwd=cwd,
        env=environment(programs),
        timeout=120,
    )


class _Model(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        body = b'{"predictions": [0.5]}'
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def model() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), _Model) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def content(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_the_wheel_holds_one_package_of_real_files(built: Built) -> None:
    with zipfile.ZipFile(built.wheel) as archive:
        names = set(archive.namelist())
        for item in archive.infolist():
            assert (item.external_attr >> 28) in (0o10, 0), f"{item.filename} is not a plain file"
    info = f"understudy_serving-{__version__}.dist-info"
    data = f"understudy_serving-{__version__}.data"
    assert {name.partition("/")[0] for name in names} == {"understudy", info, data}
    assert [name for name in names if name.startswith(data)] == [
        f"{data}/data/share/man/man1/understudy.1"
    ]
    assert "understudy/py.typed" in names
    assert not [name for name in names if "__pycache__" in name]
    for folder in ("monitor", "shadow", "loadtest"):
        have = {
            f"understudy/{path.relative_to(ROOT)}"
            for path in (ROOT / folder).rglob("*")
            if path.is_file() and "__pycache__" not in path.parts
        }
        assert have
        assert have == {name for name in names if name.startswith(f"understudy/{folder}/")}
    with zipfile.ZipFile(built.wheel) as archive:
        points = archive.read(f"{info}/entry_points.txt").decode()
    assert points.split() == ["[console_scripts]", "understudy", "=", *points.split()[3:]]
    assert points.split()[3:] == ["understudy.monitor.cli.main:main"]


def test_the_source_distribution_gives_the_same_wheel(built: Built) -> None:
    with tarfile.open(built.source) as archive:
        members = archive.getmembers()
        assert all(member.isfile() or member.isdir() for member in members)
        names = {member.name.partition("/")[2] for member in members if member.isfile()}
    assert {"pyproject.toml", "README.md", "LICENSE", "understudy/monitor/cli/main.py"} <= names
    assert content(built.again) == content(built.wheel)


def test_this_environment_has_the_package_editable() -> None:
    import understudy
    from understudy.monitor.cli import main

    if Path(understudy.__file__).parent != ROOT / "understudy":
        pytest.skip("NOT TESTED: this environment has no editable installation")
    assert Path(main.__file__).resolve() == ROOT / "monitor" / "cli" / "main.py"


def test_commands_run_in_a_hostile_folder(programs: Path, tmp_path: Path) -> None:
    folder = make_hostile(tmp_path / "work")
    (folder / "understudy.yaml").write_text(
        "version: 1\nlisten: 127.0.0.1:0\nmodels: [{name: m}]\n"
        "champion: {url: 'http://127.0.0.1:9'}\n"
    )
    for words, said in (
        (("understudy", "version"), f"understudy {__version__} ({PURE})\n"),
        (("python", "-m", "understudy", "version"), f"understudy {__version__} ({PURE})\n"),
        (("understudy", "config", "check", "understudy.yaml"), "understudy.yaml: valid\n"),
        (("python", "-m", "understudy", "config", "check", "understudy.yaml"),
         "understudy.yaml: valid\n"),
    ):  # fmt: skip
        done = run(programs, folder, *words)
        assert (done.returncode, done.stdout, done.stderr) == (0, said, ""), words
    shown = run(programs, folder, "understudy", "--help")
    assert "fault-proxy" in shown.stdout
    listed = run(programs, folder, "python", "-P", "-c",
                 "import understudy; print(understudy.__file__)")  # fmt: skip
    assert Path(listed.stdout.strip()).is_relative_to(programs.parent)


def test_the_service_runs_in_a_hostile_folder(programs: Path, tmp_path: Path, model: str) -> None:
    folder = make_hostile(tmp_path / "work")
    listen, control = free_port(), free_port()
    (folder / "understudy.yaml").write_text(
        f"version: 1\nlisten: 127.0.0.1:{listen}\nworkers: 1\nstate_dir: {tmp_path / 'state'}\n"
        f"control: {{listen: '127.0.0.1:{control}'}}\nmodels: [{{name: m}}]\n"
        f"champion: {{url: '{model}'}}\n"
    )
    with open(tmp_path / "log", "w") as log:
        process = subprocess.Popen(
            [programs / "understudy", "serve"], cwd=folder, env=environment(programs), stderr=log
        )
    try:

        def healthy() -> bool:
            assert process.poll() is None, (tmp_path / "log").read_text()
            with urllib.request.urlopen(f"http://127.0.0.1:{control}/healthz", timeout=5) as answer:
                return bool(answer.status == 200)

        eventually(healthy, seconds=60)
        address = f"http://127.0.0.1:{listen}/v1/models/m:predict"
        data = json.dumps({"instances": [[1.0]]}).encode()

        def answered() -> bool:
            with urllib.request.urlopen(address, data, timeout=5) as answer:
                return bool(json.load(answer) == {"predictions": [0.5]})

        eventually(answered)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    finally:
        process.kill()
    assert "imported" not in (tmp_path / "log").read_text()


def test_the_gate_runs_in_a_hostile_folder(programs: Path, tmp_path: Path, model: str) -> None:
    folder = make_hostile(tmp_path / "work")
    (folder / "gate.yaml").write_text(
        "version: 1\nobjectives: {errors: 50 %}\n"
        "payloads: {template: {instances: [[1.0]]}, path: /v1/models/m:predict}\n"
        "stages:\n  - {name: short, load: {rate: 100, seconds: 3}}\n"
    )
    done = run(programs, folder, "understudy", "gate", "--target", model, "--plan", "gate.yaml",
               "--json")  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert json.loads(done.stdout)["verdict"] == "passed"


def test_the_documented_locust_command_runs_beside_files_with_our_names(
    programs: Path, tmp_path: Path, model: str
) -> None:
    """The file and the words of docs/gate.md, but for the address of the server."""
    folder = make_hostile(tmp_path / "work", OURS)
    (file,) = blocks("gate.md", "Locust", "python")
    (folder / "locustfile.py").write_text(file)
    words = command("gate.md", "Locust", "--headless")
    assert words[-2] == "--host"
    done = run(programs, folder, *words[:-1], model, "--json")
    assert done.returncode == 0, done.stderr
    assert "imported" not in done.stderr
    (entry,) = json.loads(done.stdout)
    assert entry["num_requests"] > 0
    assert entry["num_failures"] == 0


def test_the_middleware_runs_beside_files_with_our_names(
    programs: Path, tmp_path: Path, model: str
) -> None:
    folder = make_hostile(tmp_path / "work", OURS)
    (folder / "app.py").write_text(
        "import asyncio, sys, time\n"
        "from understudy.monitor.ingest.asgi import UnderstudyMiddleware\n\n"
        "async def model(scope, receive, send):\n"
        "    await receive()\n"
        "    await send({'type': 'http.response.start', 'status': 200, 'headers': []})\n"
        "    await send({'type': 'http.response.body', 'body': b'[0.5]'})\n\n"
        "async def ask():\n"
        "    sent = []\n"
        "    async def receive(): return {'type': 'http.request', 'body': b'[1]'}\n"
        "    async def send(message): sent.append(message)\n"
        "    scope = {'type': 'http', 'method': 'POST', 'path': '/', 'headers': []}\n"
        "    await app(scope, receive, send)\n"
        "    return sent\n\n"
        "app = UnderstudyMiddleware(model, url=sys.argv[1], model='m')\n"
        "assert len(asyncio.run(ask())) == 2\n"
        "until = time.monotonic() + 20\n"
        "while app.sent < 1 and time.monotonic() < until: time.sleep(0.05)\n"
        "print(app.sent, app.dropped)\n"
    )
    done = run(programs, folder, "python", "app.py", model)
    assert (done.stdout, done.stderr) == ("1 0\n", "")


def test_the_hostile_files_are_hostile(programs: Path, tmp_path: Path) -> None:
    folder = make_hostile(tmp_path / "work")
    for name in HOSTILE:
        done = run(programs, folder, "python", "-c", f"import {name}")
        assert f"imported {name}.py" in done.stderr
    assert shutil.which("understudy", path=str(programs)) is not None
