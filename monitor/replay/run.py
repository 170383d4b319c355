"""Runs the evaluation over a recorded log, in the time of the log.

It uses the same parts as the live service, with the clock of the records: a second of the log is a
second for experiments and findings, however fast it is read. State is in a temporary folder.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from understudy.monitor.archive.lines import read_label, read_names, read_record
from understudy.monitor.archive.reading import RecordLogFiles
from understudy.monitor.archive.repeats import Repeats
from understudy.monitor.config.model import Config
from understudy.monitor.errors import ReplayError
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.findings.changes import Change
from understudy.monitor.health.findings_loop import FindingsLoop
from understudy.monitor.labels.label import Label
from understudy.monitor.labels.store import FeedbackStore, Prediction
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.records.handoff import Names

TICK_SECONDS = 1.0
"""As in the live service."""

Progress = Callable[[int, int], None]
"""Called with the number of bytes and of lines read so far."""


class Replay:
    """One run over a log, oldest line first."""

    def __init__(self, config: Config, skip_broken: bool = False) -> None:
        self.skip_broken = skip_broken
        self.records = 0
        self.labels = 0
        self.broken = 0
        self.first: float | None = None
        self.now = 0.0
        """Unix time up to which the log was read."""
        self.changes: list[Change] = []
        self._folder = tempfile.TemporaryDirectory(prefix="understudy-replay-")
        config = config.model_copy(update={"state_dir": self._folder.name})
        self.config = config
        self.pipeline = Pipeline(Settings.from_json(config.model_dump(mode="json", by_alias=True)))
        self.experiments = ExperimentRunner(config, clock=lambda: self.now)
        self.pipeline.experiments = self.experiments
        self.findings_loop = self.pipeline.findings_loop = FindingsLoop(
            config, None, lambda: self.now
        )
        bounds = config.feedback
        self._store = FeedbackStore(
            Path(self._folder.name),
            bounds.horizon,
            bounds.max_size,
            bounds.max_rows,
            settle=bounds.settle,
        )
        self._predictions: list[Prediction] = []
        self.pipeline.stage_one.offer = self._predictions.append
        self._names = Names()
        self._repeats = Repeats()
        self._batch: list[bytes] = []
        self._labels: list[tuple[float, Label]] = []
        self._due = 0.0

    @property
    def repeated(self) -> int:
        """Records that were written twice and are counted once."""
        return self._repeats.count

    def close(self) -> None:
        """Delete the state."""
        self._store.close()
        self._folder.cleanup()

    def run(self, log: RecordLogFiles, progress: Progress | None = None) -> None:
        """Read the whole log. Raises ReplayError, which names the line."""
        read = 0
        for number, line in enumerate(log.lines(), start=1):
            read += line.size
            try:
                self._read_line(line.data)
            except ReplayError as error:
                if not self.skip_broken:
                    raise ReplayError(f"{line.where}: {error}") from error
                self.broken += 1
            if progress is not None and number % 1000 == 0:
                progress(read, number)
        if not self.records:
            raise ReplayError(f"{log.path}: the log has no records")
        # Labels may arrive after the last request.
        self.now = max([self.now, *(received for received, _ in self._labels)])
        self._tick(self.now)

    def _read_line(self, line: bytes) -> None:
        try:
            data: Any = orjson.loads(line)
        except orjson.JSONDecodeError as error:
            raise ReplayError(f"not valid JSON: {error}") from error
        if not isinstance(data, dict):
            raise ReplayError("must be an object")
        if "record" in data:
            self._record(data["record"])
        elif "label" in data:
            self._labels.append(read_label(data["label"]))
        elif "names" in data:
            self._flush_batch()
            self._names = read_names(data["names"])
        else:
            raise ReplayError("must hold names, a record or a label")

    def _record(self, data: Any) -> None:
        if not isinstance(data, dict):
            raise ReplayError("record: must be an object")
        if not self._names.models:
            raise ReplayError("a record before any names")
        encoded = read_record(data)
        if self._repeats.includes(data.get("id")):
            return
        ended = float(data["time"]) + float(data["duration"])
        if self.first is None:
            self.first = ended
            self._due = ended + TICK_SECONDS
            self.now = ended
        # Exchanges end out of order, and clocks may be set back.
        self.now = max(self.now, ended)
        while self.now >= self._due:
            self._tick(self._due)
            # Of a long pause only the last minute is evaluated second by second.
            self._due = max(self._due + TICK_SECONDS, self.now - 60.0)
        self._batch.append(encoded)
        self.records += 1
        if len(self._batch) >= 512:
            self._flush_batch()

    def _flush_batch(self) -> None:
        if self._batch:
            self.pipeline.take(self._names, len(self._batch), b"".join(self._batch))
            self._batch.clear()

    def _tick(self, now: float) -> None:
        self._flush_batch()
        self.pipeline.flush()
        if self._predictions:
            self._store.add_predictions(list(self._predictions))
            self._predictions.clear()
        due = [item for item in self._labels if item[0] <= now]
        if due:
            self._labels = [item for item in self._labels if item[0] > now]
            for received, label in due:
                self._store.add_labels([label], received)
            self.labels += len(due)
        self.pipeline.take_labels(self._store.take(self.pipeline.labels, now))
        self.pipeline.flush()
        self._store.release(self.pipeline.labels)
        clock, self.now = self.now, now
        self.experiments.tick()
        self.now = clock
        self.changes += self.findings_loop.tick(now)
