"""The first stage for one partition of the input: blocks in, evidence out.

Answers that wait for their counterpart are not stored in the state. The state names their records,
by the offset of their block and their index in it; the evaluator that takes over the partition
reads them again from the input. All predictions within the label horizon wait for labels, so these
are read again as a whole (docs/kafka-evaluation.md explains why).
"""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from understudy.monitor.config.model import Config
from understudy.monitor.evidence.batch import ColumnBatch
from understudy.monitor.evidence.blocks import Block, Heartbeat, LabelBlock, RecordBlock
from understudy.monitor.evidence.layout import EXPERIMENT_KINDS
from understudy.monitor.evidence.sources import Sources
from understudy.monitor.evidence.stage_one import StageOne
from understudy.monitor.labels.label import Label
from understudy.monitor.labels.store import FeedbackStore, Prediction

VERSION = 1
WAITS_SECONDS = 300.0
"""How long an answer waits for its counterpart, in seconds of the records' time."""


class Partition:
    """The first stage of one partition. ``name`` identifies the input in messages.

    Call :meth:`close` when done: it removes temporary files.
    """

    def __init__(self, config: Config, name: str) -> None:
        self.name = name
        self.config = config
        self.sources = Sources()
        self.label_sources = Sources()
        """Sources of the label topic, which is a separate log with its own sequence numbers."""
        self.records = 0
        self.labels = 0
        self.faults: Counter[str] = Counter()
        self.stage_one = StageOne(config.champion.name, self._fault)
        self.stage_one.configure(config)
        self.collectors = self.stage_one.collectors
        self.wants_labels = config.feedback.enabled and (
            any(one.layout.wants_labels for one in self.collectors.values())
            or any(model.performance is not None for model in config.models)
        )
        self._predictions: list[Prediction] = []
        self._labels: list[tuple[float, Label]] = []
        self._folder: Path | None = None
        self._store: FeedbackStore | None = None
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
            collector.mirrored.expire(self.sources.complete - WAITS_SECONDS)
        return self.stage_one.drain()

    def _join(self) -> None:
        if not (self._predictions or self._labels):
            return
        store = self._opened()
        if self._predictions:
            store.add_predictions(self._predictions)
            self._predictions.clear()
        if self._labels:
            store.add_received(self._labels)
            self._labels.clear()
        while joined := store.take(self._last):
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
                self._folder, limits.horizon, limits.max_size, limits.max_rows
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

    def to_dict(self) -> dict[str, Any]:
        """The state as JSON data. Call it between two calls of :meth:`take`."""
        return {
            "version": VERSION,
            "sources": self.sources.to_dict(),
            "label_sources": self.label_sources.to_dict(),
            "records": self.records,
            "labels": self.labels,
            "faults": dict(self.faults),
            "feedback": self._store.counts() if self._store is not None else [],
            "oldest": self._store.oldest() if self._store is not None else None,
            "waiting": {
                name: collector.mirrored.waiting_for()
                for name, collector in self.collectors.items()
            },
        }

    def restore(self, state: Mapping[str, Any]) -> PartitionRestore:
        """Load a state; returns what has to be read again.

        Raises KeyError, TypeError or ValueError when the state is malformed.
        """
        if state["version"] != VERSION:
            raise ValueError(f"unknown version {state['version']!r}")
        self.sources.restore(state["sources"])
        self.label_sources.restore(state["label_sources"])
        self.records, self.labels = int(state["records"]), int(state["labels"])
        self.faults = Counter(state["faults"])
        waiting = {
            name: {
                challenger: {(int(offset), int(index)) for offset, index in positions}
                for challenger, positions in by_challenger.items()
            }
            for name, by_challenger in state["waiting"].items()
        }
        counts = [(str(what), str(of), float(n)) for what, of, n in state.get("feedback", ())]
        since = self.sources.complete - self.config.feedback.horizon
        if (oldest := state.get("oldest")) is not None:
            # The store may have kept less than the horizon, within its size limit. Clocks differ,
            # so a label may appear older than its prediction.
            since = max(since, oldest - WAITS_SECONDS)
        return PartitionRestore(self, waiting, counts, since)


class PartitionRestore:
    """Reads the records again that were waiting when the state was saved.

    ``offsets`` are the offsets of their blocks. No prediction that waits for a label is older than
    ``since`` (unix time).
    """

    def __init__(
        self,
        partition: Partition,
        waiting: Mapping[str, Mapping[str, set[tuple[int, int]]]],
        counts: Sequence[tuple[str, str, float]],
        since: float,
    ) -> None:
        self.since = since
        self._partition = partition
        self._counts = counts
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
        partition._join()
        partition.stage_one.drain()
        if self._counts or partition._store is not None:
            # Labels that were read again were counted before: restore the counts of the state.
            partition._opened().load_counts(self._counts)
        for collector in partition.collectors.values():
            collector.mirrored.restoring = None
