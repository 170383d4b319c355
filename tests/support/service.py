"""A running service: the supervisor in a separate process, with real or with small children."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

from tests.support.patience import eventually, patient

PATIENCE = patient(30.0)
ROOT = Path(__file__).resolve().parents[2]
SMALL = (sys.executable, str(Path(__file__).with_name("small_supervisor.py")))
REAL = (sys.executable, "-m", "understudy", "serve", "--config")


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Service:
    """``understudy serve`` with a configuration in ``folder``."""

    def __init__(self, folder: Path, command: tuple[str, ...] = SMALL, **config: Any) -> None:
        self.folder = folder
        self.command = command
        self.config: dict[str, Any] = {
            "version": 1,
            "listen": "127.0.0.1:0",
            "control": {"listen": "127.0.0.1:0"},
            "workers": 2,
            "state_dir": "state",
            "models": [{"name": "m"}],
            "champion": {"url": "http://127.0.0.1:9"},
            **config,
        }
        self.state = folder / "state"
        self.file = folder / "understudy.yaml"
        self.output: list[str] = []
        self.errors: list[str] = []
        self.process: subprocess.Popen[str] | None = None
        self._readers: list[threading.Thread] = []
        self.state.mkdir(exist_ok=True)

    def write(self, **changes: Any) -> None:
        self.config |= changes
        self.file.write_text(json.dumps(self.config))

    def start(self, wait: bool = True, **environment: str) -> Service:
        self.write()
        self.output, self.errors = [], []
        self.process = subprocess.Popen(
            [*self.command, str(self.file)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
        )
        for stream, lines in (
            (self.process.stdout, self.output),
            (self.process.stderr, self.errors),
        ):
            reader = threading.Thread(target=self._read, args=(stream, lines), daemon=True)
            reader.start()
            self._readers.append(reader)
        if wait:
            eventually(lambda: self.output or self.process_ended())
            assert self.output, self.log
        return self

    @staticmethod
    def _read(stream: Any, lines: list[str]) -> None:
        for line in stream:
            lines.append(line)

    def process_ended(self) -> bool:
        assert self.process is not None
        return self.process.poll() is not None

    @property
    def log(self) -> str:
        return "".join(self.errors)

    @property
    def pid(self) -> int:
        assert self.process is not None
        return self.process.pid

    @property
    def url(self) -> str:
        """Where clients connect, from the line that says that it is ready."""
        return self.output[0].partition("ready: ")[2].split()[0]

    @property
    def control(self) -> str:
        return self.output[0].partition("status ")[2].split()[0].rstrip("/")

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def wait(self) -> int:
        assert self.process is not None
        code = self.process.wait(PATIENCE)
        for reader in self._readers:
            reader.join(PATIENCE)
        return code

    def stop(self) -> int:
        self.signal(signal.SIGTERM)
        return self.wait()

    def heard(self, name: str) -> list[dict[str, Any]]:
        """What a small child has written down."""
        path = self.state / f"heard-{name}.jsonl"
        if not path.exists():
            return []
        return [json.loads(line) for line in path.read_text().splitlines()]

    def children(self) -> set[int]:
        """Process ids of the supervisor's children."""
        path = Path(f"/proc/{self.pid}/task/{self.pid}/children")
        return {int(pid) for pid in path.read_text().split()}

    def __enter__(self) -> Service:
        return self if self.process is not None else self.start()

    def __exit__(self, *_: object) -> None:
        assert self.process is not None
        children = set()
        if self.process.poll() is None:
            children = self.children()
            self.process.terminate()
            try:
                self.process.wait(patient(5))
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
        for child in children:
            if alive(child):
                os.kill(child, signal.SIGKILL)
