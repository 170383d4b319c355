"""The second stage: the evidence of all partitions, slot by slot, before the rooms that judge it.

Who owns a partition of the evidence judges what belongs there
(:mod:`understudy.monitor.kafka.partitions`). Rows are taken when their slot of event time is
complete in all inputs, in the order of :mod:`understudy.monitor.evidence.batch`, so that neither
the number of partitions nor that of evaluators matters. What comes after its slot was judged is
taken with the next one, and counted.

Evidence of slots that are not complete yet is not part of the state: it is read again. The state
says which slot was judged last and how far had been read then (``judged_at``) and now.
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
"""Empty slots that are judged one by one; of a longer pause only the last ones."""
_MOST_AHEAD = 3600
"""Slots that rows may be ahead of the last one judged; a clock beyond that is wrong."""


def _dump_files(files: Mapping[str, bytes]) -> dict[str, str]:
    return {name: base64.b64encode(content).decode() for name, content in files.items()}


_FILES = Converter(_dump_files, lambda name, value, now: files_of({"files": value}))


class EvidenceConsumer(Stateful):
    """``inputs`` are the names of all partitions that have to be complete before a slot is judged.
    ``state`` is that of the consumer before; without one, ``begin`` is the offset of the first
    message to read, and ``files`` the content of the state folder, by path.

    Raises SnapshotError for a state that is damaged or of another version.
    """

    state_version = 2

    inputs: Config[frozenset[str]]
    complete: Saved[dict[str, float]]
    """By input."""
    judged: Saved[int | None]
    """The last slot that was judged."""
    judged_at: Saved[Count]
    """Offset of the first message that was read after that."""
    read: Saved[Count]
    """Offset of the next message."""
    late: Saved[Count]
    rows: Saved[Count]
    moved: Saved[bool]
    """Whether a route or a stage has changed since somebody asked."""
    now: Saved[float]
    """End of the last slot judged, as unix time."""
    folder: Transient[Path]
    config: Config[Configuration]
    pipeline: Saved[Pipeline]
    experiments: Config[ExperimentRunner]
    """Of the pipeline, as is the next."""
    watcher: Config[FindingsLoop]
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
        self.judged = None
        self.judged_at = self.read = begin
        self.late = 0
        self.rows = 0
        self.moved = False
        self.now = 0.0
        self._waiting = {}
        self._files = {}
        if state is not None:
            self.now = _now_of(state)
            files = files_of(state)
        self.folder = Path(tempfile.mkdtemp(prefix="understudy-judge-"))
        for name, content in (files or {}).items():
            path = self.folder / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        self.config = config.model_copy(update={"state_dir": str(self.folder)})
        document = self.config.model_dump(mode="json", by_alias=True)
        self.pipeline = Pipeline(Settings.from_json(document))
        self.experiments = ExperimentRunner(self.config, lambda: self.now)
        self.pipeline.experiments = self.experiments
        self.watcher = self.pipeline.findings_loop = FindingsLoop(
            self.config, self.folder, lambda: self.now
        )
        if state is None:
            self.watcher.load_state({})
        else:
            try:
                self.load_state(state)
            except (StateError, LookupError, TypeError, ValueError, AttributeError) as error:
                self.close()
                raise SnapshotError(f"the state has another shape: {error!r}") from error

    def close(self) -> None:
        """Throw the folder away."""
        shutil.rmtree(self.folder, ignore_errors=True)

    # In -----------------------------------------------------------------------------------------

    def take(self, message: Message, offset: int) -> None:
        """Take a message that lies at ``offset`` of the evidence's partition."""
        if message.complete is not None:
            before = self.complete.get(message.input, -math.inf)
            self.complete[message.input] = max(before, message.complete)
        for slot, batch in message.batches:
            if self.judged is not None and slot <= self.judged:
                self.late += len(batch)
                slot = self.judged + 1
            self._waiting.setdefault(slot, []).append((offset, batch))
        self.read = offset + 1

    def take_again(self, message: Message, offset: int) -> None:
        """The same of a message that was read before the state was saved."""
        for slot, batch in message.batches:
            if self.judged is not None and slot <= self.judged:
                if offset < self.judged_at:
                    continue  # judged with its slot, or with a later one
                slot = self.judged + 1
            self._waiting.setdefault(slot, []).append((offset, batch))

    @property
    def needed(self) -> int:
        """Offset of the first message that has to be read again by who goes on."""
        offsets = (offset for batches in self._waiting.values() for offset, _ in batches)
        return min(offsets, default=self.read)

    @property
    def waiting(self) -> int:
        """Rows whose slot is not complete yet."""
        return sum(len(batch) for batches in self._waiting.values() for _, batch in batches)

    # Judging ------------------------------------------------------------------------------------

    def advance(self) -> int:
        """Judge all slots that are complete; how many rows that were."""
        if not self.inputs <= self.complete.keys():
            return 0
        complete = min(self.complete[name] for name in self.inputs)
        last = math.floor(complete / SLOT_SECONDS) - 1
        if self.judged is None:
            # Time begins with the first row.
            first = min(self._waiting, default=last + 1)
            if first > last:
                return 0
            self.judged = first - 1
        if last <= self.judged:
            return 0
        rows = 0
        due = sorted(slot for slot in self._waiting if slot <= last)
        for slot in due:
            self._pass(slot - 1)
            batches = [batch for _, batch in self._waiting.pop(slot)]
            rows += sum(map(len, batches))
            self._judge(slot, batches)
        self._pass(last)
        self.judged_at = self.read
        self.rows += rows
        return rows

    def finish(self) -> None:
        """Judge whatever has come, complete or not: nothing more will come."""
        if self._waiting:
            end = (max(self._waiting) + 1) * SLOT_SECONDS
            self.complete = dict.fromkeys(self.inputs | self.complete.keys(), end)
            self.advance()

    def _pass(self, last: int) -> None:
        """Let empty slots pass, up to ``last``."""
        assert self.judged is not None
        for slot in range(max(self.judged + 1, last - _MOST_EMPTY + 1), last + 1):
            self._judge(slot, [])

    def _judge(self, slot: int, batches: list[ColumnBatch]) -> None:
        self.judged = slot
        self.now = (slot + 1) * SLOT_SECONDS
        if batches:
            self.pipeline.records += sum(len(s) for s in batches if s.kind[0] == "requests")
            self.pipeline.feed(merge(batches))
        self.moved |= self.experiments.tick()
        self.watcher.tick(self.now)

    def assignments(self) -> dict[str, Assignment]:
        """What is in force, by experiment."""
        return {name: live.assignment() for name, live in self.experiments.live.items()}

    # State --------------------------------------------------------------------------------------

    def dump_state(self) -> Any:
        """As JSON, with all digits."""
        with packed.exactly():
            return super().dump_state()

    def _before_dump(self) -> None:
        self._files = {
            str(path.relative_to(self.folder)): path.read_bytes()
            for path in sorted(self.folder.rglob("*"))
            if path.is_file() and path.suffix != ".tmp"
        }

    def _restored(self) -> None:
        if self.judged is not None:
            for live in self.experiments.live.values():
                live.recall(self.now)


def _now_of(state: Mapping[str, Any]) -> float:
    """The time of a state. Raises SnapshotError unless it is of this version."""
    found = state.get("version")
    if found != EvidenceConsumer.state_version:
        raise SnapshotError(
            f"version {found!r} found, version {EvidenceConsumer.state_version} expected"
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
