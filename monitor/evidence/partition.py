"""The first stage for one partition of the input: blocks in, evidence out.

Answers that wait for their counterpart are not stored in the state. The state names their records,
by the offset of their block and their index in it; the evaluator that takes over the partition
reads them again from the input. All predictions within the label horizon wait for labels, so these
are read again as a whole (docs/kafka-evaluation.md explains why).
"""

from __future__ import annotations

import math
import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.monitor.config.model import Config as Configuration
from understudy.monitor.errors import SnapshotError
from understudy.monitor.evidence.arms import WAITS_SECONDS
from understudy.monitor.evidence.batch import ColumnBatch
from understudy.monitor.evidence.blocks import Block, Heartbeat, LabelBlock, RecordBlock
from understudy.monitor.evidence.collector import EvidenceCollector
from understudy.monitor.evidence.layout import EXPERIMENT_KINDS
from understudy.monitor.evidence.sources import Sources
from understudy.monitor.evidence.stage_one import StageOne
from understudy.monitor.labels.label import Label
from understudy.monitor.labels.store import FeedbackStore, Prediction
from understudy.shadow.state import Config, Count, Saved, Stateful, Transient


class Partition(Stateful):
    """The first stage of one partition. ``name`` identifies the input in messages.

    Call :meth:`close` when done: it removes temporary files.
    """

    state_version = 2

    name: Config[str]
    config: Config[Configuration]
    sources: Saved[Sources]
    label_sources: Saved[Sources]
    records: Saved[Count]
    labels: Saved[Count]
    faults: Saved[Counter[str]]
    stage_one: Config[StageOne]
    collectors: Config[dict[str, EvidenceCollector]]
    wants_labels: Config[bool]
    _feedback: Saved[list[tuple[str, str, float]]]
    """Counts of labels; like the next two, as of the last dump or load."""
    _oldest: Saved[float | None]
    """When the oldest prediction was made that waits for a label, as unix time."""
    _waiting: Saved[dict[str, dict[str, list[tuple[int, int]]]]]
    """Offset and place of the records that wait, by experiment and challenger."""
    _predictions: Transient[list[Prediction]]
    _labels: Transient[list[tuple[float, Label]]]
    _folder: Transient[Path | None]
    _store: Transient[FeedbackStore | None]
    _last: Transient[int]

    def __init__(self, config: Configuration, name: str) -> None:
        self.name = name
        self.config = config
        self.sources = Sources()
        self.label_sources = Sources()
        """Sources of the label topic, which is a separate log with its own sequence numbers."""
        self.records = 0
        self.labels = 0
        self.faults = Counter()
        self.stage_one = StageOne(config.champion.name, self._fault)
        self.stage_one.configure(config)
        self.collectors = self.stage_one.collectors
        self.wants_labels = config.feedback.enabled and (
            any(one.layout.wants_labels for one in self.collectors.values())
            or any(model.performance is not None for model in config.models)
        )
        self._feedback = []
        self._oldest = None
        self._waiting = {}
        self._predictions = []
        self._labels = []
        self._folder = None
        self._store = None
        self._last = 0
        if self.wants_labels:
            self.stage_one.offer = self._predictions.append

    def close(self) -> None:
        """Remove the temporary files."""
        if self._store is not None:
            self._store.close()
            self._store = None
        if self._folder is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            self._folder = None

    def _fault(self, model: str, version: str, arm: str, stage: str, count: int) -> None:
        self.faults[stage] += count

    # In -----------------------------------------------------------------------------------------

    def take(self, block: Block, offset: int, of_labels: bool = False) -> int:
        """Take the block at ``offset`` of the label topic (``of_labels``) or of the record topic.

        Returns the number of new records or labels; 0 for duplicates and heartbeats.
        """
        sources = self.label_sources if of_labels else self.sources
        if isinstance(block, Heartbeat):
            sources.heartbeat(block)
            return 0
        if not sources.is_new(block.head):
            return 0
        if isinstance(block, LabelBlock):
            self.labels += len(block.labels)
            if self.wants_labels:
                self._labels += block.labels
            return len(block.labels)
        self.stage_one.take(block, offset)
        self.records += block.count
        return block.count

    # Out ----------------------------------------------------------------------------------------

    def drain(self) -> list[ColumnBatch]:
        """The evidence since the last call. Raises StateError when writing to disk fails."""
        self._join()
        for collector in self.collectors.values():
            collector.mirrored.expire(self.sources.complete)
        return self.stage_one.drain()

    def _join(self) -> None:
        settling = self._store is not None and self.config.feedback.settle
        if not (self._predictions or self._labels or settling):
            return
        store = self._opened()
        if self._predictions:
            store.add_predictions(self._predictions)
            self._predictions.clear()
        if self._labels:
            store.add_received(self._labels)
            self._labels.clear()
        settled = self.sources.complete if self.config.feedback.settle else math.inf
        while joined := store.take(self._last, settled):
            self.stage_one.take_labels(joined)
            self._last = joined[-1].seq
        store.release(self._last)
        if self.sources.complete > 0.0:
            store.purge(self.sources.complete)

    def _opened(self) -> FeedbackStore:
        if self._store is None:
            self._folder = Path(tempfile.mkdtemp(prefix="understudy-labels-"))
            limits = self.config.feedback
            self._store = FeedbackStore(
                self._folder,
                limits.horizon,
                limits.max_size,
                limits.max_rows,
                settle=limits.settle,
            )
        return self._store

    def feedback(self) -> dict[str, Any] | None:
        """Counts of labels, as in :meth:`FeedbackStore.figures`; None without any."""
        if self._store is None:
            return None
        return {**self._store.figures(), "failures": self._store.failures}

    def is_for_experiment(self, batch: ColumnBatch) -> bool:
        """Whether a batch is evidence about an experiment; otherwise it is about a model."""
        return batch.kind[0] in EXPERIMENT_KINDS

    @property
    def complete(self) -> float | None:
        """The unix time up to which all records have arrived; None before the first heartbeat."""
        return self.sources.complete if self.sources.complete > float("-inf") else None

    # State --------------------------------------------------------------------------------------

    def _before_dump(self) -> None:
        store = self._store
        self._feedback = store.counts() if store is not None else []
        self._oldest = store.oldest() if store is not None else None
        self._waiting = {
            name: collector.mirrored.waiting_for() for name, collector in self.collectors.items()
        }

    def load_state(self, state: Any) -> None:
        """Take over a state; then read again what :meth:`restoring` says. Raises SnapshotError for
        a state of another version or shape, and cannot be used then."""
        try:
            super().load_state(state)
        except (ValueError, KeyError, TypeError) as error:
            raise SnapshotError(str(error)) from error

    def restoring(self) -> PartitionRestore:
        """What is to be read again after :meth:`load_state`."""
        since = self.sources.complete - self.config.feedback.horizon
        if self._oldest is not None:
            # Of a long horizon only as much was kept as there is room for. Clocks differ, so that a
            # label may seem to be older than its prediction.
            since = max(since, self._oldest - WAITS_SECONDS)
        waiting = {
            name: {challenger: set(places) for challenger, places in one.items()}
            for name, one in self._waiting.items()
        }
        return PartitionRestore(self, waiting, since)


class PartitionRestore:
    """Reads the records again that were waiting when the state was saved.

    ``offsets`` are the offsets of their blocks. No prediction that waits for a label is older than
    ``since`` (unix time).
    """

    def __init__(
        self,
        partition: Partition,
        waiting: Mapping[str, Mapping[str, set[tuple[int, int]]]],
        since: float,
    ) -> None:
        self.since = since
        self._partition = partition
        self._counts = partition._feedback
        self.offsets = sorted(
            {
                offset
                for by_challenger in waiting.values()
                for positions in by_challenger.values()
                for offset, _ in positions
            }
        )
        for name, collector in partition.collectors.items():
            collector.mirrored.restoring = waiting.get(name, {})

    def take(self, block: Block, offset: int) -> None:
        """Take a block a second time, at ``offset`` of its input."""
        partition = self._partition
        if isinstance(block, RecordBlock):
            partition.stage_one.take(block, offset)
        elif isinstance(block, LabelBlock) and partition.wants_labels:
            partition._labels += block.labels
        if len(partition._predictions) + len(partition._labels) > 10_000:
            partition._join()
            partition.stage_one.drain()

    def done(self) -> None:
        """End the restore: all blocks were read, new ones may follow."""
        partition = self._partition
        # All of this was evidence before the state was saved, unfinished requests too.
        partition.drain()
        if self._counts or partition._store is not None:
            # Labels that were read again were counted before: restore the counts of the state.
            partition._opened().load_counts(self._counts)
        for collector in partition.collectors.values():
            collector.mirrored.restoring = None
