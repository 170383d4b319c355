"""Runs all experiments of a service: feeds evidence, ticks, and applies operator commands."""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from understudy.common.fields import SAVED
from understudy.monitor.config.checks import together
from understudy.monitor.config.declared import declare, with_declared
from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.config.model import Config
from understudy.monitor.errors import ExperimentStateError, UnknownExperimentError
from understudy.monitor.evidence.arms import arms_of
from understudy.monitor.evidence.batch import ColumnBatch
from understudy.monitor.experiments.contestant import ChallengerState
from understudy.monitor.experiments.ended import EndedReports, final_report
from understudy.monitor.experiments.live import LiveExperiment
from understudy.monitor.records.audit import AuditLog
from understudy.monitor.routing.routes import Routes, load_or_set_aside
from understudy.shadow import rollout
from understudy.shadow.rollout import Event, RolloutError, Step

log = logging.getLogger(__name__)

_BY_CONFIGURATION = "configuration", "no longer in the configuration, or does not fit it"
"""Who removed an experiment, and why, when no person did it over the API."""


@dataclass(frozen=True, slots=True)
class Command:
    """An operator's command: ``kind`` is promote, pause, resume or abort."""

    kind: str
    who: str
    why: str = ""
    force: bool = False
    gradual: bool = False


class ExperimentRunner:
    """All experiments of a service.

    ``config`` is the configuration file, without the experiments declared over the API. ``clock``
    returns unix time in seconds.

    An assignment takes effect only when it is on disk and the workers have it: :meth:`tick` and
    :meth:`save_changes` return whether the workers need a new one.
    """

    def __init__(self, config: Config, clock: Callable[[], float] = time.time) -> None:
        self._clock = clock
        self._file = config
        self.config = config
        self.state_dir = Path(config.state_dir)
        self.live: dict[str, LiveExperiment] = {}
        self.audit = AuditLog(self.state_dir / "audit.jsonl")
        self.listeners: list[Callable[[Sequence[Mapping[str, Any]]], None]] = []
        """Called with new events of the audit log, once they are in it."""
        self.ended = EndedReports(self.state_dir)
        """The reports of experiments that were removed."""
        self.error: str | None = None
        """Why the assignment could not be saved; None when it was."""
        self._routes = load_or_set_aside(self.state_dir)
        self._events: list[Event] = []
        self._dirty = False
        self._report_unsaved = False
        with contextlib.suppress(OSError):  # tried again with the next change
            self.audit.catch_up(self._routes.events)
        self.configure(config)

    # Configuration ------------------------------------------------------------------------------

    def configure(self, config: Config) -> None:
        """Apply another configuration; unchanged experiments keep their state."""
        self._file = config
        self._begin(with_declared(config, self._routes), *_BY_CONFIGURATION)

    def _begin(self, config: Config, who: str, why: str) -> None:
        """Run the experiments of ``config``; ``who`` removed the others, and ``why``."""
        self.config = config
        experiments: dict[str, LiveExperiment] = {}
        for declared in config.experiments:
            arms = arms_of(config, declared)
            known = self.live.get(declared.name)
            if known is not None and known.declared == declared and known.arms == arms:
                experiments[declared.name] = known
                continue
            live = LiveExperiment(declared, arms, self._clock())
            saved = self._routes.assignments.get(declared.name)
            if saved is not None and saved.servers and saved.servers != arms.servers:
                changed = ", ".join(a for a, s in arms.servers.items() if saved.servers.get(a) != s)
                log.warning(
                    "experiment %r starts again: the model server of %s changed, and evidence on "
                    "the one before says nothing about it",
                    declared.name,
                    changed,
                )
                live.restart(self._clock())
                self._dirty = True
                saved = None
            if saved is not None:
                try:
                    entries = self.audit.read(declared.name)
                    live.resume(saved, {str(e["challenger"]): str(e["why"]) for e in entries})
                except (ValueError, KeyError, TypeError) as error:
                    log.error("experiment %r: cannot resume its rollout: %r", declared.name, error)
            same_servers = known is not None and known.arms.servers == arms.servers
            if known is not None and known.order == live.order and same_servers:
                live.load_state(known.dump_state())
            elif known is not None:
                other = "arms" if same_servers else "model servers"
                self._end(known, who, f"declared again with other {other}")
            if saved is None:
                self._events.append(_started_event(live, self._clock()))
            experiments[declared.name] = live
        if set(experiments) != set(self._routes.assignments):
            self._dirty = True
        for name, live in self.live.items():
            if name not in experiments:
                self._end(live, who, why)
        self.live = experiments

    def _end(self, live: LiveExperiment, who: str, why: str) -> None:
        """Keep the report of an experiment that is removed, and log who did it."""
        now = self._clock()
        self.ended.add(final_report(live, now, who, why))
        self._report_unsaved = True
        self._events.append(_event(live, now, "removed", who, why, weight=0.0))

    def declare(self, data: dict[str, Any], who: str) -> LiveExperiment:
        """Start an experiment declared over the API.

        ``data`` is the experiment as in the configuration file, ``who`` the operator. Raises
        ConfigError, which names each invalid key.
        """
        current = Routes({name: live.assignment() for name, live in self.live.items()})
        config = declare(self.config, data, current)
        self._routes = replace(self._routes, declared=(*self._routes.declared, data))
        self._begin(config, who, "")
        live = self.live[config.experiments[-1].name]
        self._events = [
            replace(event, who=who) if event.experiment == live.declared.name else event
            for event in self._events
        ]
        self._dirty = True
        return live

    def remove(self, name: str, who: str, why: str) -> None:
        """Remove an experiment declared over the API; its report is kept.

        Raises UnknownExperimentError, or ExperimentStateError for one of the configuration file.
        """
        self.find(name)
        kept = tuple(data for data in self._routes.declared if data.get("name") != name)
        if len(kept) == len(self._routes.declared):
            raise ExperimentStateError(
                f"{name!r} is defined in the configuration file: remove it there"
            )
        self._routes = replace(self._routes, declared=kept)
        self._begin(with_declared(self._file, self._routes), who, why)
        self._dirty = True

    def find(self, name: str) -> LiveExperiment:
        """The experiment ``name``. Raises UnknownExperimentError."""
        live = self.live.get(name)
        if live is None:
            known = ", ".join(sorted(self.live)) or "none"
            raise UnknownExperimentError(f"there is no experiment {name!r}; known: {known}")
        return live

    # Evidence -----------------------------------------------------------------------------------

    def feed(self, batches: Iterable[ColumnBatch]) -> None:
        """Pass batches of evidence to their experiments."""
        by_name: dict[str, list[ColumnBatch]] = {}
        for batch in batches:
            by_name.setdefault(batch.kind[1], []).append(batch)
        for name, own in by_name.items():
            live = self.live.get(name)
            if live is not None:
                live.feed(own)

    # Clock and commands -------------------------------------------------------------------------

    def tick(self) -> bool:
        """Decide all experiments; True when the workers need a new assignment."""
        now = self._clock()
        for live in self.live.values():
            self._events += live.tick(now)
        return self.save_changes()

    def command(self, name: str, challenger: str | None, command: Command) -> ChallengerState:
        """Apply an operator's command to a challenger; None is the only one.

        Raises UnknownExperimentError, or ExperimentStateError when the rollout's phase forbids it.
        """
        live = self.find(name)
        contestant = self.contestant(live, challenger)
        now = self._clock()
        if command.kind == "resume":
            live.prepare_resume(contestant, now)
        if command.kind == "promote" and command.force:
            self._refuse_overlap(live)
        requests = live.experiment.contests[contestant.name].requests(contestant.mode)
        try:
            contestant.rollout, events = _apply(contestant.rollout, now, command, requests)
        except RolloutError as error:
            raise ExperimentStateError(str(error)) from error
        self._events += events
        return contestant

    def _refuse_overlap(self, live: LiveExperiment) -> None:
        """Raise ExperimentStateError when a shadow experiment that is promoted by force would take
        the requests of another experiment."""
        serving = {name for name, one in self.live.items() if one.could_serve()}
        for name in serving - {live.declared.name}:
            both = self.live[name].declared, live.declared
            for where, what in together(self.config, *both, serving | {live.declared.name}):
                raise ExperimentStateError(f"{where}: {what}")

    @staticmethod
    def contestant(live: LiveExperiment, challenger: str | None) -> ChallengerState:
        """The challenger of that name, or the only one. Raises UnknownExperimentError."""
        if challenger is None and len(live.contestants) == 1:
            return next(iter(live.contestants.values()))
        state = live.contestants.get(challenger or "")
        if state is None:
            known = ", ".join(live.contestants)
            raise UnknownExperimentError(f"name the challenger; known: {known}")
        return state

    def save_changes(self) -> bool:
        """Save changed assignments, then append them to the audit log.

        Returns True when the workers need a new assignment. If saving fails, the assignment does
        not take effect, and the next call tries again.
        """
        moved = False
        for live in self.live.values():
            moved |= live.reallocate(self._clock())
        self._dirty |= moved
        if not self._dirty and not self._events and not self._report_unsaved:
            return False
        events = tuple(event.to_dict() for event in self._events)
        routes = Routes(
            {name: live.assignment() for name, live in self.live.items()},
            self._routes.declared,
            events or self._routes.events,
        )
        try:
            self.state_dir.mkdir(parents=True, exist_ok=True)
            if self._report_unsaved:
                # Before the routes: afterwards the experiment is gone.
                self.ended.save()
                self._report_unsaved = False
            routes.save(self.state_dir)
            self.audit.catch_up(events)
            for listener in self.listeners:
                listener(events)
        except OSError as error:
            if self.error is None:
                log.error("cannot save the assignment to %s: %s", self.state_dir, error)
            self.error = f"{self.state_dir}: {error}"
            self._dirty = True
            return False
        self.error = None
        self._routes = routes
        self._events.clear()
        self._dirty = False
        return True

    # State --------------------------------------------------------------------------------------

    def dump_state(self) -> dict[str, Any]:
        """Evidence, as JSON, and the declaration, for the report of an experiment that is removed
        while the service is stopped; assignments and rollouts have a file of their own."""
        return {
            name: {
                "declared": live.declared.model_dump(mode="json", exclude_unset=True),
                "champion": live.arms.champion,
                "servers": dict(live.arms.servers),
                "live": live.dump_state(),
            }
            for name, live in self.live.items()
        }

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Take over saved evidence. What does not fit is left out, and said."""
        for name, saved in state.items():
            live = self.live.get(name)
            try:
                if live is None:
                    self._end(self._gone(name, saved), *_BY_CONFIGURATION)
                elif saved.get("servers", live.arms.servers) != live.arms.servers:
                    self._end(self._gone(name, saved), rollout.SELF, "its model servers changed")
                    self._events.insert(0, self._events.pop())  # before it began again
                else:
                    live.load_state(saved["live"])
            except (ValueError, KeyError, TypeError, IndexError) as error:
                log.error("experiment %r: cannot load its evidence: %r", name, error)

    def _gone(self, name: str, saved: Mapping[str, Any]) -> LiveExperiment:
        """An experiment that was removed, or whose servers changed, while the service was stopped,
        as it was last."""
        now = self._clock()
        declared = Declared.model_validate(saved["declared"], context=SAVED)
        arms = replace(
            arms_of(self.config, declared),
            champion=str(saved["champion"]),
            servers=saved.get("servers", {}),
        )
        live = LiveExperiment(declared, arms, now)
        assignment = self._routes.assignments.get(name)
        if assignment is not None:
            live.resume(assignment, {})
        live.load_state(saved["live"])
        live.recall(now)
        return live


def _apply(state: rollout.Rollout, now: float, command: Command, requests: int) -> Step:
    if command.kind == "promote":
        return rollout.promote(state, now, command.who, command.why, requests, command.force)
    if command.kind == "pause":
        return rollout.pause(state, now, command.who, command.why)
    if command.kind == "resume":
        return rollout.resume(state, now, command.who, command.why, requests)
    if command.kind == "abort":
        return rollout.abort(state, now, command.who, command.why, command.gradual)
    raise RolloutError(f"unknown command {command.kind!r}")


def _started_event(live: LiveExperiment, now: float) -> Event:
    why = f"declared with mode {live.declared.mode}"
    weight = next(iter(live.contestants.values())).rollout.weight
    return _event(live, now, "began", rollout.SELF, why, weight)


def _event(live: LiveExperiment, now: float, kind: str, who: str, why: str, weight: float) -> Event:
    """An event about the experiment as a whole."""
    first = next(iter(live.contestants.values())).rollout
    return Event(
        now,
        live.declared.name,
        ", ".join(live.contestants),
        kind,
        who,
        why,
        first.stage.name,
        weight,
        first.phase,
        first.version,
    )
