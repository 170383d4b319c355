"""Stage two: reads the evidence of all input partitions and evaluates it slot by slot.

The owner of an evidence partition evaluates what is assigned to that partition
(:mod:`understudy.monitor.kafka.partitions`). Rows are evaluated once their slot of event time is
complete in all inputs, in the order of :mod:`understudy.monitor.evidence.batch`, so the result does
not depend on the number of partitions or evaluators. Rows that arrive after their slot was
evaluated count as late and are evaluated with the next slot.

Evidence of incomplete slots is not part of the state: it is read again after a restart. The state
holds the last slot that was evaluated, and the offsets read by then (``last_slot_offset``) and by
now (``next_offset``).
"""

from __future__ import annotations

import base64
import math
import shutil
import tempfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Annotated, Any

from understudy.monitor.config.model import Config as Configuration
from understudy.monitor.detectors import packed
from understudy.monitor.errors import SnapshotError, StateError
from understudy.monitor.evidence.batch import ColumnBatch, merge
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.health.findings_loop import FindingsLoop
from understudy.monitor.kafka.messages import SLOT_SECONDS, Message
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.routing.routes import Assignment
from understudy.shadow.state import Config, Converter, Count, Saved, Stateful, Transient

_MOST_EMPTY = 60
"""Empty slots that are evaluated one by one; of a longer pause only the last ones."""
_MOST_AHEAD = 3600
"""Slots that rows may be ahead of the last one evaluated; a clock beyond that is wrong."""


def _dump_files(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(content).decode() for name, content in files.items()}


_FILES = Converter(_dump_files, lambda name, value, now: files_of({"files": value}))


class EvidenceConsumer(Stateful):
    """Evaluates one partition of the evidence.

    ``config`` holds the models and experiments of this partition. ``inputs`` are the names of all
    input partitions that must be complete before a slot is evaluated. ``state`` is the result of
    :meth:`dump_state` of the previous owner; without one, ``begin`` is the offset of the first
    message to read, and ``files`` is the content of the state folder, by path. Raises SnapshotError
    for a state that is damaged or of another version.
    """

    state_version = 2

    inputs: Config[frozenset[str]]
    complete: Saved[dict[str, float]]
    """Unix time up to which each input is complete."""
    last_slot: Saved[int | None]
    """Number of the last slot that was evaluated."""
    last_slot_offset: Saved[Count]
    """Offset of the first message that was read after that slot was evaluated."""
    next_offset: Saved[Count]
    """Offset of the next message to read."""
    late: Saved[Count]
    rows: Saved[Count]
    routes_changed: Saved[bool]
    """Whether a route or a stage has changed since the routes were last published."""
    now: Saved[float]
    """End of the last evaluated slot, as unix time."""
    folder: Transient[Path]
    config: Config[Configuration]
    pipeline: Saved[Pipeline]
    experiments: Config[ExperimentRunner]
    """Part of the pipeline, which saves it; likewise ``findings_loop``."""
    findings_loop: Config[FindingsLoop]
    _waiting: Transient[dict[int, list[tuple[int, ColumnBatch]]]]
    _files: Saved[Annotated[dict[str, bytes], _FILES]]
    """Content of the folder, by path, as of the last dump or load."""

    def __init__(
        self,
        config: Configuration,
        inputs: Iterable[str],
        state: Mapping[str, Any] | None = None,
        *,
        begin: int = 0,
        files: Mapping[str, bytes] | None = None,
    ) -> None:
        self.inputs = frozenset(inputs)
        self.complete = {}
        self.last_slot = None
        self.last_slot_offset = self.next_offset = begin
        self.late = 0
        self.rows = 0
        self.routes_changed = False
        self.now = 0.0
        self._waiting = {}
        self._files = {}
        if state is not None:
            self.now = _now_of(state)
            files = files_of(state)
        self.folder = Path(tempfile.mkdtemp(prefix="understudy-evidence-"))
        for name, content in (files or {}).items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.config = config.model_copy(update={"state_dir": str(self.folder)})
        document = self.config.model_dump(mode="json", by_alias=True)
        self.pipeline = Pipeline(Settings.from_json(document))
        self.experiments = ExperimentRunner(self.config, lambda: self.now)
        self.pipeline.experiments = self.experiments
        self.findings_loop = self.pipeline.findings_loop = FindingsLoop(
            self.config, self.folder, lambda: self.now
        )
        if state is None:
            self.findings_loop.load_state({})
        else:
            try:
                self.load_state(state)
            except (StateError, LookupError, TypeError, ValueError, AttributeError) as error:
                self.close()
                raise SnapshotError(f"the state has another format: {error!r}") from error

    def close(self) -> None:
        """Delete the temporary state folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # Input --------------------------------------------------------------------------------------

    def take(self, message: Message, offset: int) -> None:
        """Take a message at ``offset`` of the evidence partition."""
        if message.complete is not None:
            before = self.complete.get(message.input, -math.inf)
            self.complete[message.input] = max(before, message.complete)
        for slot, batch in message.batches:
            if self.last_slot is not None and slot <= self.last_slot:
                self.late += len(batch)
                slot = self.last_slot + 1
            self._waiting.setdefault(slot, []).append((offset, batch))
        self.next_offset = offset + 1

    def replay(self, message: Message, offset: int) -> None:
        """Take a message again that was read before the state was saved."""
        for slot, batch in message.batches:
            if self.last_slot is not None and slot <= self.last_slot:
                if offset < self.last_slot_offset:
                    continue  # evaluated with its slot, or with a later one
                slot = self.last_slot + 1
            self._waiting.setdefault(slot, []).append((offset, batch))

    @property
    def resume_offset(self) -> int:
        """Offset of the first message that must be read again after a restart."""
        offsets = (offset for batches in self._waiting.values() for offset, _ in batches)
        return min(offsets, default=self.next_offset)

    @property
    def waiting(self) -> int:
        """Rows whose slot is not complete yet."""
        return sum(len(batch) for batches in self._waiting.values() for _, batch in batches)

    # Evaluation ---------------------------------------------------------------------------------

    def advance(self) -> int:
        """Evaluate all complete slots; return the number of rows evaluated."""
        if not self.inputs <= self.complete.keys():
            return 0
        complete = min(self.complete[name] for name in self.inputs)
        last = math.floor(complete / SLOT_SECONDS) - 1
        if self.last_slot is None:
            # Time begins with the first row.
            first = min(self._waiting, default=last + 1)
            if first > last:
                return 0
            self.last_slot = first - 1
        if last <= self.last_slot:
            return 0
        rows = 0
        due = sorted(slot for slot in self._waiting if slot <= last)
        for slot in due:
            self._evaluate_empty_slots(slot - 1)
            batches = [batch for _, batch in self._waiting.pop(slot)]
            rows += sum(map(len, batches))
            self._evaluate(slot, batches)
        self._evaluate_empty_slots(last)
        self.last_slot_offset = self.next_offset
        self.rows += rows
        return rows

    def finish(self) -> None:
        """Evaluate all rows, complete or not, at the end of the input."""
        if self._waiting:
            end = (max(self._waiting) + 1) * SLOT_SECONDS
            self.complete = dict.fromkeys(self.inputs | self.complete.keys(), end)
            self.advance()

    def _evaluate_empty_slots(self, last: int) -> None:
        """Advance the clock over empty slots, up to ``last``."""
        assert self.last_slot is not None
        for slot in range(max(self.last_slot + 1, last - _MOST_EMPTY + 1), last + 1):
            self._evaluate(slot, [])

    def _evaluate(self, slot: int, batches: list[ColumnBatch]) -> None:
        self.last_slot = slot
        self.now = (slot + 1) * SLOT_SECONDS
        if batches:
            self.pipeline.records += sum(len(s) for s in batches if s.kind[0] == "requests")
            self.pipeline.feed(merge(batches))
        self.routes_changed |= self.experiments.tick()
        self.findings_loop.tick(self.now)

    def assignments(self) -> dict[str, Assignment]:
        """The active assignment, by experiment."""
        return {name: live.assignment() for name, live in self.experiments.live.items()}

    # State --------------------------------------------------------------------------------------

    def dump_state(self) -> Any:
        """The state as plain data, with floats at full precision."""
        with packed.exactly():
            return super().dump_state()

    def _before_dump(self) -> None:
        self._files = {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.suffix != ".tmp"
        }

    def _restored(self) -> None:
        if self.last_slot is not None:
            for live in self.experiments.live.values():
                live.recall(self.now)


def _now_of(state: Mapping[str, Any]) -> float:
    """The time of a state. Raises SnapshotError unless it is of this version."""
    version = state.get("version")
    if version != EvidenceConsumer.state_version:
        raise SnapshotError(
            f"version {version!r} found, version {EvidenceConsumer.state_version} expected"
        )
    now = state.get("now")
    if not isinstance(now, (int, float)):
        raise SnapshotError(f"now must be a number, not {now!r}")
    return float(now)


def files_of(state: Mapping[str, Any]) -> dict[str, bytes]:
    """The content of the state folder, by path, also of a state of another version: rollouts, the
    audit log and findings have formats of their own. Empty where that cannot be read."""
    files = state.get("files")
    if not isinstance(files, Mapping):
        return {}
    try:
        return {str(name): base64.b64decode(content) for name, content in files.items()}
    except (TypeError, ValueError):
        return {}
