"""All parts of the evaluation plane, for the API and the metrics."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from understudy.monitor.archive.recorder import recorder_of
from understudy.monitor.config.compile import compile_plan
from understudy.monitor.config.model import Config
from understudy.monitor.errors import StateError
from understudy.monitor.evidence.redaction import redaction_of_settings
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.health.gauges import gauges_of
from understudy.monitor.history.span import Gauge
from understudy.monitor.history.store import FOLDER, History
from understudy.monitor.ingest.records import KnownModels
from understudy.monitor.ingest.service import IngestService
from understudy.monitor.pipeline.events import Events
from understudy.monitor.pipeline.mode import LabelIntake, Mode, StateSaver
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.records.handoff import HandOffServer
from understudy.monitor.records.redaction import Redaction
from understudy.monitor.routing.plan import Plan, Upstream, live_labels
from understudy.monitor.routing.serving import ANSWERED, MINUTE, Observed, Service, service_of
from understudy.monitor.stats.energy import Rapl
from understudy.monitor.stats.reader import Snapshot
from understudy.monitor.stats.shared import IsLive
from understudy.monitor.stats.totals import FILE_NAME, Statistics
from understudy.monitor.stats.windows import Windows
from understudy.monitor.supervisor.control_line import Supervisor

_FEWEST = 10
_RECENT_SECONDS = 10.0
_STALE_SECONDS = 15.0
_LOOK_SECONDS = 0.5
_EARLIER = 200
"""Events from before the start, of findings and of experiments."""
_MARK = "started"
_SHOW_SECONDS = 600.0
"""For how long the end of a process that was killed is shown."""


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
    listeners: list[Callable[[Config], None]] = field(default_factory=list)
    """Called with another configuration, once it is active."""
    more_faults: list[Callable[[], str | None]] = field(default_factory=list)
    """What else cannot be done at present, and clients do not notice."""
    supervisor: Supervisor = field(default_factory=Supervisor)
    windows: Windows = field(default_factory=Windows)
    energy: Rapl = field(default_factory=Rapl)
    started: float = field(default_factory=time.time)
    reader: Statistics = field(init=False)
    redaction: Redaction = field(init=False)
    ingest: IngestService = field(init=False)
    history: History = field(init=False)
    events: Events = field(default_factory=Events)
    _looked: float = field(init=False, default=0.0)
    """When arms were last compared with their earlier state, in unix seconds."""
    _plan: tuple[tuple[int, int], Plan] | None = field(init=False, default=None)
    """The plan that was read last, by time and inode of its file."""

    def __post_init__(self) -> None:
        self.reader = Statistics(
            self.run_dir,
            self.settings.state_dir / FILE_NAME,
            self.run,
            self.server.slots.received,
            self.live_labels,
        )
        self.redaction = redaction_of_settings(self.settings)
        self.ingest = IngestService(_declared(self.settings), self.pipeline.take)
        folder = self.settings.state_dir / FOLDER
        self.history = History(folder, self.settings.history_bytes, self._gauges)
        self.more_faults.append(lambda: self.history.error)

    @property
    def experiments(self) -> ExperimentRunner | None:
        """None if the configuration has no champion, as in tools that use parts of one."""
        return self.pipeline.experiments

    def tick(self) -> None:
        """Read the workers' statistics."""
        self.history.take(self.windows.add(self.reader.read()), time.time())

    async def refresh(self) -> None:
        """The same without holding up the event loop."""
        snapshot = await asyncio.to_thread(self.reader.read)
        now = time.time()
        self.history.take(self.windows.add(snapshot), now)
        if now - self._looked >= _LOOK_SECONDS or now < self._looked:
            self._looked = now
            self.events.service(self.service(snapshot), now)

    async def remember(self) -> None:
        """Begin the events with those before the start, and take those to come."""
        loop, experiments = self.pipeline.findings_loop, self.experiments

        def read() -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
            history = loop.service.history if loop is not None else None
            changes = history.page(limit=_EARLIER)[0] if history is not None else []
            audit = experiments.audit.read(limit=_EARLIER) if experiments is not None else []
            return changes, audit

        earlier = await asyncio.to_thread(read)
        self.events.seed(*earlier)
        self.pipeline.served.listeners.append(self.events.version_changed)
        if loop is not None:
            loop.service.listeners.append(self.events.findings)
        if experiments is not None:
            experiments.listeners.append(self.events.rollouts)

    def _gauges(self) -> dict[Gauge, float]:
        loop = self.pipeline.findings_loop
        return gauges_of(loop.watches) if loop is not None else {}

    def snapshot(self) -> Snapshot:
        """Totals now, after evaluating all records received so far."""
        self.pipeline.flush()
        return self.reader.read()

    async def fresh_snapshot(self) -> Snapshot:
        """The same without holding up the event loop."""
        self.pipeline.flush()
        return await asyncio.to_thread(self.reader.read)

    def live_labels(self) -> IsLive:
        """Which labels belong to the plan."""
        return live_labels(self.plan())

    def save_statistics(self, last: bool = False) -> bool:
        """Write the totals of all runs to disk; with ``last`` no worker runs any more. False when
        it failed."""
        done = self.reader.save(last)
        for run in self.reader.added if done else ():
            self.server.slots.forget(run)
        return done

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
                (self.run_dir / _MARK).write_text(self.run, encoding="utf-8")
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
        self.history.configure(settings.history_bytes)
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
        self._plan = None
        for listener in self.listeners:
            listener(settings.config())
        return self.supervisor.generation

    def plan(self) -> Plan:
        """The plan that the workers follow: routes and all."""
        path = self.run_dir / "plan.json"
        try:
            about = os.stat(path)
            key = about.st_mtime_ns, about.st_ino
            if self._plan is None or self._plan[0] != key:
                self._plan = key, Plan.from_json(json.loads(path.read_bytes()))
        except (OSError, ValueError, TypeError, KeyError):
            # The supervisor writes it before it starts this process; a tool may run without one.
            if self._plan is None:
                plan = (
                    compile_plan(self.settings.config(), 0)
                    if self.settings.document.get("champion")
                    else Plan(0, Upstream(self.settings.arms[0], "", 0))
                )
                self._plan = (0, 0), plan
        return self._plan[1]

    def service(self, snapshot: Snapshot) -> Service:
        """Who serves, and how well."""

        def by_arm(name: str) -> dict[str, list[int]]:
            found: dict[str, list[int]] = {}
            for labels, by_slot in snapshot.gauges_named(name).items():
                found.setdefault(dict(labels).get("arm", ""), []).extend(by_slot.values())
            return found

        plan = self.plan()
        counters = self.windows.counters
        seen = Observed(
            requests=counters("requests", MINUTE),
            mirror=counters("mirror", MINUTE),
            diverted=counters("diverted", MINUTE),
            serving_breakers=by_arm("serving_breaker"),
            mirror_breakers=by_arm("breaker"),
            unreachable=frozenset(arm for arm in plan.arms if self._unreachable(arm)),
            credentials_removed=counters("credentials_removed", MINUTE),
        )
        phases = {
            (name, challenger): contestant.rollout.phase
            for name, live in (self.experiments.live if self.experiments else {}).items()
            for challenger, contestant in live.contestants.items()
        }
        return service_of(plan, seen, phases)

    def problems(self, snapshot: Snapshot | None = None) -> list[str]:
        """Why the service is not ready for traffic; empty when it is."""
        found: list[str] = []
        snapshot = snapshot or self.snapshot()
        latest = self.windows.latest
        if latest is None or time.monotonic() - latest.time > _STALE_SECONDS:
            found.append("the evaluation plane is overloaded: its statistics are out of date")
        if not self.supervisor.status_received:
            found.append("the supervisor has not reported yet")
        for worker in self.supervisor.workers:
            slot, pid = int(worker["slot"]), worker.get("pid")
            if not worker.get("ready", True) or snapshot.slots.get(slot) != pid:
                found.append(f"worker {slot} is not ready")
            elif not worker.get("responsive", True):
                found.append(f"worker {slot} does not respond; it is replaced if that lasts")
        if self.supervisor.status_received and not self.supervisor.workers:
            found.append("no worker is running")
        if snapshot.gauge("descriptors_short"):
            found.append(
                "no file descriptor left: connections wait or are refused; raise the limit (ulimit "
                "-Hn, LimitNOFILE), or that of the machine (fs.file-max)"
            )
        return [*found, *self.service(snapshot).problems]

    def warnings(self, service: Service, snapshot: Snapshot) -> list[str]:
        """Faults that clients do not notice: of arms, of what is monitored, and of the service."""
        loop = self.pipeline.findings_loop
        unread = loop.watches.warnings() if loop is not None else ()
        paths = [*self._unmatched_paths(snapshot), *self._unlisted()]
        return [*service.warnings, *paths, *unread, *self.faults(snapshot)]

    def _unlisted(self) -> list[str]:
        """The warning while requests ask for more models than become labels."""
        match = next((m for m in self.plan().models if m.match is not None), None)
        grown = sum(self.windows.counters("models_unlisted", _RECENT_SECONDS).values())
        if not grown or match is None or match.match is None:
            return []
        return [
            f"{grown:,} requests of the last {_RECENT_SECONDS:.0f} s were for models beyond "
            f"`match.most` ({match.match.most}), and count as model {match.name!r}"
        ]

    def _unmatched_paths(self, snapshot: Snapshot) -> list[str]:
        """The warning when all requests with a body went to paths of no model."""
        bodies = {"other": 0, "": 0}
        for labels, size in snapshot.counters_named("request_bytes").items():
            of = dict(labels)
            if of.get("role") == "primary":
                bodies["other" if of.get("model") == "other" else ""] += size
        if any(model.match is not None for model in self.plan().models):
            return []
        requests = snapshot.counter("requests", model="other", role="primary")
        if bodies[""] or not bodies["other"] or requests < _FEWEST:
            return []
        return [
            f"nothing is monitored: no request has matched the paths of a model, and {requests:,} "
            "went to other paths: correct `models[].paths`"
        ]

    def faults(self, snapshot: Snapshot) -> list[str]:
        """What the service cannot do at present, and clients do not notice."""
        found = [self.supervisor.silence, self.supervisor.state_problem]
        found += [self.saver.error, self.reader.error]
        if self.experiments is not None:
            found.append(self.experiments.error)
        if self.pipeline.recorder is not None:
            found.append(self.pipeline.recorder.error)
        found += [fault() for fault in self.more_faults]
        recent = time.time() - _SHOW_SECONDS
        found += [str(kill["text"]) for kill in self.supervisor.kills if kill["at"] > recent]
        found += _set_aside(self.settings.state_dir)
        if snapshot.gauge("statistics_full"):
            found.append(
                "the workers' statistics are full: further arms and models are counted as 'other'"
            )
        configured = (self.settings.document.get("limits") or {}).get("connections", 0)
        for by_slot in snapshot.gauges_named("connections_limit").values():
            least = min(by_slot.values(), default=0)
            if 0 < least < configured:
                found.append(
                    f"too few file descriptors: a worker serves {least} connections "
                    f"at most instead of {configured} (limits.connections); raise the hard limit "
                    "(ulimit -Hn, LimitNOFILE)"
                )
        if self.supervisor.workers and not snapshot.slots:
            found.append("the workers' statistics cannot be read")
        return [text for text in dict.fromkeys(found) if text]

    def _unreachable(self, arm: str) -> bool:
        failures = self.windows.counters("upstream_connect_failures", _RECENT_SECONDS)
        if not any(grown for have, grown in failures.items() if dict(have).get("arm") == arm):
            return False
        return not any(
            grown > 0
            for labels, grown in self.windows.counters("requests", _RECENT_SECONDS).items()
            if dict(labels).get("arm") == arm and dict(labels).get("outcome") in ANSWERED
        )


def _set_aside(state_dir: Path) -> list[str]:
    """Files that could not be used; they stay until someone has looked at them."""
    try:
        names = sorted(name for name in os.listdir(state_dir) if name.endswith(".damaged"))
    except OSError:
        return []
    return [
        f"{name.removesuffix('.damaged')} could not be used; it is kept as {state_dir / name}: "
        "remove it once you have looked at it"
        for name in names
    ]


def _declared(settings: Settings) -> KnownModels:
    # What stands for all others comes last.
    of_all = sorted(settings.models, key=lambda model: bool(model.match))
    models = [(m.name, m.version, m.protocol) for m in of_all]
    match = settings.match
    patterns, most = (match.match, match.most) if match is not None else ((), 0)
    paths = [
        (path, (str(one["name"]), str(one.get("version", "")), str(one.get("protocol", "auto"))))
        for one in settings.document.get("models") or ()
        if one.get("match") is None
        for path in one.get("paths") or ()
    ]
    return KnownModels(models, settings.arms, patterns, most, paths)
