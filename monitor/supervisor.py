"""The supervisor: one validated configuration, N workers, one evaluation plane.

It owns the listening sockets, so that a worker that dies leaves its queue of connections to its
successor; restarts what dies; hands a new configuration to everybody or to nobody; and stops in the
right order, the workers first, so that the last records still find somebody to take them.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import json
import logging
import os
import secrets
import shutil
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from monitor.config.compile import compile_plan, plan_json, worker_count
from monitor.config.fields import split_address
from monitor.config.load import load
from monitor.config.model import Config
from monitor.errors import ConfigError, StateError, UnderstudyError
from monitor.processes import Child

log = logging.getLogger(__name__)

BACKLOG = 4096
FLUSH_PATIENCE = 6.0
"""How long a drained worker may take to hand over its last records."""
EVALUATION_PATIENCE = 10.0
FIXED = ("listen", "control", "workers", "state_dir")
"""Settings that only a restart can change."""


class ListenError(UnderstudyError):
    """The address to listen on cannot be had."""

    exit_code = 2


class Supervisor:
    """Runs until told to stop; see the module.

    ``worker`` and ``evaluation`` are the commands to run, for tests that bring their own children.
    """

    def __init__(
        self,
        config_path: Path,
        on_ready: Callable[[Supervisor], None],
        worker: Sequence[str] = (sys.executable, "-m", "monitor.proxy.worker"),
        evaluation: Sequence[str] = (sys.executable, "-m", "monitor.evaluation"),
    ) -> None:
        self._config_path = config_path
        self._on_ready = on_ready
        self._worker_command = tuple(worker)
        self._evaluation_command = tuple(evaluation)
        self.config: Config = load(config_path)
        self.config_error: str | None = None
        self.generation = 1
        self.run_id = secrets.token_hex(8)
        self.run_dir = Path(self.config.state_dir) / "run"
        self._listeners: list[socket.socket] = []
        self.workers: list[Child] = []
        self.evaluation: Child | None = None
        self._stop = asyncio.Event()
        self._announced = False
        self._lock: int | None = None

    @property
    def address(self) -> str:
        """Where clients connect, with the port that was really taken."""
        host, port = self._listeners[0].getsockname()[:2]
        return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

    async def run(self) -> None:
        """Start everything, wait for SIGTERM or SIGINT, stop everything.

        Raises StateError or ListenError when it cannot start.
        """
        self._prepare_run_dir()
        try:
            self._listen()
            self._write_files()
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._on_stop_signal)
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
            self.evaluation = self._child(
                "evaluation plane",
                [*self._evaluation_command, "--config-json", str(self.run_dir / "config.json")],
                (),
            )
            for slot, listener in enumerate(self._listeners):
                command = [
                    *self._worker_command,
                    *("--plan", str(self.run_dir / "plan.json")),
                    *("--slot", str(slot), "--listen-fd", str(listener.fileno())),
                ]
                self.workers.append(self._child(f"worker {slot}", command, (listener.fileno(),)))
            await self._stop.wait()
            await self._shut_down()
        finally:
            for listener in self._listeners:
                listener.close()
            if self._lock is not None:
                os.close(self._lock)

    def stop(self) -> None:
        """Begin to stop, as SIGTERM does."""
        self._stop.set()

    def reload(self) -> None:
        """Read the file again. Raises ConfigError and keeps the running configuration."""
        try:
            config = load(self._config_path)
        except ConfigError as error:
            self.config_error = str(error)
            log.error("configuration not taken over, the running one stays: %s", error)
            self._push_status()
            raise
        fixed = {name: getattr(self.config, name) for name in FIXED}
        for name in FIXED:
            if getattr(config, name) != fixed[name] and not self._only_certificate(config, name):
                log.warning("%s has changed: that needs a restart; the old value stays", name)
        if self._only_certificate(config, "listen"):
            del fixed["listen"]
        self.config = config.model_copy(update=fixed)
        self.config_error = None
        self.generation += 1
        self._write_files()
        plan = str(self.run_dir / "plan.json")
        for worker in self.workers:
            worker.tell({"do": "reload", "plan": plan})
        if self.evaluation is not None:
            self.evaluation.tell({"do": "reload", "config": str(self.run_dir / "config.json")})
        log.info("configuration %d is in force", self.generation)
        self._push_status()

    def _only_certificate(self, config: Config, name: str) -> bool:
        old, new = self.config.listen, config.listen
        same_kind = (old.tls is None) == (new.tls is None)
        return name == "listen" and old.address == new.address and same_kind

    # Starting -----------------------------------------------------------------------------------

    def _prepare_run_dir(self) -> None:
        state = Path(self.config.state_dir)
        try:
            state.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._lock = os.open(state / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateError(
                f"state_dir: {state} is in use by another understudy; give this one its own"
            ) from error
        except OSError as error:
            raise StateError(f"state_dir: {state} cannot be used: {error.strerror}") from error
        shutil.rmtree(self.run_dir, ignore_errors=True)
        self.run_dir.mkdir(mode=0o700)
        if len(str(self.run_dir / "records.sock")) > 100:
            raise StateError(f"state_dir: the path {state} is too long for a Unix socket in it")

    def _listen(self) -> None:
        host, port = split_address(self.config.listen.address)
        try:
            family, _, _, _, address = socket.getaddrinfo(
                host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            # Without SO_REUSEPORT first: with it, two services could share a port unnoticed.
            with socket.socket(family, socket.SOCK_STREAM) as probe:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                probe.bind(address)
                address = probe.getsockname()
            for _ in range(worker_count(self.config)):
                listener = socket.socket(family, socket.SOCK_STREAM)
                self._listeners.append(listener)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
                listener.bind(address)
                listener.listen(BACKLOG)
        except OSError as error:
            reason = error.strerror or str(error)
            raise ListenError(f"listen: {self.config.listen.address}: {reason}") from error

    def _write_files(self) -> None:
        plan = plan_json(compile_plan(self.config, self.generation))
        _write(self.run_dir / "plan.json", plan)
        _write(self.run_dir / "config.json", self.config.model_dump(mode="json", by_alias=True))

    def _child(self, name: str, command: Sequence[str], inherited: Sequence[int]) -> Child:
        common = ("--run-dir", str(self.run_dir), "--run-id", self.run_id)

        def line(control: int) -> Sequence[str]:
            return [*command, *common, "--control-fd", str(control)]

        return Child(name, line, inherited, self._on_event, self._push_status)

    # Running ------------------------------------------------------------------------------------

    def _on_event(self, child: Child, event: dict[str, Any]) -> None:
        if event.get("ask") == "reload":
            answer: dict[str, Any] = {"reply": event.get("id"), "ok": True}
            try:
                self.reload()
                answer["generation"] = self.generation
            except ConfigError as error:
                answer |= {"ok": False, "error": str(error)}
            child.tell(answer)
        elif event.get("event") == "reload_failed":
            self.config_error = f"{child.name}: {event.get('error')}"
            log.error("configuration %d: %s", self.generation, self.config_error)
            self._push_status()
        elif event.get("event") == "ready":
            self._push_status()
            everyone = [*self.workers, *((self.evaluation,) if self.evaluation else ())]
            if not self._announced and all(one.ready for one in everyone):
                self._announced = True
                self._on_ready(self)

    def _push_status(self) -> None:
        if self.evaluation is None:
            return
        workers = [
            {"slot": slot, "pid": worker.pid, "restarts": worker.restarts, "ready": worker.ready}
            for slot, worker in enumerate(self.workers)
        ]
        self.evaluation.tell(
            {
                "do": "status",
                "workers": workers,
                "evaluation_restarts": self.evaluation.restarts,
                "generation": self.generation,
                "config_error": self.config_error,
                "address": self.address,
            }
        )

    def _on_hangup(self) -> None:
        with contextlib.suppress(ConfigError):
            self.reload()

    # Stopping -----------------------------------------------------------------------------------

    def _on_stop_signal(self) -> None:
        if self._stop.is_set():
            log.warning("stopping at once")
            for child in (*self.workers, *((self.evaluation,) if self.evaluation else ())):
                child.kill()
        self._stop.set()

    async def _shut_down(self) -> None:
        log.info("draining")
        # Closed here, so that the port refuses new connections and nobody waits in vain.
        for listener in self._listeners:
            listener.close()
        patience = self.config.limits.drain + FLUSH_PATIENCE
        await asyncio.gather(*(worker.stop(patience) for worker in self.workers))
        if self.evaluation is not None:
            await self.evaluation.stop(EVALUATION_PATIENCE)
        log.info("stopped")


def _write(path: Path, data: dict[str, Any]) -> None:
    """Replace the file at once: whoever reads it sees the old one or the new one."""
    temporary = path.with_suffix(".tmp")
    temporary.write_text(json.dumps(data), encoding="utf-8")
    temporary.replace(path)
