"""From a batch of encoded records to the accumulators.

Records are decoded one by one and collected in blocks, as for Kafka; everything after that works on
whole columns. A record that cannot be used is counted by reason and never stops its batch.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from typing import Annotated, Any

from understudy.common.codecs import Undecodable
from understudy.monitor.archive.recorder import Recorder
from understudy.monitor.errors import RecordError, StateError
from understudy.monitor.evidence.batch import ColumnBatch, merge
from understudy.monitor.evidence.blocks import Builder, RecordBlock
from understudy.monitor.evidence.blocks.block import Decoded
from understudy.monitor.evidence.columns import Column
from understudy.monitor.evidence.decoding import Decoder
from understudy.monitor.evidence.feature_stats import FeatureStats
from understudy.monitor.evidence.prediction_stats import Predictions
from understudy.monitor.evidence.redaction import redaction_of_settings
from understudy.monitor.evidence.rows import ANSWERS, REQUESTS, ROWS, UNDECODABLE, parts_of
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.evidence.stage_one import JOINED, StageOne, joined_of
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.health.findings_loop import FindingsLoop
from understudy.monitor.labels.label import Label
from understudy.monitor.labels.store import Joined
from understudy.monitor.pipeline.exemplars import Exemplars
from understudy.monitor.pipeline.recent import Recent
from understudy.monitor.pipeline.served import ServedVersions, served_version
from understudy.monitor.pipeline.token_window import TokenWindow
from understudy.monitor.records.encode import FIXED
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import OPEN, Record, decode_batch
from understudy.shadow.state import Config, Converter, Count, Key, Saved, Stateful, Transient

log = logging.getLogger(__name__)

_MAX_MODELS = 256
TOO_MANY_MODELS = "too_many_models"
"""Reason why the rows of a further model are not in the summaries."""
MOST_RECORDS = 1024
"""Maximum number of records of one model that are evaluated together."""

ModelKey = tuple[str, str]
"""(model, version)"""
ArmKey = tuple[str, str, str]
"""(model, version, arm)"""


def _load_part(name: str, value: Any, now: Any) -> Any:
    if now is not None:
        now.load_state(value)
    return now


_PART = Converter(lambda part: part.dump_state() if part is not None else {}, _load_part)
"""For a part that may be missing; its state is then empty."""


class Pipeline(Stateful):
    """Statistics, experiments and findings of one process, updated from records and labels.

    Payloads are not part of the state.
    """

    settings: Config[Settings]
    decoder: Config[Decoder]
    records: Saved[Count]
    features: Saved[dict[ModelKey, FeatureStats]]
    predictions: Saved[dict[ArmKey, Predictions]]
    undecodable: Saved[Counter[tuple[str, str, str, str, str]]]
    """(model, version, arm, part of the exchange, reason)"""
    served: Transient[ServedVersions]
    exemplars: Transient[Exemplars]
    recent: Transient[Recent]
    token_window: Transient[TokenWindow]
    stage_one: Config[StageOne]
    experiments: Saved[Annotated[ExperimentRunner | None, _PART]]
    """None if the configuration has no champion; likewise ``findings_loop``."""
    findings_loop: Saved[Annotated[FindingsLoop | None, _PART, Key("judge")]]
    recorder: Config[Recorder | None]
    traces: Config[Callable[[Names, Sequence[Record]], None] | None]
    """Takes the records of each batch, for OpenTelemetry; None if it gets none."""
    labels: Saved[Count]
    """Number of the last joined label that was evaluated."""
    _builder: Transient[Builder]
    _error_logged: Transient[bool]

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.decoder = Decoder(settings)
        self.records = 0
        self.features = {}
        self.predictions = {}
        self.undecodable = Counter()
        self.served = ServedVersions()
        self.exemplars = Exemplars()
        self.recent = Recent(settings.keep)
        self.token_window = TokenWindow()
        self.stage_one = StageOne(settings.arms[0], self._fault)
        self.experiments = None
        self.findings_loop = None
        self.recorder = None
        self.traces = None
        self._builder = Builder("", "", 1, MOST_RECORDS)
        self.labels = 0
        self._error_logged = False

    def configure(self, settings: Settings) -> None:
        """Apply another configuration; the accumulators stay."""
        self.flush()
        self.settings = settings
        self.stage_one.champion = settings.arms[0]
        self.decoder = Decoder(settings)
        self.recent.resize(settings.keep)
        self._configure_predictions()
        for model in settings.models:
            known = self.features.get((model.name, model.version))
            if known is not None:
                known.expect(self.decoder.expected((model.name, model.version)))

    def take(self, names: Names, count: int, data: bytes, batch: str = "") -> None:
        """Take one batch of ``count`` records from a worker that uses ``names``. Never raises.

        ``batch`` is its id, by which the record log recognises it when it is sent again.

        Records wait until there are enough for a block, or until :meth:`flush`."""
        self.records += count
        try:
            try:
                records = decode_batch(data)
            except RecordError:
                records = list(_readable_records(data))
            if len(records) != count:
                self.undecodable["", "", "", "record", "damaged"] += max(0, count - len(records))
            self.recent.add(names, [record for record in records if record.outcome != OPEN])
            if self.recorder is not None:
                for index, record in enumerate(records):
                    self.recorder.add(names, record, batch, index)
            if self.traces is not None:
                self.traces(names, records)
            self._take_records(names, records)
        except Exception:
            # The batch must be acknowledged all the same; the worker would resend it forever.
            self.undecodable["", "", "", "record", "internal"] += count
            self._log_once("a batch of %d records could not be evaluated", count)

    def _take_records(self, names: Names, records: Sequence[Record]) -> None:
        for record in records:
            if record.sampled and record.outcome != OPEN:
                model, version, _ = names.model(record.model)
                self.exemplars.add(model, version, names.arm(record.arm), record)
        blocks = self._builder.extend(names, self._decoded(names, records), 0.0)
        if blocks:
            self._take_blocks(blocks)
            # Experiments get their rows when they are evaluated: each verdict is costly.
            self.feed(merge(self.stage_one.drain_rows()))

    def _decoded(
        self, names: Names, records: Sequence[Record]
    ) -> Iterator[tuple[Record, Decoded, Decoded]]:
        """Lazily: a row that is appended at once is still in the CPU cache."""
        decode, model = self.decoder.decode, names.model
        for record in records:
            request, response = decode(model(record.model), record)
            if request.lost or response.lost:
                for why in request.lost:
                    self._count(names, record, "request", why)
                for why in response.lost:
                    self._count(names, record, "response", why)
            version = served_version(record, response)
            if version:
                key = (*model(record.model)[:2], names.arm(record.arm))
                self.served.add(key, version, record)
            yield record, request, response

    def _count(self, names: Names, record: Record, part: str, why: Undecodable) -> None:
        """Count a payload, or a column of one, that cannot be read."""
        model, version, _ = names.model(record.model)
        self.undecodable[model, version, names.arm(record.arm), part, why.reason] += 1

    def _take_blocks(self, blocks: Sequence[RecordBlock]) -> None:
        experiments = self.experiments
        if experiments is not None and experiments.config is not self.stage_one.config:
            self.stage_one.configure(experiments.config)
        for block in blocks:
            self.stage_one.take(block)

    def take_labels(self, joined: Sequence[Joined]) -> None:
        """Evaluate labels that were joined to their predictions. The number of the last one is part
        of the same state as the accumulators."""
        if not joined:
            return
        self.labels = joined[-1].seq
        self._take_blocks(())
        self.stage_one.take_labels(joined)

    def flush(self) -> None:
        """Evaluate all records received so far. Never raises."""
        try:
            self._take_blocks(self._builder.flush(0.0, everything=True))
            for collector in self.stage_one.collectors.values():
                collector.mirrored.expire()
            self.feed(merge(self.stage_one.drain()))
        except Exception:
            self.undecodable["", "", "", "record", "internal"] += 1
            self._log_once("records could not be evaluated")

    # Stage two ----------------------------------------------------------------------------------

    def feed(self, batches: Sequence[ColumnBatch]) -> None:
        """Evaluate rows of evidence: one batch per key, each in order of time. Never raises."""
        for_experiments: list[ColumnBatch] = []
        for batch in batches:
            try:
                if not self._feed(batch):
                    for_experiments.append(batch)
            except Exception:
                version = batch.kind[2] if len(batch.kind) > 2 else ""
                self._fault(batch.kind[1], version, "", "watch", 1)
        if for_experiments and self.experiments is not None:
            try:
                self.experiments.feed(for_experiments)
            except Exception:
                self._fault("", "", "", "experiment", 1)

    def _feed(self, batch: ColumnBatch) -> bool:
        kind, *key = batch.kind
        watches = self.findings_loop.watches if self.findings_loop is not None else None
        if kind == ROWS:
            model, version, arm, _ = key
            features, inputs, names, answers = parts_of(batch)
            features_stats = self._features_for((model, version))
            if features_stats is not None:
                features_stats.add(features, inputs, len(batch))
            else:
                self.undecodable["", "", "", "features", TOO_MANY_MODELS] += len(batch)
            if names:
                self._add_predictions((model, version, arm), names, answers, batch)
        elif kind == ANSWERS:
            model, version, arm = key
            self._add_predictions((model, version, arm), batch.names[1:], batch.columns[1:], batch)
        elif kind == UNDECODABLE:
            model, version, arm, part, reason = key
            self.undecodable[model, version, arm, part, reason] += len(batch)
        elif kind == JOINED:
            for joined in joined_of(batch):
                if watches is not None:
                    watches.take_label(joined)
        elif kind != REQUESTS:
            return False
        if watches is not None and kind in (ROWS, REQUESTS):
            watches.feed((batch,))
        return True

    def _add_predictions(
        self, key: ArmKey, names: tuple[str, ...], columns: Sequence[Column], batch: ColumnBatch
    ) -> None:
        predictions = self._predictions_for(key)
        if predictions is not None:
            predictions.add(names, columns, len(batch))
            self.token_window.add(key, names, columns, batch.at)
        else:
            self.undecodable["", "", "", "predictions", TOO_MANY_MODELS] += len(batch)

    def record_labels(self, labels: Sequence[Label], received: float) -> None:
        """Write labels to the record log, if there is one; ``received`` is unix seconds."""
        if self.recorder is not None:
            for label in labels:
                self.recorder.add_label(label, received)

    def _fault(self, model: str, version: str, arm: str, source: str, count: int) -> None:
        """Count an internal error in one source of findings; the other sources are unaffected."""
        self.undecodable[model, version, arm, source, "internal"] += count
        self._log_once("records could not be evaluated by %r", source)

    def _log_once(self, text: str, *what: object) -> None:
        if not self._error_logged:
            log.exception(text, *what)
            self._error_logged = True

    def _features_for(self, key: ModelKey) -> FeatureStats | None:
        known = self.features.get(key)
        if known is None and len(self.features) < _MAX_MODELS:
            known = self.features[key] = FeatureStats(self.decoder.expected(key))
        return known

    def _predictions_for(self, key: ArmKey) -> Predictions | None:
        known = self.predictions.get(key)
        if known is None and len(self.predictions) < _MAX_MODELS:
            known = self.predictions[key] = Predictions()
            known.configure(*self._prediction_settings())
        return known

    @property
    def version(self) -> tuple[int, ...]:
        """Changes whenever the state should be saved."""
        return self.records, *(
            self.findings_loop.service.version if self.findings_loop is not None else ()
        )

    def _before_dump(self) -> None:
        self.flush()

    def load_state(self, state: Any) -> None:
        """Restore a saved state. Raises StateError when its format differs."""
        try:
            super().load_state(state)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise StateError(f"the saved state has an unknown format: {error!r}") from error

    def _restored(self) -> None:
        for kept in (self.features, self.predictions):
            if len(kept) > _MAX_MODELS:
                raise ValueError(f"{len(kept)} models, at most {_MAX_MODELS} are kept")
        for key, stats in self.features.items():
            stats.expect(self.decoder.expected(key))
        self._configure_predictions()

    def _configure_predictions(self) -> None:
        for of_arm in self.predictions.values():
            of_arm.configure(*self._prediction_settings())

    def _prediction_settings(self) -> tuple[Sequence[float], int, Callable[[str], bool]]:
        hides = redaction_of_settings(self.settings).hides
        return self.settings.prediction_buckets, self.settings.max_classes, hides


def _readable_records(data: bytes) -> Iterator[Record]:
    """Records of a damaged batch that can still be read, by their size fields."""
    position = 0
    while position + FIXED.size <= len(data):
        size = int.from_bytes(data[position : position + 4], "little")
        if size < FIXED.size or position + size > len(data):
            return
        try:
            yield from decode_batch(data[position : position + size])
        except RecordError:
            pass
        position += size
