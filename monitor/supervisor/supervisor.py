"""The supervisor: one validated configuration, N workers, one evaluation plane.

It owns the listening sockets, so that a worker that dies leaves its queue of connections to its
successor, and the other workers accept from it meanwhile; restarts what dies or hangs; hands a new
configuration to all children or to none; and stops in the right order, the workers first, so that
the evaluation plane still takes their last records.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import secrets
import signal
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import astuple
from pathlib import Path
from typing import Any

from understudy.monitor.config.checks import problems_at_start, warnings_of
from understudy.monitor.config.compile import compile_plan, plan_json, worker_count
from understudy.monitor.config.declared import unfit, with_declared
from understudy.monitor.config.header_values import Values, values_of, with_values
from understudy.monitor.config.load import load
from understudy.monitor.config.model import Config
from understudy.monitor.config.otel import open_telemetry
from understudy.monitor.errors import ConfigError, StateError
from understudy.monitor.routing.routes import load_or_set_aside
from understudy.monitor.supervisor import evaluation_plane, listeners
from understudy.monitor.supervisor.child import BACK_OFF, BackOff, Child
from understudy.monitor.supervisor.config_file import ConfigFile
from understudy.monitor.supervisor.faults import Faults
from understudy.monitor.supervisor.limits import Limits
from understudy.monitor.supervisor.peer import Peer
from understudy.monitor.supervisor.process_use import use_of
from understudy.monitor.supervisor.remote_plane import RemotePlane
from understudy.monitor.supervisor.run_directory import RunDirectory
from understudy.monitor.supervisor.systemd import Systemd
from understudy.monitor.supervisor.watchdog import watch

log = logging.getLogger(__name__)

USE_SECONDS = 5.0
"""Time between two reports of what the processes use."""
CONFIRM_SECONDS = 15.0
"""How long the children may take to follow a new configuration."""
FIXED = ("listen", "control", "workers", "state_dir", "kafka")
"""Settings that only a restart can change."""


def _log_warnings(config: Config) -> None:
    for path, message in (*warnings_of(config), *open_telemetry(config, os.environ).warnings):
        log.warning("%s: %s", path, message)


class Supervisor:
    """Runs until told to stop; see the module.

    ``worker`` and ``evaluation`` are the commands to run, for tests that bring their own children.
    With ``separate`` the evaluation plane runs in another container, under a
    :class:`understudy.monitor.supervisor.companion.Companion`.
    Raises ConfigError when the configuration is not valid here.
    """

    def __init__(
        self,
        config_path: Path,
        on_ready: Callable[[Supervisor], None],
        worker: Sequence[str] = (sys.executable, "-P", "-m", "understudy.monitor.proxy.worker"),
        evaluation: Sequence[str] = evaluation_plane.COMMAND,
        back_off: BackOff = BACK_OFF,
        separate: bool = False,
    ) -> None:
        self._separate = separate
        self._config_path = config_path
        self._file = ConfigFile(config_path)
        self._on_ready = on_ready
        self._worker_command = tuple(worker)
        self._evaluation_command = tuple(evaluation)
        self._back_off = back_off
        content = self._file.content()
        self.config: Config = load(config_path)
        self._file.was_read(content, self.config)
        _log_warnings(self.config)
        self._header_values, missing = values_of(self.config, os.environ)
        telemetry = open_telemetry(self.config, os.environ)
        problems = [*problems_at_start(self.config, os.environ), *missing, *telemetry.problems]
        if problems:
            raise ConfigError(str(config_path), problems)
        self.config_error: str | None = None
        self.generation = 1
        self.run_id = secrets.token_hex(8)
        self.directory = RunDirectory(Path(self.config.state_dir))
        self.address = self.config.listen.address
        """Where clients connect; once running, with the actual port."""
        self.control_address = self.config.control.listen
        """The same for metrics and control."""
        self.workers: list[Child] = []
        self.evaluation: Peer | None = None
        self._listeners: list[socket.socket] = []
        self._stop = asyncio.Event()
        self._forced = False
        self._announced = False
        self._warned = False
        self._applied: dict[str, int] = {}
        """Generation that a child has said to follow, by its name."""
        self._refused: dict[str, str] = {}
        """Why a child does not follow the newest generation, by its name."""
        self._configured = False
        """Whether the evaluation plane has to confirm the newest generation, too."""
        self._heard = asyncio.Event()
        self._confirm_seconds = CONFIRM_SECONDS
        self._answers: set[asyncio.Task[None]] = set()
        self._covered: dict[str, list[int]] = {}
        """Slots of workers that do not accept connections, as told to each of the others."""
        self._watching: list[asyncio.Task[None]] = []
        self._systemd = Systemd(os.environ)

    async def run(self) -> int:
        """Start everything, wait for SIGTERM or SIGINT, stop everything; the exit code.

        Raises StateDirError or ListenError when it cannot start.
        """
        self.directory.open(self.run_id)
        try:
            self._listen()
            self._write_files(self.config, self.generation, self._header_values)
            loop = asyncio.get_running_loop()
            for number in (signal.SIGTERM, signal.SIGINT):
                loop.add_signal_handler(number, self._on_stop_signal)
            loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
            self._start()
            if isinstance(self.evaluation, RemotePlane):
                await self.evaluation.open(self.directory.evaluation)
            self._watching = [
                loop.create_task(watch(self._children)),
                loop.create_task(self._push_use()),
                loop.create_task(self._file.follow(lambda: self.config, self._on_changed_file)),
            ]
            beating = loop.create_task(self._systemd.watch())
            await self._stop.wait()
            await self._shut_down()
            beating.cancel()
            return 1 if self._forced else 0
        finally:
            for task in self._watching:
                task.cancel()
            for listener in self._listeners:
                listener.close()
            self.directory.close()

    def _children(self) -> Iterator[Peer]:
        yield from self.workers
        if self.evaluation is not None:
            yield self.evaluation

    def reload(self) -> None:
        """Read the file again. Raises ConfigError and keeps the running configuration."""
        content = self._file.content()
        self._systemd.reloading()
        try:
            self._reload()
        finally:
            self._file.was_read(content, self.config)
            self._systemd.ready(f"serving on {self.address}")

    def _reload(self) -> None:
        try:
            config = self._running(load(self._config_path))
            problems = unfit(config, load_or_set_aside(Path(config.state_dir)))
            values, missing = values_of(config, os.environ)
            problems += [*missing, *open_telemetry(config, os.environ).problems]
            if problems:
                raise ConfigError(str(self._config_path), problems)
            try:
                self._write_files(config, self.generation + 1, values)
            except StateError as error:
                raise ConfigError(str(self._config_path), [("", str(error))]) from error
        except ConfigError as error:
            self.config_error = str(error)
            log.error("configuration rejected, the running one stays active: %s", error)
            self._push_status()
            raise
        _log_warnings(config)
        self.config = config
        self._header_values = values
        self.config_error = None
        self.generation += 1
        for worker in self.workers:
            worker.limits = self._worker_limits()
        self._order_workers()
        if self.evaluation is not None:
            self.evaluation.limits = evaluation_plane.limits_of(self.config)
            self._order(self.evaluation, {"config": str(self.directory.config)})
        log.info("configuration %d is handed out", self.generation)
        self._push_status()

    def _order_workers(self) -> None:
        for worker in self.workers:
            self._order(worker, {"plan": str(self.directory.plan)})

    def _order(self, child: Peer, what: dict[str, str]) -> None:
        self._refused.pop(child.name, None)
        child.tell({"do": "reload", "generation": self.generation, **what})

    async def confirmed(self, generation: int) -> str | None:
        """Wait until all children have applied that generation; why one has not, or None.

        A worker that is being restarted counts once it serves; the evaluation plane begins with the
        newest configuration whenever it does.
        """

        def missing() -> list[Peer]:
            children: list[Peer] = list(self.workers)
            if self.evaluation is not None and self.evaluation.ready and self._configured:
                children.append(self.evaluation)
            return [c for c in children if not c.ready or self._applied.get(c.name, 0) < generation]

        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self._confirm_seconds):
                while missing() and not self._refused:
                    self._heard.clear()
                    await self._heard.wait()
        if self._refused:
            return "; ".join(f"{name}: {error}" for name, error in self._refused.items())
        late = [child.name for child in missing()]
        if late:
            return f"not confirmed within {self._confirm_seconds:g} s: {', '.join(late)}"
        return None

    def _running(self, new: Config) -> Config:
        """``new`` with the current values of settings that only a restart can change."""
        old = self.config
        kept = {name: getattr(old, name) for name in FIXED}
        if new.listen.address == old.listen.address and (new.listen.tls is None) == (
            old.listen.tls is None
        ):
            del kept["listen"]  # at most the certificate differs; new connections get it
        for name, value in kept.items():
            if getattr(new, name) != value:
                log.warning("%s has changed: the old value stays active until a restart", name)
        if new.evaluation.mode != old.evaluation.mode:
            log.warning("evaluation.mode has changed: the old value stays active until a restart")
            kept["evaluation"] = new.evaluation.model_copy(update={"mode": old.evaluation.mode})
        return new.model_copy(update=kept)

    # Starting -----------------------------------------------------------------------------------

    def _listen(self) -> None:
        self._listeners = listeners.listen(
            "listen", self.config.listen.address, worker_count(self.config)
        )
        self.address = listeners.shown(self._listeners[0].getsockname())
        if not self._separate:  # the evaluation plane may listen already
            self.control_address = listeners.reserve("control.listen", self.config.control.listen)
        log.info("listening on %s with %d workers", self.address, len(self._listeners))
        name = self.config.control.token_env
        if name is not None and not os.environ.get(name):
            log.warning(
                "control.token_env: %s is not set: calls from this machine may change state "
                "without a token",
                name,
            )

    def _write_files(self, config: Config, generation: int, values: Values) -> None:
        for fault in config.faults:
            log.warning(
                "faults: %g %% of the requests of %s are answered with %d, on purpose",
                100.0 * fault.share,
                fault.arm,
                fault.status,
            )
        dumped = config.model_dump(mode="json", by_alias=True)
        # The actual port, so that it stays the same when the process is restarted.
        dumped["control"]["listen"] = self.control_address
        self.directory.write(self._plan_json(config, generation, values), dumped)

    def _plan_json(self, config: Config, generation: int, values: Values) -> dict[str, Any]:
        """The plan with the current assignments of the experiments, and values of headers."""
        routes = load_or_set_aside(Path(config.state_dir))
        whole = with_values(with_declared(config, routes), values)
        tracing = open_telemetry(config, os.environ).tracing()
        return plan_json(compile_plan(whole, generation, routes, tracing))

    def _reroute(self) -> None:
        """Send the assignments in the state folder to every worker."""
        plan = self._plan_json(self.config, self.generation + 1, self._header_values)
        self.directory.write(plan)
        self.generation += 1
        self._order_workers()
        self._push_status()

    def _start(self) -> None:
        if self._separate:
            self.evaluation = RemotePlane(self._on_event, self._on_change)
        else:
            self.evaluation = self._child(
                "evaluation plane",
                [*self._evaluation_command, "--config-json", str(self.directory.config)],
                (),
                evaluation_plane.limits_of(self.config),
                evaluation_plane.VARIABLES,
            )
        descriptors = [listener.fileno() for listener in self._listeners]
        for slot in range(len(descriptors)):
            command = [
                *self._worker_command,
                *("--plan", str(self.directory.plan), "--slot", str(slot)),
                *("--listen-fds", *map(str, descriptors)),
            ]
            name = f"worker {slot}"
            self.workers.append(self._child(name, command, descriptors, self._worker_limits()))

    def _worker_limits(self) -> Limits:
        watchdog = self.config.watchdog
        return Limits(watchdog.workers, watchdog.start)

    def _child(
        self,
        name: str,
        command: Sequence[str],
        inherited: Sequence[int],
        limits: Limits,
        variables: Mapping[str, str] | None = None,
    ) -> Child:
        common = ("--run-dir", str(self.directory.path), "--run-id", self.run_id)

        def line(control: int, heartbeat: int) -> Sequence[str]:
            shared = ("--control-fd", str(control), "--heartbeat-fd", str(heartbeat))
            return [*command, *common, *shared]

        return Child(
            name,
            line,
            inherited,
            self._on_event,
            self._on_change,
            self._back_off,
            variables,
            limits,
            self._on_killed,
        )

    # Running ------------------------------------------------------------------------------------

    def _on_event(self, child: Peer, event: dict[str, Any]) -> None:
        if event.get("ask") == "reload":
            try:
                self.reload()
            except ConfigError as error:
                child.tell({"reply": event.get("id"), "ok": False, "error": str(error)})
            else:
                self._answer(child, event.get("id"), whole=True)
        elif event.get("ask") == "routes":
            try:
                self._reroute()
            except (StateError, ConfigError) as error:
                log.error("routes rejected: %s", error)
                child.tell({"reply": event.get("id"), "ok": False, "error": str(error)})
            else:
                self._answer(child, event.get("id"), whole=False)
        elif event.get("event") == "reload_failed":
            self.config_error = f"{child.name}: {event.get('error')}"
            self._refused[child.name] = str(event.get("error"))
            self._heard.set()
            log.error("configuration %d: %s", self.generation, self.config_error)
            self._push_status()
        elif event.get("event") == "down" and isinstance(child, RemotePlane):
            child.down()
        elif event.get("event") in ("ready", "reloaded"):
            self._applied[child.name] = int(event.get("generation", self.generation))
            self._heard.set()
            if event["event"] == "ready":
                if "data_plane" in event:
                    log.info("%s is ready; its code is %s", child.name, event["data_plane"])
                self._on_change()

    def _on_killed(self, child: Child, seconds: float) -> None:
        """``child`` was killed since it hung or took too much memory, after so many seconds."""
        if child is self.evaluation:
            Faults(self.directory.path).note(seconds)

    def _answer(self, child: Peer, number: Any, whole: bool) -> None:
        """Tell ``child``, which asked, once all children have what was handed out."""
        generation = self.generation
        self._configured = whole

        async def answer() -> None:
            error = await self.confirmed(generation)
            if error is not None and whole:
                self.config_error = error
                self._push_status()
            reply: dict[str, Any] = {"reply": number, "ok": error is None, "generation": generation}
            child.tell(reply if error is None else {**reply, "error": error})

        task = asyncio.get_running_loop().create_task(answer())
        self._answers.add(task)
        task.add_done_callback(self._answers.discard)

    def _on_change(self) -> None:
        """Something started, became ready, hangs, responds again or ended."""
        self._cover()
        self._push_status()
        evaluation = self.evaluation
        if self._announced or evaluation is None or len(self.workers) < len(self._listeners):
            return
        if not all(worker.ready for worker in self.workers):
            return
        if evaluation.ready or self._separate:
            self._announced = True
            self._on_ready(self)
            self._systemd.ready(f"serving on {self.address}")
        elif evaluation.restarts and not self._warned:
            self._warned = True
            log.warning(
                "serving on %s, but the evaluation plane does not start: requests are forwarded "
                "and mirrored, but not evaluated",
                self.address,
            )

    def _cover(self) -> None:
        """Have the workers accept for those that do not: the kernel goes on spreading new
        connections over the sockets of all."""
        slots = [
            slot
            for slot, worker in enumerate(self.workers)
            if not worker.works and (worker.restarts or worker.ready)
        ]
        for worker in self.workers:
            if not worker.ready:
                self._covered.pop(worker.name, None)
            elif worker.responsive and self._covered.get(worker.name, []) != slots:
                self._covered[worker.name] = slots
                worker.tell({"do": "cover", "slots": slots})

    def _push_status(self) -> None:
        if self.evaluation is None:
            return
        workers = [
            {
                "slot": slot,
                "pid": worker.pid,
                "restarts": worker.restarts,
                "ready": worker.ready,
                "responsive": worker.responsive,
                "killed": worker.killed,
            }
            for slot, worker in enumerate(self.workers)
        ]
        self.evaluation.tell(
            {
                "do": "status",
                "separate": self._separate,
                "workers": workers,
                "evaluation_restarts": self.evaluation.restarts,
                "evaluation_killed": self.evaluation.killed,
                "kills": [child.last_kill for child in self._children() if child.last_kill],
                "generation": self.generation,
                "config_error": self.config_error,
                "address": self.address,
                "state_problem": self.directory.problem,
            }
        )

    async def _push_use(self) -> None:
        """Report what the processes of this container use to the evaluation plane in another one,
        which cannot see them, until cancelled."""
        while self._separate:
            await asyncio.sleep(USE_SECONDS)
            pids = {f"worker-{slot}": worker.pid for slot, worker in enumerate(self.workers)}
            found = {
                name: astuple(use)
                for name, pid in {**pids, "supervisor": os.getpid()}.items()
                if pid is not None and (use := use_of(pid)) is not None
            }
            if self.evaluation is not None:
                self.evaluation.tell({"do": "use", "processes": found})

    def _on_changed_file(self) -> None:
        log.info("%s has changed", self._config_path)
        self._on_hangup()

    def _on_hangup(self) -> None:
        with contextlib.suppress(ConfigError):
            self.reload()

    # Stopping -----------------------------------------------------------------------------------

    def _on_stop_signal(self) -> None:
        if self._stop.is_set():
            log.warning("stopping at once")
            self._forced = True
            for child in (*self.workers, *((self.evaluation,) if self.evaluation else ())):
                child.kill()
        self._stop.set()

    async def _shut_down(self) -> None:
        log.info("draining")
        self._systemd.stopping()
        # Closed here, so that the port refuses new connections at once.
        for listener in self._listeners:
            listener.close()
        patience = self.config.limits.drain + evaluation_plane.FLUSH_PATIENCE
        await asyncio.gather(*(worker.stop(patience) for worker in self.workers))
        for task in self._watching:
            task.cancel()  # at its end the evaluation plane only saves its state
        if self.evaluation is not None:
            await self.evaluation.stop(evaluation_plane.PATIENCE)
        log.info("stopped")
