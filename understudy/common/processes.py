"""Child processes whose output goes to a file, and free ports for them."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from understudy.common.tied import tied

_LINES = 8
_claims: list[socket.socket] = []


class ProcessFailed(Exception):
    """A process ended although it is needed; the message holds the end of its output."""


def free_port(host: str = "127.0.0.1") -> int:
    """A TCP port of ``host`` on which no process listens now."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        return int(probe.getsockname()[1])


def port_or_free(wanted: int, host: str = "127.0.0.1") -> int:
    """``wanted``, if no process listens there; else another free port.

    Two commands that start at the same time get different ports: the one that comes first claims
    ``wanted`` until its process ends, by the name of a socket, and listens there a second later.
    """
    claim = socket.socket(socket.AF_UNIX)
    try:
        claim.bind(f"\0understudy-port-{wanted}")
    except OSError:
        claim.close()
        return free_port(host)
    _claims.append(claim)
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, wanted))
            probe.listen(1)  # a socket that is bound to all addresses shows only here
            return wanted
        except OSError:
            return free_port(host)


class Process:
    """A child process, with its output appended to ``log``.

    It leads a process group of its own, so Ctrl-C in a terminal reaches only the parent, which then
    stops its children in the right order. A parent that is killed takes it along: it gets SIGTERM.
    """

    def __init__(
        self,
        name: str,
        command: Sequence[str],
        log: Path,
        cwd: Path | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        self.name = name
        self.log = log
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("a") as output:
            self._process = subprocess.Popen(
                tied(list(command)),
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                cwd=cwd,
                env={**os.environ, **(environment or {})},
                process_group=0,
            )

    @property
    def pid(self) -> int:
        """Process id."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._process.poll() is None

    def send(self, number: signal.Signals) -> None:
        """Send a signal, if it runs."""
        if self.alive:
            with contextlib.suppress(ProcessLookupError):
                self._process.send_signal(number)

    def stop(self, patience: float = 30.0) -> int:
        """Ask it to end, and kill it after ``patience`` seconds; return its exit code."""
        self.send(signal.SIGCONT)
        self.send(signal.SIGTERM)
        try:
            return self._process.wait(timeout=patience)
        except subprocess.TimeoutExpired:
            self.kill()
            return self._process.wait()

    def kill(self) -> None:
        """Kill it, and wait until it has ended."""
        self.send(signal.SIGKILL)
        self._process.wait()

    def wait_until(self, check: Callable[[], bool], seconds: float) -> float:
        """Wait until ``check`` is true; return how long it took. OSError counts as false.

        Raises ProcessFailed when the process ends before that, or after ``seconds``.
        """
        started = time.monotonic()
        while (waited := time.monotonic() - started) < seconds:
            if not self.alive:
                raise ProcessFailed(f"{self.name} ended while starting:\n{self.tail()}")
            with contextlib.suppress(OSError):
                if check():
                    return waited
            time.sleep(0.03)
        raise ProcessFailed(f"{self.name} did not answer within {seconds:.0f} s:\n{self.tail()}")

    def tail(self, lines: int = _LINES) -> str:
        """The end of its output, indented."""
        try:
            text = self.log.read_text(errors="replace").splitlines()[-lines:]
        except OSError:
            text = []
        return "\n".join(f"    {line}" for line in text)
