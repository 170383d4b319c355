"""The process of the evaluation plane: builds the parts and runs them."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import logging
import os
import signal
import socket
import time
from collections.abc import Awaitable, Callable
from math import inf
from pathlib import Path
from time import monotonic

import uvloop

from understudy.common.durable import set_aside
from understudy.monitor.api.app import build
from understudy.monitor.api.server import ApiServer
from understudy.monitor.archive.recorder import recorder_of
from understudy.monitor.config.model import Config
from understudy.monitor.errors import ConfigError, StateError, UnderstudyError
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.gc_tuning import freeze_gc, release_memory
from understudy.monitor.health.findings_loop import FindingsLoop
from understudy.monitor.labels.service import LabelService
from understudy.monitor.logs import set_up
from understudy.monitor.pipeline import state
from understudy.monitor.pipeline.embedded import Embedded
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.records.handoff import HandOffServer
from understudy.monitor.records.slots import Slots
from understudy.monitor.stats.heartbeat import Heartbeat
from understudy.monitor.supervisor.control_line import ControlLine, Supervisor
from understudy.monitor.supervisor.faults import MOST_FAULTS, Faults
from understudy.monitor.supervisor.watchdog import Silence, activity_of
from understudy.monitor.telemetry.collector import PlaneCollector
from understudy.monitor.telemetry.labels import feedback_families
from understudy.monitor.telemetry.otlp.emitter import Emitter

log = logging.getLogger(__name__)

TICK_SECONDS = 1.0
BEAT_SECONDS = 0.25
SAVE_SECONDS = 30.0
RETRY_SECONDS = 2.0
"""Time between two writes of the totals of the workers' statistics; the second after one failed, so
that the warning ends soon after its cause."""
DRAIN_SECONDS = 5.0
"""How long workers may still send records when the supervisor drains."""
ORPHAN_SECONDS = 30.0
"""The same when the supervisor has died: the workers then drain by themselves."""


def make_plane(settings: Settings, run_dir: Path, run: str) -> EvaluationPlane:
    """Build all parts and restore the saved state; nothing runs yet. Raises UnderstudyError."""
    mode = settings.document.get("evaluation")
    if isinstance(mode, dict) and mode.get("mode") == "kafka":
        return _make_publisher(settings, run_dir, run)
    return _make_embedded(settings, run_dir, run)


def _make_embedded(settings: Settings, run_dir: Path, run: str) -> EvaluationPlane:
    path = settings.state_dir / state.FILE_NAME
    pipeline = _pipeline(settings)
    try:
        slots = state.restore(path, run, pipeline)
    except StateError as error:
        set_aside_path = set_aside(path)
        log.error("%s; starting with empty state, the file is kept as %s", error, set_aside_path)
        pipeline = _pipeline(settings)
        slots = Slots(known=False)
    if pipeline.findings_loop is not None and not pipeline.findings_loop.service.restored:
        pipeline.findings_loop.load_state({})
    server = HandOffServer(run_dir / "records.sock", slots, pipeline.take)
    feedback = None
    if pipeline.experiments is not None:
        limits = pipeline.experiments.config.feedback
        if limits.enabled:
            bounds = limits.horizon, limits.max_size, limits.max_rows
            feedback = LabelService(
                settings.state_dir, *bounds, after=pipeline.labels, settle=limits.settle
            )
            feedback.listeners.append(pipeline.record_labels)
            pipeline.stage_one.offer = feedback.offer
            feedback.before_flush = pipeline.flush
    saver = state.Saver(path, slots, pipeline, feedback.flush if feedback is not None else None)
    plane = EvaluationPlane(
        settings=settings,
        run_dir=run_dir,
        run=run,
        pipeline=pipeline,
        server=server,
        saver=saver,
        mode=Embedded(saver, feedback, settings.save_seconds),
        feedback=feedback,
    )
    if feedback is not None:
        figures = feedback.summary
        plane.families.append(lambda: feedback_families({(): figures()}))
        if pipeline.findings_loop is not None:
            pipeline.findings_loop.watches.labels = figures
    plane.mark_run()
    return plane


def _make_publisher(settings: Settings, run_dir: Path, run: str) -> EvaluationPlane:
    """The same with ``evaluation: kafka``: records are published, not evaluated."""
    from understudy.monitor.kafka import publishing
    from understudy.monitor.kafka.client import silence_kafka_log
    from understudy.monitor.kafka.publisher import Publisher
    from understudy.monitor.telemetry.kafka import kafka_families

    silence_kafka_log()
    config = settings.config()
    if config.kafka is None:
        raise ConfigError("configuration", [("kafka", "is required with `evaluation: kafka`")])
    publisher = Publisher(config.kafka, settings.state_dir, run)
    pipeline = publishing.PublishingPipeline(settings, publisher)
    pipeline.recorder = recorder_of(config)
    feedback = None
    if config.feedback.enabled:
        feedback = publishing.PublishingFeedback(publisher)
        feedback.listeners.append(pipeline.record_labels)
    mode = publishing.Publishing(publisher, settings)
    plane = EvaluationPlane(
        settings=settings,
        run_dir=run_dir,
        run=run,
        pipeline=pipeline,
        server=HandOffServer(run_dir / "records.sock", publisher.slots, pipeline.take),
        saver=publishing.PublishingSaver(publisher),
        mode=mode,
        feedback=feedback,
        families=[lambda: kafka_families(mode)],
    )
    plane.mark_run()
    return plane


def _pipeline(settings: Settings) -> Pipeline:
    pipeline = Pipeline(settings)
    if settings.document.get("champion"):
        config = settings.config()
        pipeline.experiments = ExperimentRunner(config)
        pipeline.findings_loop = FindingsLoop(config, settings.state_dir)
        pipeline.recorder = recorder_of(config)
    return pipeline


async def _take_labels(plane: EvaluationPlane) -> None:
    """Pass joined labels to the pipeline, whose state holds the number of the last one."""
    if plane.feedback is None:
        return
    await plane.feedback.flush()
    try:
        joined = await plane.feedback.take(plane.pipeline.labels)
    except StateError:
        return  # logged and shown; experiments must be evaluated all the same
    plane.pipeline.take_labels(joined)


class EvaluationLoop:
    """Evaluates what has arrived, every second.

    Labels are taken and waiting records evaluated once, for all parts. A part that fails is logged
    once, and one that takes long is left out until it has finished; the others go on.
    """

    def __init__(self, plane: EvaluationPlane, line: ControlLine) -> None:
        self._plane = plane
        self._line = line
        # The workers may not have received the last saved assignment.
        self._routes_pending = plane.experiments is not None and bool(plane.experiments.live)
        self._parts: dict[str, Callable[[], Awaitable[None]]] = {
            "experiments could not be evaluated": self._experiments,
            "findings could not be updated": self._findings,
            "the record log could not be written": self._record_log,
        }
        self._running: dict[str, asyncio.Task[None]] = {}
        self._errors: dict[str, str] = {}

    async def run(self) -> None:
        """Run until cancelled."""
        try:
            while True:
                await self.step()
                await asyncio.sleep(TICK_SECONDS)
        finally:
            for task in self._running.values():
                task.cancel()

    async def step(self) -> None:
        """Take labels, evaluate records, and start the parts that do not run."""
        await self._attempt("labels could not be taken", lambda: _take_labels(self._plane))
        # Evaluate what has arrived now, not with the next block.
        self._plane.pipeline.flush()
        for name, part in self._parts.items():
            if name not in self._running or self._running[name].done():
                self._running[name] = asyncio.create_task(self._attempt(name, part))
        # Most parts end at once; a slow one must not hold up the next step.
        await asyncio.sleep(0)

    async def _attempt(self, what: str, part: Callable[[], Awaitable[None]]) -> None:
        try:
            await part()
            self._errors.pop(what, None)
        except Exception as error:
            # Once, not every second.
            if repr(error) != self._errors.get(what):
                log.exception("%s", what)
            self._errors[what] = repr(error)

    async def _experiments(self) -> None:
        """Decide, and send changed routes to the workers."""
        experiments = self._plane.experiments
        if experiments is None:
            return
        self._routes_pending |= experiments.tick()
        if self._routes_pending:
            reloaded = await self._line.routes()
            if not reloaded.ok:
                log.error("the workers did not get the new routes: %s", reloaded.error)
            self._routes_pending = not reloaded.ok

    async def _findings(self) -> None:
        findings_loop = self._plane.pipeline.findings_loop
        if findings_loop is not None:
            findings_loop.tick(time.time())

    async def _record_log(self) -> None:
        recorder = self._plane.pipeline.recorder
        if recorder is not None:
            await asyncio.to_thread(recorder.flush)
            await asyncio.to_thread(recorder.tidy, time.time())


async def _save_statistics(plane: EvaluationPlane) -> None:
    while True:
        saved = not plane.owns_run() or await asyncio.to_thread(plane.save_statistics)
        await asyncio.sleep(SAVE_SECONDS if saved else RETRY_SECONDS)


async def _keep_history(plane: EvaluationPlane) -> None:
    opened = False
    while True:
        if plane.owns_run() and (plane.history.pending or not opened):
            opened = True
            await asyncio.to_thread(plane.history.flush)
        await asyncio.sleep(TICK_SECONDS)


async def _tick(plane: EvaluationPlane) -> None:
    loop = asyncio.get_running_loop()
    due = loop.time()
    while True:
        try:
            await plane.refresh()
        except Exception:
            log.exception("the workers' statistics could not be read")
        due = max(due + TICK_SECONDS, loop.time())
        await asyncio.sleep(due - loop.time())


async def _beat(heartbeat: Heartbeat, supervisor: Supervisor) -> None:
    """Show the supervisor that this process runs, and see whether the supervisor does."""
    silence, parent, before = Silence(), os.getppid(), monotonic()
    while True:
        heartbeat.beat()
        await asyncio.sleep(BEAT_SECONDS)
        now = monotonic()
        if heartbeat.watched:
            silence.observe(heartbeat.watches(), now - before, lambda: activity_of(parent))
            supervisor.silent_seconds = silence.seconds
        before = now


async def run(plane: EvaluationPlane, control: socket.socket, heartbeat: Heartbeat) -> None:
    """Serve until the supervisor orders a drain or dies."""
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        loop.add_signal_handler(number, lambda: None)  # the supervisor decides when to stop
    plane.tick()
    await plane.remember()
    await plane.server.start()
    line = ControlLine(control, plane.supervisor, plane.reconfigure)
    api = ApiServer(build(plane, line), plane.settings.control_host, plane.settings.control_port)
    serving = loop.create_task(api.serve())
    parts: list[Callable[[], Awaitable[None]]] = [
        lambda: _beat(heartbeat, plane.supervisor),
        lambda: _tick(plane),
        lambda: _save_statistics(plane),
        lambda: _keep_history(plane),
        EvaluationLoop(plane, line).run,
        lambda: plane.mode.run(plane, line),
    ]
    if plane.pipeline.findings_loop is not None:
        parts.append(plane.pipeline.findings_loop.service.run)
        if plane.pipeline.findings_loop.validation is not None:
            plane.pipeline.findings_loop.validation.run_dir = plane.run_dir
            parts.append(plane.pipeline.findings_loop.validation.run)
    emitter = attach_emitter(plane)
    if emitter is not None:
        parts.append(lambda: _push_metrics(plane, emitter))
    tasks = [loop.create_task(_repeat(part)) for part in parts]
    freeze_gc()
    release_memory()
    drained = False
    try:
        drained = await line.serve()
        await plane.server.stop(DRAIN_SECONDS if drained else ORPHAN_SECONDS)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if plane.owns_run():
            await plane.saver.save()
            plane.save_statistics(last=drained)
            plane.history.close()
        if plane.pipeline.recorder is not None:
            plane.pipeline.recorder.close()
        if emitter is not None:
            await asyncio.to_thread(emitter.close)
        if plane.feedback is not None:
            await plane.feedback.close()
        await plane.mode.stop()
        api.stop()
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(serving, 3)


def attach_emitter(plane: EvaluationPlane) -> Emitter | None:
    """Have a plane send what OpenTelemetry is to get of it; None for tools without a champion."""
    if not plane.settings.document.get("champion"):
        return None
    emitter = Emitter(plane.settings.config(), counts=plane.run_dir / "otlp-counts")
    plane.pipeline.traces = emitter.records
    plane.pipeline.served.listeners.append(emitter.version_changed)
    plane.families.append(emitter.families)
    stage_one = plane.pipeline.stage_one

    def configure(config: Config) -> None:
        emitter.configure(config)
        emitter.listen(stage_one)

    emitter.listen(stage_one)
    plane.listeners.append(configure)
    plane.more_faults.append(lambda: emitter.error)
    if plane.pipeline.findings_loop is not None:
        plane.pipeline.findings_loop.service.listeners.append(emitter.findings)
    if plane.experiments is not None:
        plane.experiments.listeners.append(emitter.experiments)
    return emitter


async def _push_metrics(plane: EvaluationPlane, emitter: Emitter) -> None:
    """Give the emitter what a scraper would get, as often as it says, and once at the end."""
    collector = PlaneCollector(plane)
    last = -inf
    try:
        while True:
            interval = emitter.metric_interval
            if interval is not None and time.monotonic() - last >= interval:
                last = time.monotonic()
                emitter.metrics(await collector.gather())
            if plane.windows.latest is not None:
                emitter.breakers(plane.windows.latest.gauges_named)
            await asyncio.sleep(min(interval or 1.0, 1.0))
    finally:
        if emitter.metric_interval is not None:
            emitter.metrics(list(collector.collect()))


async def _repeat(part: Callable[[], Awaitable[None]]) -> None:
    """Run a part that does not end. If it fails, it starts again: it must not be missing
    unnoticed."""
    while True:
        try:
            await part()
        except Exception:
            log.exception("a part of the evaluation plane failed; it starts again")
        await asyncio.sleep(TICK_SECONDS)


def main(arguments: list[str] | None = None) -> int:
    """Run the evaluation plane; started by the supervisor, not by hand."""
    parser = argparse.ArgumentParser(
        prog="python -m understudy.monitor.service", description=main.__doc__
    )
    parser.add_argument("--config-json", type=Path, required=True, help="validated configuration")
    parser.add_argument("--run-dir", type=Path, required=True, help="shared files of this run")
    parser.add_argument("--run-id", required=True, help="names this run of the supervisor")
    parser.add_argument("--control-fd", type=int, required=True, help="inherited control socket")
    parser.add_argument("--heartbeat-fd", type=int, help="inherited memory of the heartbeat")
    options = parser.parse_args(arguments)
    set_up()
    faults = Faults(options.run_dir)
    started = time.monotonic()
    try:
        settings = Settings.load(options.config_json)
        if faults.again():
            aside = set_aside(settings.state_dir / state.FILE_NAME)
            log.error(
                "the evaluation plane failed %d times in a row; starting with empty state, the "
                "file is kept as %s",
                MOST_FAULTS,
                aside,
            )
        plane = make_plane(settings, options.run_dir, options.run_id)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            control = socket.socket(fileno=options.control_fd)
            runner.run(run(plane, control, Heartbeat(options.heartbeat_fd)))
    except UnderstudyError as error:
        log.error("%s", error)
        return error.exit_code
    except Exception:
        faults.note(time.monotonic() - started)
        raise
    return 0
