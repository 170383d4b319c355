"""The watches of all models: their baselines, their state, and the present problems."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.config.model import Config, Model
from understudy.monitor.config.objective import Objective
from understudy.monitor.config.performance import Performance
from understudy.monitor.errors import UnderstudyError
from understudy.monitor.evidence.batch import ColumnBatch
from understudy.monitor.evidence.columns import listed
from understudy.monitor.evidence.redaction import redaction_of
from understudy.monitor.evidence.rows import REQUESTS, ROWS, STARTED, parts_of
from understudy.monitor.findings.finding import Signal
from understudy.monitor.health.arrivals import Arrivals, unmatched_labels
from understudy.monitor.health.drift.signals import signals_of
from understudy.monitor.health.drift.summary import summary_of
from understudy.monitor.health.drift.watch import ModelWatch
from understudy.monitor.health.objectives.watch import ObjectiveWatch
from understudy.monitor.health.options import Options
from understudy.monitor.health.performance.signals import performance_signals
from understudy.monitor.health.performance.watch import PerformanceWatch
from understudy.monitor.health.readable import Readability, Unreadable
from understudy.monitor.health.untested import Untested
from understudy.monitor.labels.store import Joined
from understudy.shadow.state import Stateful

log = logging.getLogger(__name__)

ModelKey = tuple[str, str]
"""(model, version)"""
_MOST_MODELS = 256
"""Models that are watched, of those that are not listed."""
FOLDER = "baselines"
"""Folder in the state directory with baselines that were learned from live rows."""


class Watches:
    """Watches the predictions of the ``champion`` arm, and the inputs of all requests."""

    def __init__(self, config: Config) -> None:
        self.champion = ""
        self.options = Options()
        self.watches: dict[ModelKey, ModelWatch] = {}
        self.learning: dict[ModelKey, Builder] = {}
        self.errors: dict[ModelKey, str] = {}
        """By model: why it cannot be watched."""
        self.performance: dict[ModelKey, PerformanceWatch] = {}
        self.readability: dict[ModelKey, Readability] = {}
        """Of all models whose payloads are to be read; the same of ``arrivals``."""
        self.arrivals: dict[ModelKey, Arrivals] = {}
        self.objectives: dict[ModelKey, ObjectiveWatch] = {}
        """Of all models, where the configuration has objectives for requests."""
        self.labels: Callable[[], Mapping[str, Any]] | None = None
        """Figures of the feedback store; None where there is none in this process."""
        self._settings: dict[ModelKey, Performance] = {}
        self._match: Model | None = None
        """The settings of models that are not listed, if these are read."""
        self._blind = 0.0
        self._learn = 0
        self._horizon = 0.0
        self._feedback = self._enabled = True
        self._folder = Path()
        self._sources: dict[ModelKey, str] = {}
        """By model: a fingerprint of the baseline and options of its watch."""
        self._performance_sources: dict[ModelKey, str] = {}
        """The same of its performance, which only the labelled part of a baseline changes."""
        self._objective_sources: dict[ModelKey, str] = {}
        self._objective_source = ""
        self._fresh_objectives: Callable[[], ObjectiveWatch] | None = None
        """Makes those of a model that is not listed, if there may be some."""
        self.configure(config)

    def configure(self, config: Config) -> None:
        """Apply another configuration; a watch keeps its state if its baseline and options stay the
        same."""
        monitoring = config.monitoring
        self._redaction = redaction_of(config)
        self.champion = config.champion.name
        self.options = Options(
            monitoring.run_length,
            monitoring.smallest_shift,
            monitoring.smallest_rate,
            monitoring.window,
            self._shown(monitoring.segments),
            monitoring.max_segments,
            monitoring.stale,
            monitoring.kernel,
            tuple(monitoring.detectors),
            tuple(monitoring.declared),
        )
        self._learn = monitoring.learn
        self._horizon = config.feedback.horizon
        self._feedback = config.feedback.enabled
        self._enabled = monitoring.enabled
        self._folder = Path(config.state_dir) / FOLDER
        baselines = {(m.name, m.version): m.baseline for m in config.models}
        self._settings = {
            (m.name, m.version): m.performance for m in config.models if m.performance
        }
        if not monitoring.enabled:
            baselines = {}
        first = config.models[0].name if config.models else ""
        opaque = {one.model or first for one in config.experiments if one.opaque_answers}
        readability, arrivals = {}, {}
        match = next((model for model in config.models if model.match is not None), None)
        self._match = match if monitoring.enabled and match is not None and match.read else None
        declared = {(model.name, model.version): model for model in config.models}
        if self._match is not None:
            others = [key for key in self.readability if key not in declared]
            declared |= dict.fromkeys(others, self._match)
        for key, model in declared.items() if monitoring.enabled else ():
            if model.read:
                known = readability[key] = self.readability.get(key) or Readability()
                known.answers = key[0] not in opaque
                known.share = monitoring.blind
                came = arrivals[key] = self.arrivals.get(key) or Arrivals()
                features, outputs = _declared(model)
                segments = self.options.segments
                came.configure(self.champion, features, segments, outputs, known.answers)
        self.readability, self.arrivals = readability, arrivals
        self._blind = monitoring.blind
        self._configure_objectives(config)
        for gone in [key for key in (*self.watches, *self.performance) if key not in baselines]:
            self._drop(gone)
        self.learning = {key: b for key, b in self.learning.items() if key in baselines}
        self.errors.clear()
        for key, file in baselines.items():
            try:
                self._prepare(key, file)
            except UnderstudyError as error:
                self.errors[key] = str(error)
                log.error("model %r cannot be watched: %s", key[0], error)
                self._drop(key)

    def _configure_objectives(self, config: Config) -> None:
        """Objectives are declared for themselves: they are tested with monitoring or without."""
        objectives = [Objective.parse(*one) for one in config.objectives.items()]
        arms = [config.champion.name, *(one.name for one in config.challengers)]
        source = _fingerprint(repr((objectives, arms, config.monitoring.run_length)))
        known, self.objectives = self.objectives, {}
        keys = dict.fromkeys((model.name, model.version) for model in config.models)
        fresh = partial(ObjectiveWatch, objectives, arms, config.monitoring.run_length)
        matching = any(model.match is not None for model in config.models)
        self._fresh_objectives = fresh if matching and fresh().objectives else None
        others = [key for key in known if key not in keys] if matching else []
        for key in (*keys, *others):
            watch = known.get(key) if self._objective_sources.get(key) == source else None
            if watch is None:
                watch = fresh()
            if watch.objectives:
                self.objectives[key] = watch
        self._objective_source = source
        self._objective_sources = dict.fromkeys(self.objectives, source)

    def _objectives_of(self, key: ModelKey) -> ObjectiveWatch | None:
        """The objectives of a model, also of one that is known from its requests."""
        watch = self.objectives.get(key)
        fresh = self._fresh_objectives
        if watch is None and fresh is not None and len(self.objectives) < _MOST_MODELS:
            watch = self.objectives[key] = fresh()
            self._objective_sources[key] = self._objective_source
        return watch

    def _prepare(self, key: ModelKey, file: str | None) -> None:
        path = Path(file) if file is not None else self._learned(key)
        if file is None and not path.exists():
            self._drop_watch(key)
            self._start_performance(key, None)
            if self._learn and key not in self.learning:
                self.learning[key] = Builder(model=key[0], model_version=key[1], source="live")
            return
        baseline = Baseline.load(path)
        baseline.check(*key)
        self._start(key, baseline)

    def _start(self, key: ModelKey, baseline: Baseline) -> None:
        source = _fingerprint(baseline.to_dict(), repr(self.options))
        self.learning.pop(key, None)
        if self._sources.get(key) != source:
            self.watches[key] = ModelWatch(baseline, self.options)
            self._sources[key] = source
        self._start_performance(key, baseline)

    def _start_performance(self, key: ModelKey, baseline: Baseline | None) -> None:
        """Judge the labels of a model, with a baseline or without; what it knows stays unless its
        settings or the labelled part of the baseline change."""
        settings = self._settings.get(key)
        if settings is None:
            self.performance.pop(key, None)
            self._performance_sources.pop(key, None)
            return
        options = self.options
        hidden: list[str] = []
        if settings.slices and baseline is not None:
            # Slices that were found among values that are hidden now must be deleted.
            hidden = sorted(set(baseline.columns) - set(self._shown(list(baseline.columns))))
        secret = self._redaction.hides(settings.prediction)
        labelled = baseline is not None and baseline.performance is not None
        source = _fingerprint(
            [baseline.performance, baseline.calibration] if baseline is not None else [None, None],
            repr(settings),
            repr((options.run_length, options.segments, self._horizon, hidden, secret)),
        )
        if self._performance_sources.get(key) != source:
            self.performance[key] = PerformanceWatch(
                settings,
                baseline if labelled else None,
                options.run_length,
                options.segments,
                self._horizon,
                secret,
            )
            self._performance_sources[key] = source

    def _drop_watch(self, key: ModelKey) -> None:
        self.watches.pop(key, None)
        self._sources.pop(key, None)

    def _drop(self, key: ModelKey) -> None:
        self._drop_watch(key)
        self.performance.pop(key, None)
        self._performance_sources.pop(key, None)

    def _learned(self, key: ModelKey) -> Path:
        name = "-".join("".join(c if c.isalnum() else "_" for c in part) for part in key)
        digest = hashlib.sha256(json.dumps(key).encode()).hexdigest()[:8]
        return self._folder / f"{name}-{digest}.json"

    # Rows ---------------------------------------------------------------------------------------

    def feed(self, batches: Iterable[ColumnBatch]) -> None:
        """Process batches of rows and requests, in order; batches of other models are ignored."""
        for batch in batches:
            key = (batch.kind[1], batch.kind[2])
            if self._match is not None and key not in self.readability:
                self._adopt(key, self._match)
            known = (self.watches, self.learning, self.performance, self.readability)
            if batch.kind[0] == REQUESTS:
                objectives = self._objectives_of(key)
                if objectives is not None:
                    objectives.take_requests(batch)
            if not any(key in models for models in known):
                continue
            if batch.kind[0] == REQUESTS:
                if key in self.readability:
                    self.readability[key].add(batch)
                    self.arrivals[key].take_requests(batch)
                if key in self.watches:
                    self.watches[key].requests(batch.floats("request"), batch.at)
            elif batch.kind[0] == ROWS:
                if key in self.arrivals:
                    self.arrivals[key].take_rows(batch)
                self._evaluate_rows(key, batch)
                done = self._learn_rows(key, batch)
                if done < len(batch) and key in self.watches:
                    self._watch_rows(key, batch.rows(slice(done, None)) if done else batch)

    def _adopt(self, key: ModelKey, settings: Model) -> None:
        """Watch a model that is known from its requests."""
        if len(self.readability) >= _MOST_MODELS:
            return
        known = self.readability[key] = Readability()
        known.share = self._blind
        came = self.arrivals[key] = Arrivals()
        features, outputs = _declared(settings)
        came.configure(self.champion, features, self.options.segments, outputs, known.answers)

    def _watch_rows(self, key: ModelKey, batch: ColumnBatch) -> None:
        features, _, names, _ = parts_of(batch)
        self.watches[key].take_rows(batch, (*features, *names), bool(names))

    def _learn_rows(self, key: ModelKey, batch: ColumnBatch) -> int:
        """Add rows to a baseline that is being learned; returns how many were used."""
        learning = None if key in self.watches else self.learning.get(key)
        if learning is None:
            return 0
        features, cells, names, answers = parts_of(batch)
        if not names:
            return len(batch)
        inputs, outputs = [listed(c) for c in cells], [listed(c) for c in answers]
        started = batch.floats(STARTED).tolist()
        ids = batch.ids
        begin = 0
        while begin < len(batch):
            end = begin + 1
            while end < len(batch) and (ids[end], started[end]) == (ids[begin], started[begin]):
                end += 1
            # The rows of one request.
            rows = range(begin, end)
            learning.add_rows(
                features,
                [column[row] for row in rows for column in inputs],
                names,
                [column[row] for row in rows for column in outputs],
                started[begin],
            )
            begin = end
            if learning.rows >= self._learn:
                self._learn_from(key, learning)
                break
        return begin

    def _evaluate_rows(self, key: ModelKey, batch: ColumnBatch) -> None:
        """Estimate the performance of the champion's predictions at once."""
        performance = self.performance.get(key)
        features, inputs, names, answers = parts_of(batch)
        if performance is None or performance.settings.prediction not in names:
            return
        cells = listed(answers[names.index(performance.settings.prediction)])
        started = batch.floats(STARTED).tolist()
        known = None
        if performance.uses_features:
            known = dict(zip(features, map(listed, inputs), strict=True))
        performance.take_rows(cells, started, known, batch.ids)

    def _learn_from(self, key: ModelKey, builder: Builder) -> None:
        baseline = builder.finish()
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            baseline.save(self._learned(key))
        except (OSError, UnderstudyError) as error:
            # The baseline is used all the same; after a restart it is learned again.
            log.error("model %r: baseline not saved: %s", key[0], error)
        log.info("model %r: baseline learned from %d rows", key[0], baseline.rows)
        self._start(key, baseline)

    def _shown(self, features: Sequence[str]) -> tuple[str, ...]:
        """The features whose values may be stored."""
        return tuple(name for name in features if not self._redaction.hides(name))

    def take_label(self, joined: Joined) -> None:
        """Take a label or reward of a prediction."""
        if joined.mirrored or joined.arm != self.champion:
            return
        for (model, _), performance in self.performance.items():
            if model == joined.model:
                performance.take_label(joined)

    def relearn(self, key: ModelKey, performance: bool = False) -> bool:
        """Learn a new baseline from the next rows, or with ``performance`` a new reference from the
        next labels. False when learning from live rows is off, or the baseline file has the
        reference."""
        if performance:
            known = self.performance.get(key)
            if known is None or known.baseline is not None:
                return False
            self._performance_sources.pop(key)
            self._start_performance(key, None)
            return True
        if not self._learn:
            return False
        self._learned(key).unlink(missing_ok=True)
        self._drop_watch(key)
        self.learning[key] = Builder(model=key[0], model_version=key[1], source="live")
        return True

    def baseline(self, key: ModelKey) -> Baseline | None:
        """The baseline that a model is compared with; None without a watch."""
        watch = self.watches.get(key)
        return watch.baseline if watch is not None else None

    # Findings -----------------------------------------------------------------------------------

    def flush(self) -> None:
        """Evaluate all buffered rows."""
        for watch in self.watches.values():
            watch.flush()
        for performance in self.performance.values():
            performance.flush()

    def signals(self, now: float) -> list[Signal]:
        """All problems at ``now``, unix seconds."""
        unreadable = list(self.unreadable())
        result = [one.signal(*key) for key, one in unreadable]
        # The rule about the rate of undecodable requests is one finding with the limit.
        known = {
            f"quality/{key[0]}/{key[1]}//undecodable/"
            for key, one in unreadable
            if one.part == "request"
        }
        for (model, version), watch in self.watches.items():
            found = signals_of(watch, model, version, now, self._redaction.hides)
            result += [signal for signal in found if signal.key not in known]
        for (model, version), performance in self.performance.items():
            result += performance_signals(performance, model, version)
        for (model, version), objectives in self.objectives.items():
            result += objectives.signals(model, version, now)
        return result

    def unreadable(self) -> Iterator[tuple[ModelKey, Unreadable]]:
        """What cannot be read at present, by model."""
        for key, readability in self.readability.items():
            for one in readability.unreadable():
                yield key, one

    def warnings(self) -> list[str]:
        """What cannot be read or does not come, in words, for the status."""
        found = [(key, one.words) for key, one in self.unreadable()]
        missing = [(key, one.words) for key, one in self._missing()]
        return [
            *(f"model {key[0]!r} is blind: {words}" for key, words in found),
            *(
                f"model {key[0]!r} is not monitored in full: {words}" if key[0] else words
                for key, words in missing
            ),
        ]

    def _missing(self) -> Iterator[tuple[ModelKey, Untested]]:
        """What is declared and does not come."""
        unread = {(key, one.part, one.arm) for key, one in self.unreadable()}
        others = tuple(self.arrivals.values()) if len(self.arrivals) > 1 else ()
        for key, arrivals in self.arrivals.items():
            for one in arrivals.untested(others):
                # What cannot be read is listed already, with the reason.
                of = ("request", "") if one.check == "inputs" else ("answer", self.champion)
                if (key, *of) not in unread:
                    yield key, one
        if self.labels is not None:
            for one in unmatched_labels(self.labels()):
                yield ("", ""), one

    def summary(self) -> list[dict[str, Any]]:
        """The state of every model that should be watched, as JSON."""
        result: list[dict[str, Any]] = []
        for (model, version), watch in self.watches.items():
            names = {"model": model, "version": version}
            performance = self._performance_of((model, version))
            result.append({**names, **summary_of(watch), **performance})
        for (model, version), builder in self.learning.items():
            learned = {"rows": builder.rows, "wanted": self._learn}
            performance = self._performance_of((model, version))
            names = {"model": model, "version": version}
            result.append({**names, "learning": learned, **performance})
        for key in self.performance:
            if key not in self.watches and key not in self.learning:
                names = {"model": key[0], "version": key[1]}
                result.append({**names, **self._performance_of(key)})
        for (model, version), error in self.errors.items():
            result.append({"model": model, "version": version, "error": error})
        return result

    def _performance_of(self, key: ModelKey) -> dict[str, Any]:
        watch = self.performance.get(key)
        return {"performance": watch.summary()} if watch is not None else {}

    def untested(self) -> list[dict[str, Any]]:
        """What is declared and not tested at present, with the reasons, as JSON."""
        unreadable = list(self.unreadable())
        untested: list[tuple[ModelKey, Untested]] = [
            (key, one.untested()) for key, one in unreadable
        ]
        untested += self._missing()
        inputs = {key: one for key, one in unreadable if one.part == "request"}
        outputs = {key: one for key, one in unreadable if one.arm == self.champion}
        for key, error in self.errors.items():
            words = f"everything: the baseline cannot be used: {error}"
            untested.append((key, Untested("all", "baseline", words)))
        for key, builder in self.learning.items():
            have, need = builder.rows, self._learn
            words = f"drift and quality: {have:,} of {need:,} rows for the baseline"
            starved = key in self.arrivals and self.arrivals[key].starved
            blind = inputs.get(key) or outputs.get(key)
            if blind is not None:
                words = f"drift and quality are blind: {blind.words}; {words[19:]}"
            elif starved:
                words += ", and none came with the last requests"
            reason = "unreadable" if blind is not None else "no_rows" if starved else "learning"
            untested.append((key, Untested("drift", reason, words, have, need)))
        for key, watch in self.watches.items():
            untested += [(key, Untested("detector", "detector", e)) for e in watch.errors]
        for key in self._settings:
            if not self._enabled or not self._feedback:
                name = "feedback.enabled" if self._enabled else "monitoring.enabled"
                words = f"performance: {name} is false"
                untested.append((key, Untested("performance", "disabled", words)))
            elif key in self.performance:
                of_model = self.performance[key].untested()
                blind = outputs.get(key)
                if blind is not None and any(one.check == "performance" for one in of_model):
                    # Labels are joined to predictions, so none can count.
                    words = f"performance is blind: {blind.words}"
                    of_model = [one for one in of_model if one.check != "performance"]
                    of_model.append(Untested("performance", "unreadable", words))
                untested += [(key, one) for one in of_model]
        return [{"model": key[0], "version": key[1], **one.document()} for key, one in untested]

    def in_short(self) -> list[dict[str, Any]]:
        """For the status: models, rows, the largest drifts, and the accuracy."""
        result: list[dict[str, Any]] = []
        for one in self.summary():
            series = sorted(one.get("series", ()), key=lambda s: -max(s["statistic"], s["spread"]))
            settings = one.get("performance") or {}
            estimate = settings.get("estimate")
            result.append(
                {
                    "model": one["model"],
                    "version": one["version"],
                    "rows": one.get("rows"),
                    "learning": one.get("learning"),
                    "error": one.get("error"),
                    "furthest": [
                        {
                            "series": s["name"],
                            "statistic": max(s["statistic"], s["spread"]),
                            "psi": s["psi"],
                            "drifted": s["drifted"],
                        }
                        for s in series[:5]
                    ],
                    "estimated_accuracy": estimate["value"] if estimate else None,
                    "accuracy": settings.get("window", {}).get("accuracy"),
                    "labels": settings.get("labels"),
                    "judged": settings.get("judged"),
                    "assumptions": settings.get("assumptions", []),
                }
            )
        return result

    # State --------------------------------------------------------------------------------------

    def dump_state(self) -> dict[str, Any]:
        """As JSON. Baselines have separate files; a baseline that is being learned is not saved."""
        return {
            "watches": _dumped(self.watches, self._sources),
            "performance": _dumped(self.performance, self._performance_sources),
            "objectives": _dumped(self.objectives, self._objective_sources),
            "readability": _dumped(self.readability, dict.fromkeys(self.readability, "")),
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Load a saved state, as far as its baselines and options are the present ones."""
        for key, item in _items(state, "readability"):
            if self._match is not None and key not in self.readability:
                self._adopt(key, self._match)
            if key not in self.readability:
                continue
            try:
                self.readability[key].load_state(item["state"])
            except (KeyError, TypeError, ValueError) as error:
                log.error("model %r: invalid saved state of what is readable: %r", key[0], error)
        for key, item in _items(state, "objectives"):
            objectives = self._objectives_of(key)
            if objectives is None or item["source"] != self._objective_sources.get(key):
                continue
            try:
                objectives.load_state(item["state"])
            except (KeyError, TypeError, ValueError, IndexError) as error:
                log.error(
                    "model %r: invalid saved state, restarting its objectives: %r", key[0], error
                )
                self.objectives[key] = objectives.restarted()
        for key, item in _items(state, "watches"):
            watch = self.watches.get(key)
            if watch is None or item["source"] != self._sources.get(key):
                continue
            try:
                watch.load_state(item["state"])
            except (KeyError, TypeError, ValueError, IndexError) as error:
                log.error("model %r: invalid saved state, restarting its watch: %r", key[0], error)
                self._sources.pop(key)
                self._start(key, watch.baseline)
        for key, item in _items(state, "performance"):
            performance = self.performance.get(key)
            if performance is None or item["source"] != self._performance_sources.get(key):
                continue
            try:
                performance.load_state(item["state"])
            except (KeyError, TypeError, ValueError, IndexError) as error:
                log.error(
                    "model %r: invalid saved state, restarting its performance: %r", key[0], error
                )
                self._performance_sources.pop(key)
                self._start_performance(key, performance.baseline)


def _declared(model: Model) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Names of features and outputs that the configuration of a model gives."""
    mapping = model.json_
    features = mapping.features if mapping is not None else model.features
    outputs = mapping.predictions if mapping is not None else model.predictions
    judged = (model.performance.prediction,) if model.performance is not None else ()
    return tuple(features), tuple(dict.fromkeys((*outputs, *judged)))


def _dumped(watches: Mapping[ModelKey, Stateful], sources: Mapping[ModelKey, str]) -> list[Any]:
    return [
        {
            "model": model,
            "version": version,
            "source": sources[model, version],
            "state": watch.dump_state(),
        }
        for (model, version), watch in watches.items()
    ]


def _items(state: Mapping[str, Any], part: str) -> Iterator[tuple[ModelKey, Mapping[str, Any]]]:
    for item in state.get(part, ()):
        yield (str(item["model"]), str(item["version"])), item


def _fingerprint(*parts: object) -> str:
    data = json.dumps(parts, sort_keys=True, default=str)
    return hashlib.sha256(data.encode()).hexdigest()[:16]
