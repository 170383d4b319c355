"""All parts of the evaluation plane, for the API and the metrics."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.monitor.archive.recorder import recorder_of
from understudy.monitor.errors import StateError
from understudy.monitor.evidence.redaction import redaction_of_settings
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.ingest.records import KnownModels
from understudy.monitor.ingest.service import IngestService
from understudy.monitor.pipeline.mode import LabelIntake, Mode, StateSaver
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.records.handoff import HandOffServer
from understudy.monitor.records.record import NOT_SENT as NOT_SENT_OUTCOMES
from understudy.monitor.records.record import OUTCOMES
from understudy.monitor.records.redaction import Redaction
from understudy.monitor.stats.energy import Rapl
from understudy.monitor.stats.reader import Snapshot, StatsReader
from understudy.monitor.stats.windows import Windows
from understudy.monitor.supervisor.control_line import Supervisor

NOT_ERRORS = frozenset(("ok", "client_error", "cancelled", "rejected"))
"""Outcomes that are not the model server's fault; the others are errors."""
NOT_SENT = frozenset(OUTCOMES[outcome] for outcome in NOT_SENT_OUTCOMES)
"""Outcomes of mirrored requests that were never sent."""
BREAKER_STATES = ("closed", "open", "half_open")
_RECENT_SECONDS = 10.0
_STALE_SECONDS = 15.0
_MARK = "started"


@dataclass(slots=True)
class EvaluationPlane:
    """The parts of the running process. ``started`` is the unix time when it started."""

    settings: Settings
    run_dir: Path
    run: str
    pipeline: Pipeline
    server: HandOffServer
    saver: StateSaver
    mode: Mode
    feedback: LabelIntake | None = None
    families: list[Callable[[], Iterable[Any]]] = field(default_factory=list)
    """Metric families that only one mode has."""
    supervisor: Supervisor = field(default_factory=Supervisor)
    windows: Windows = field(default_factory=Windows)
    energy: Rapl = field(default_factory=Rapl)
    started: float = field(default_factory=time.time)
    reader: StatsReader = field(init=False)
    redaction: Redaction = field(init=False)
    ingest: IngestService = field(init=False)

    def __post_init__(self) -> None:
        self.reader = StatsReader(self.run_dir)
        self.redaction = redaction_of_settings(self.settings)
        self.ingest = IngestService(_declared(self.settings), self.pipeline.take)

    @property
    def experiments(self) -> ExperimentRunner | None:
        """None if the configuration has no champion, as in tools that use parts of one."""
        return self.pipeline.experiments

    def tick(self) -> None:
        """Read the workers' statistics."""
        self.windows.add(self.reader.read())

    def snapshot(self) -> Snapshot:
        """Totals now, after evaluating all records received so far."""
        self.pipeline.flush()
        return self.reader.read()

    def run_seconds(self) -> float:
        """Seconds since the run directory was created; restarts of this process do not count."""
        try:
            begun = os.stat(self.run_dir / _MARK).st_mtime
        except OSError:
            begun = self.started
        return max(1e-3, time.time() - begun)

    def mark_run(self) -> None:
        """Write the name of the run into its directory; the file's age is the age of the run.

        Raises StateError when the directory cannot be written.
        """
        try:
            if not self.owns_run():
                (self.run_dir / _MARK).write_text(self.run)
        except OSError as error:
            raise StateError(f"{self.run_dir}: cannot be written: {error.strerror}") from error

    def owns_run(self) -> bool:
        """False when another service has taken over the directories.

        That happens when the supervisor was killed and restarted while this process, an orphan,
        still receives the last records: it must not write the saved state then.
        """
        try:
            return (self.run_dir / _MARK).read_text() == self.run
        except OSError:
            return False

    def commit(self, saved: Mapping[tuple[str, int], int]) -> None:
        """Tell the workers the number of the last durable batch, by (run, slot)."""
        self.server.commit(saved)

    def reconfigure(self, path: Path) -> int:
        """Load and apply another configuration; return the generation of the workers' plan. Raises
        ConfigError and changes nothing then."""
        settings = Settings.load(path)
        self.settings = settings
        self.pipeline.configure(settings)
        self.ingest.declared = _declared(settings)
        self.redaction = redaction_of_settings(settings)
        if self.experiments is not None:
            config = settings.config()
            self.experiments.configure(config)
            if self.pipeline.findings_loop is not None:
                self.pipeline.findings_loop.configure(config)
            self.pipeline.recorder = recorder_of(config, self.pipeline.recorder)
            if self.feedback is not None:
                bounds = config.feedback
                self.feedback.configure(
                    bounds.horizon, bounds.max_size, bounds.max_rows, bounds.settle
                )
        return self.supervisor.generation

    def problems(self) -> list[str]:
        """Why the service is not ready for traffic; empty when it is."""
        found: list[str] = []
        snapshot = self.snapshot()
        latest = self.windows.latest
        if latest is None or time.monotonic() - latest.time > _STALE_SECONDS:
            found.append("the evaluation plane is overloaded: its statistics are out of date")
        if not self.supervisor.status_received:
            found.append("the supervisor has not reported yet")
        for worker in self.supervisor.workers:
            slot, pid = int(worker["slot"]), worker.get("pid")
            if not worker.get("ready", True) or snapshot.slots.get(slot) != pid:
                found.append(f"worker {slot} is not ready")
        if self.supervisor.status_received and not self.supervisor.workers:
            found.append("no worker is running")
        champion = self.settings.arms[0]
        if self._unreachable(champion):
            found.append(f"champion {champion!r} cannot be reached")
        return found

    def _unreachable(self, arm: str) -> bool:
        failures = self.windows.counters("upstream_connect_failures", _RECENT_SECONDS)
        if not failures.get((("arm", arm),)):
            return False
        answered = ("ok", "client_error", "server_error")
        return not any(
            grown > 0
            for labels, grown in self.windows.counters("requests", _RECENT_SECONDS).items()
            if dict(labels).get("arm") == arm and dict(labels).get("outcome") in answered
        )


def _declared(settings: Settings) -> KnownModels:
    models = [(m.name, m.version, m.protocol) for m in settings.models]
    return KnownModels(models, settings.arms)
