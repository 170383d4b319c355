"""Runs the evaluation plane of a service whose workers run in another container.

Both containers share the state folder and the folder in memory. The supervisor of the workers
listens at a socket in the run folder; what it sends goes to the evaluation plane, and what that
sends goes back. So whatever ends this container, the workers serve on.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from understudy.monitor.config.load import load
from understudy.monitor.errors import ConfigError
from understudy.monitor.supervisor import evaluation_plane
from understudy.monitor.supervisor.child import BACK_OFF, BackOff, Child
from understudy.monitor.supervisor.faults import Faults
from understudy.monitor.supervisor.peer import LONGEST_LINE, Peer
from understudy.monitor.supervisor.run_directory import EVALUATION_SOCKET, RUN_ID, RunDirectory
from understudy.monitor.supervisor.watchdog import watch

log = logging.getLogger(__name__)

RETRY_SECONDS = 0.25
"""Time between two attempts to find the other container."""


@dataclass(frozen=True, slots=True)
class Run:
    """A run of the workers, and the line to their supervisor."""

    folder: Path
    name: str
    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter


class Companion:
    """Runs until told to stop, over all runs of the workers; see the module.

    Raises ConfigError when the configuration is not valid.
    """

    def __init__(
        self,
        config_path: Path,
        evaluation: Sequence[str] = evaluation_plane.COMMAND,
        back_off: BackOff = BACK_OFF,
    ) -> None:
        self._config_path = config_path
        self._command = tuple(evaluation)
        self._back_off = back_off
        self._config = load(config_path)
        self._stop = asyncio.Event()
        self._child: Child | None = None
        self._drained = ""
        """The last run whose workers have ended: its socket may be there for a moment."""

    async def run(self) -> int:
        """Connect to the workers' supervisor and run the evaluation plane for it, repeatedly; the
        exit code."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: None)  # the other container reloads
        watching = loop.create_task(watch(self._children))
        try:
            while (run := await self._connected()) is not None:
                await self._serve(run)
        finally:
            watching.cancel()
        return 0

    def _children(self) -> Iterator[Peer]:
        if self._child is not None:
            yield self._child

    async def _connected(self) -> Run | None:
        """The run of the workers, once there is one; None when told to stop."""
        waiting = False
        while not self._stop.is_set():
            for folder in RunDirectory(Path(self._config.state_dir)).candidates():
                with contextlib.suppress(OSError):
                    line = await asyncio.open_unix_connection(
                        folder / EVALUATION_SOCKET, limit=LONGEST_LINE
                    )
                    name = (folder / RUN_ID).read_text(encoding="utf-8")
                    if name != self._drained:
                        return Run(folder, name, *line)
                    line[1].close()
            if not waiting:
                waiting = True
                log.info("waiting for the workers' container")
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stop.wait(), RETRY_SECONDS)
        return None

    async def _serve(self, run: Run) -> None:
        """Run the evaluation plane until the workers have drained or gone, or it has to stop."""
        log.info("starting the evaluation plane of run %s", run.name)
        was_ready = False

        def changed() -> None:
            nonlocal was_ready
            if was_ready and not child.ready:
                send({"event": "down"})
            was_ready = child.ready

        def send(message: dict[str, Any]) -> None:
            nonlocal was_ready
            was_ready |= message.get("event") == "ready"
            if not run.writer.is_closing():
                run.writer.write(json.dumps(message).encode() + b"\n")

        def command(control: int, heartbeat: int) -> Sequence[str]:
            return [
                *self._command,
                *("--config-json", str(run.folder / "config.json"), "--run-dir", str(run.folder)),
                *("--run-id", run.name),
                *("--control-fd", str(control), "--heartbeat-fd", str(heartbeat)),
            ]

        child = self._child = Child(
            "evaluation plane",
            command,
            (),
            lambda _, event: send(event),
            changed,
            self._back_off,
            evaluation_plane.VARIABLES,
            evaluation_plane.limits_of(self._config),
            lambda _, seconds: Faults(run.folder).note(seconds),
        )
        loop = asyncio.get_running_loop()
        told = loop.create_task(self._stop.wait())
        orders = loop.create_task(self._follow(run, child))
        await asyncio.wait((told, orders), return_when=asyncio.FIRST_COMPLETED)
        # The workers are told to stop at the same time: it takes their last records.
        patience = self._config.limits.drain + evaluation_plane.FLUSH_PATIENCE
        await asyncio.wait((orders,), timeout=patience)
        self._child = None  # at its end it only saves its state
        for task in (told, orders):
            task.cancel()
        await asyncio.gather(told, orders, return_exceptions=True)
        await child.stop(evaluation_plane.PATIENCE)
        run.writer.close()

    async def _follow(self, run: Run, child: Child) -> None:
        """Pass the commands of the workers' supervisor on, until it drains or is gone."""
        with contextlib.suppress(OSError, ValueError):
            while line := await run.reader.readline():
                message = json.loads(line)
                if message.get("do") == "drain":
                    self._drained = run.name
                    return
                if message.get("do") == "status":
                    message["evaluation_killed"] = child.killed
                    message["kills"] += [child.last_kill] if child.last_kill else []
                elif message.get("do") == "reload":
                    self._reload(child)
                child.tell(message)

    def _reload(self, child: Child) -> None:
        """Take over the limits of the new configuration, which the other container has checked."""
        try:
            self._config = load(self._config_path)
        except ConfigError as error:
            log.error("limits of the evaluation plane stay: %s", error)
            return
        child.limits = evaluation_plane.limits_of(self._config)
