"""The plan of a gate: one YAML file with stages and what each has to meet."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from understudy.common.units import seconds, share
from understudy.loadtest.capacity.sizing import PRESETS
from understudy.loadtest.errors import PlanError, reason

Seconds = Annotated[float, BeforeValidator(partial(seconds, loose=True))]
Share = Annotated[float, BeforeValidator(partial(share, loose=True))]
Rate = Annotated[float, Field(gt=0.0, le=1e7)]
Long = Annotated[Seconds, Field(gt=0.0, le=7 * 86400.0)]


class Part(BaseModel):
    """A part of the plan: what is not known is refused."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Objectives(Part):
    """What a stage has to meet. A percentile is judged by an anytime-valid test: it passes when it
    is shown, with an error of at most `alpha`, that the share over the limit is small enough."""

    p50: Seconds | None = None
    p90: Seconds | None = None
    p95: Seconds | None = None
    p99: Seconds | None = None
    p999: Seconds | None = None
    first_byte_p95: Seconds | None = None
    """Of the time to the first byte of the answer, as of a stream of tokens."""
    errors: Share | None = None
    """Largest share of requests that may fail."""
    rate: Rate | None = None
    """Smallest number of good answers per second."""
    alpha: Annotated[float, Field(gt=0.0, lt=0.5)] = 0.01
    rule: Literal["anytime", "loadgen"] = "anytime"
    """`loadgen`: the binomial rule of MLPerf LoadGen, for one look at the end."""
    joules: Annotated[float, Field(gt=0.0)] | None = None
    """Largest energy of a prediction, of a capacity stage."""
    preset: str | None = None
    """Objectives to start from: real-time (p95 of 50 ms, 99.9 % good), interactive (p95 of 100 ms,
    p99 of 500 ms), cloud-scale (p99 of 500 ms at a rate), edge (p90 of 100 ms at an energy)."""

    @model_validator(mode="after")
    def _known(self) -> Objectives:
        if self.preset is not None and self.preset not in PRESETS:
            raise ValueError(f"preset {self.preset!r} is not one of {', '.join(PRESETS)}")
        needs = PRESETS[self.preset].get("needs") if self.preset is not None else None
        if needs is not None and getattr(self, needs) is None:
            raise ValueError(f"preset {self.preset} needs {needs}")
        return self

    def percentiles(self) -> dict[float, float]:
        """Limits in seconds, by share of the requests."""
        names = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p999": 0.999}
        found = {p: getattr(self, name) for name, p in names.items()}
        held = {p: float(limit) for p, limit in found.items() if limit is not None}
        if not held and self.preset is not None:
            held = dict(PRESETS[self.preset]["percentiles"])
        return held

    def most_errors(self) -> float | None:
        """Largest share of requests that may fail; None where that is not judged."""
        if self.errors is None and self.preset is not None:
            return float(PRESETS[self.preset]["errors"])
        return self.errors

    @property
    def tightest(self) -> float | None:
        """The smallest latency limit, in seconds."""
        return min(self.percentiles().values(), default=None)


class Payloads(Part):
    """What is sent: one of `bodies`, `rows`, `template` and `records`."""

    bodies: Path | None = None
    """A JSONL file: each line a body, or an object with `body`, `path`, `method`, `headers`,
    `expect`."""
    rows: Path | None = None
    """A CSV or JSONL file of features, put into `format`."""
    format: str = "open-inference-v2"
    rows_per_request: Annotated[int, Field(ge=1, le=100_000)] = 1
    template: Any = None
    """JSON in which `{"$uniform": [0, 1]}` and others stand for values that are drawn."""
    count: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Different payloads that are made of a template, or read from a file; they come in turns."""
    records: Path | None = None
    """A log of Understudy's records: what was asked, with its own paths."""
    path: str = "/"
    method: str = "POST"
    headers: dict[str, str] = {}

    @model_validator(mode="after")
    def _one(self) -> Payloads:
        given = [self.bodies, self.rows, self.template, self.records]
        if sum(one is not None for one in given) > 1:
            raise ValueError("give one of bodies, rows, template and records")
        if self.method in ("GET", "HEAD") and any(one is not None for one in given):
            raise ValueError(f"{self.method} has no body: give a path alone")
        return self


class Checks(Part):
    """What the answers must be."""

    statuses: list[int] = []
    schema_: Annotated[dict[str, Any] | Path | None, Field(alias="schema")] = None
    """A JSON Schema, or a file with one."""
    tolerance: Annotated[float, Field(ge=0.0)] = 1e-6
    """Of numbers that are expected."""


class Engine(Part):
    """How it is sent."""

    processes: Annotated[int, Field(ge=0, le=256)] = 0
    """0: one for each core but one."""
    connections: Annotated[int, Field(ge=1, le=60_000)] = 512
    """Of each process, at the most."""
    timeout: Long = 30.0
    seed: int = 1
    arrivals: Literal["poisson", "even"] = "poisson"
    ca_file: Path | None = None
    verify: bool = True


class Limits(Part):
    """In force whatever the stages say."""

    rate: Rate = 20_000.0
    seconds: Long = 3600.0
    """Of the whole gate."""


class Load(Part):
    """A stretch of open-loop load."""

    shape: Literal[
        "steady",
        "ramp",
        "spike",
        "bursts",
        "diurnal",
        "growth",
        "steps",
        "until-break",
        "soak",
        "trace",
    ] = "steady"
    rate: Rate | None = None
    """Of `steady` and `soak`; the quiet rate of `spike` and `bursts`; where others begin."""
    to: Rate | None = None
    """The other rate: of the peak, or where it ends."""
    seconds: Long = 30.0
    peak_seconds: Long = 5.0
    every: Long = 15.0
    step_seconds: Long = 10.0
    steps: Annotated[int, Field(ge=1, le=1000)] = 5
    at_least: Rate | None = None
    """Of `until-break`: the step that must surely hold; without it the last one is shown."""
    trace: Path | None = None
    """An access log, or a log of Understudy's records: its own times."""
    speed: Annotated[float, Field(gt=0.0, le=1000.0)] = 1.0
    """Of a trace: 2 is twice as fast."""

    @model_validator(mode="after")
    def _complete(self) -> Load:
        if self.shape == "trace":
            if self.trace is None:
                raise ValueError("shape trace needs a file: trace")
        elif self.rate is None:
            raise ValueError(f"shape {self.shape} needs a rate")
        elif self.shape not in ("steady", "soak") and self.to is None:
            raise ValueError(f"shape {self.shape} needs a second rate: to")
        return self


class LoadGen(Part):
    """A scenario of MLPerf LoadGen."""

    scenario: Literal["SingleStream", "MultiStream", "Server", "Offline"]
    seconds: Long = 600.0
    rate: Rate | None = None
    limit: Seconds | None = None
    queries: Annotated[int, Field(ge=1)] | None = None
    users: Annotated[int, Field(ge=1, le=10_000)] = 32
    mode: Literal["performance", "accuracy"] = "performance"

    @model_validator(mode="after")
    def _complete(self) -> LoadGen:
        if self.scenario == "Server" and (self.rate is None or self.limit is None):
            raise ValueError("Server needs rate and limit")
        return self


class CapacityStage(Part):
    """The highest rate at which the objectives hold."""

    start: Rate
    most: Rate
    seconds: Long = 5.0
    """Of a probe at one rate, and longer where its percentile needs more requests."""
    precision: Annotated[float, Field(gt=0.0, lt=1.0)] = 0.05
    at_least: Rate | None = None
    """Rate that must surely pass; without it the capacity is shown and not judged."""
    traffic: Rate | None = None
    """Requests per second for which replicas are counted."""
    headroom: Annotated[Share, Field(ge=0.0, lt=1.0)] = 0.3
    spare: Annotated[int, Field(ge=0, le=1000)] = 1
    price_per_hour: Annotated[float, Field(ge=0.0)] | None = None
    watts: Annotated[float, Field(ge=0.0)] | None = None
    pid: int | None = None
    """A process of the server on this machine, whose time is counted, with its children."""
    concurrencies: list[Annotated[int, Field(ge=1, le=10_000)]] = []
    """Closed loops of so many users for the Universal Scalability Law."""
    servers: Annotated[int, Field(ge=1, le=10_000)] | None = None
    """Requests that the target works on at once, first come first served: from the times in service
    the latencies at other loads are predicted."""


class Alert(Part):
    """An alert that has to fire, by Prometheus or Alertmanager at `url`."""

    url: str
    name: str


class Budget(Part):
    """The error budget that a fault takes from: of good requests, over a period."""

    objective: Annotated[Share, Field(gt=0.0, lt=1.0)]
    period: Annotated[Seconds, Field(gt=0.0, le=366 * 86400.0)] = 30 * 86400.0
    burned_at_most: Annotated[Share, Field(ge=0.0)] | None = None
    """Part of the budget of the whole period that one fault may take."""


class ChaosStage(Part):
    """An experiment of the Chaos Toolkit under load."""

    experiment: Path
    load: Load
    before: Long = 5.0
    """Load before the method begins, in which the normal is measured."""
    after: Long = 10.0
    recovers_within: Seconds | None = None
    lost_at_most: Share | None = None
    """Share of the requests of the fault that may fail."""
    detected_within: Seconds | None = None
    """Until `alert` fires, or a probe of the method has seen one."""
    alert: Alert | None = None
    budget: Budget | None = None
    hypothesis_holds: bool = False
    """Whether the steady state has to hold while the method runs as well."""


class CompareStage(Part):
    """Another target beside this one, in turns."""

    other: str
    load: Load
    repeats: Annotated[int, Field(ge=3, le=50)] = 5
    margin: Share = 0.05
    """Smallest relative difference that matters."""
    percentile: Literal["p50", "p90", "p95", "p99"] = "p99"


class ColdStart(Part):
    """From the start of a process to its first good answer."""

    command: list[str] = Field(min_length=1)
    within: Seconds | None = None
    repeats: Annotated[int, Field(ge=1, le=50)] = 3
    timeout: Long = 120.0


class Stage(Part):
    """One stage: one of `load`, `loadgen`, `capacity`, `chaos`, `compare` and `cold_start`."""

    name: str = Field(min_length=1, max_length=100)
    load: Load | None = None
    loadgen: LoadGen | None = None
    capacity: CapacityStage | None = None
    chaos: ChaosStage | None = None
    compare: CompareStage | None = None
    cold_start: ColdStart | None = None
    objectives: Objectives | None = None
    judged: bool = True
    """Whether its verdict counts: False for a warm-up."""
    stop_on_fail: bool = False
    """Whether the stages after it are left out when it fails."""

    @property
    def kind(self) -> str:
        """Which of them it is."""
        kinds = ("load", "loadgen", "capacity", "chaos", "compare", "cold_start")
        return next(kind for kind in kinds if getattr(self, kind) is not None)

    @model_validator(mode="after")
    def _one(self) -> Stage:
        kinds = ("load", "loadgen", "capacity", "chaos", "compare", "cold_start")
        if sum(getattr(self, kind) is not None for kind in kinds) != 1:
            raise ValueError(f"give one of {', '.join(kinds)}")
        return self


class Plan(Part):
    """The whole plan."""

    version: Literal[1] = 1
    target: str | None = None
    """By default what `--target` names."""
    objectives: Objectives = Objectives()
    """The objectives of stages without any."""
    payloads: Payloads = Payloads(method="GET")
    checks: Checks = Checks()
    engine: Engine = Engine()
    limits: Limits = Limits()
    stages: Annotated[list[Stage], Field(min_length=1, max_length=100)]

    @model_validator(mode="after")
    def _names(self) -> Plan:
        names = [stage.name for stage in self.stages]
        twice = sorted({name for name in names if names.count(name) > 1})
        if twice:
            raise ValueError(f"stages: duplicate name {twice[0]!r}")
        return self


def load_plan(path: Path) -> Plan:
    """Read a plan; file names in it are relative to it. Raises PlanError with the places.

    ``path`` is a YAML file, as docs/gate.md describes.

    >>> import tempfile
    >>> text = '''
    ... version: 1
    ... objectives: {p99: 50ms}
    ... payloads: {template: {instances: [[1.0]]}}
    ... stages: [{name: steady, load: {rate: 100, seconds: 60}}]
    ... '''
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     written = (Path(folder) / "gate.yaml").write_text(text)
    ...     load_plan(Path(folder) / "gate.yaml").stages[0].name
    'steady'
    """
    try:
        text = path.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: cannot be read: {reason(error)}") from error
    try:
        data = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise PlanError(f"{path}: is not valid YAML: {error}") from error
    return plan_of(data, path.parent, str(path))


def plan_of(data: Any, folder: Path, source: str) -> Plan:
    """A plan from what its file holds; ``folder`` is that of the file names in it."""
    if not isinstance(data, dict):
        raise PlanError(f"{source}: a plan must be a mapping with stages")
    try:
        return Plan.model_validate(_absolute(data, folder))
    except ValidationError as error:
        lines = []
        for one in error.errors():
            place = ".".join(str(part) for part in one["loc"]).replace(".[", "[")
            said = one["msg"].removeprefix("Value error, ")
            lines.append(f"{source}: {place or 'plan'}: {said}")
        raise PlanError("\n".join(lines)) from None


_FILES = frozenset(("bodies", "rows", "records", "trace", "experiment", "ca_file", "schema"))


def _absolute(value: Any, folder: Path) -> Any:
    if isinstance(value, dict):
        return {
            k: str(folder / v) if k in _FILES and isinstance(v, str) else _absolute(v, folder)
            for k, v in value.items()
            if k != "template" or v is not None
        } | ({"template": value["template"]} if "template" in value else {})
    if isinstance(value, list):
        return [_absolute(one, folder) for one in value]
    return value
