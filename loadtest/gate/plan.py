"""The plan of a gate: its parts, but for the settings of each kind of stage."""

from __future__ import annotations

from itertools import zip_longest
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from understudy.common.fields import Delimiter, NamedRate, NamedSeconds, Rate, Seconds, Share
from understudy.common.mlperf import PRESETS as MLPERF
from understudy.common.units import percentile, percentile_name
from understudy.loadtest.capacity.sizing import PRESETS
from understudy.loadtest.payloads.columns import Datatype

Long = Annotated[Seconds, Field(le=7 * 86400.0)]
NamedLong = Annotated[NamedSeconds, Field(gt=0.0, le=7 * 86400.0)]
SendRate = Annotated[NamedRate, Field(le=1e7)]
"""Requests per second to send: a number, or a text such as `6000/min`."""
PERCENTILES = {"p50": "p50", "p90": "p90", "p95": "p95", "p99": "p99", "p99.9": "p999"}
"""Percentiles that a plan may limit, and the attributes of :class:`Objectives` with the limits."""


class Part(BaseModel):
    """A part of the plan: what is not known is refused."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_by_name=True, validate_by_alias=True
    )


class Percentiles(Part):
    """Limits of a time, by percentile."""

    p50: Seconds | None = None
    p90: Seconds | None = None
    p95: Seconds | None = None
    p99: Seconds | None = None
    p999: Annotated[Seconds | None, Field(alias="p99.9")] = None

    @model_validator(mode="before")
    @classmethod
    def _named(cls, data: Any) -> Any:
        """One name for each percentile: `p999` is `p99.9`, as everywhere."""
        if not isinstance(data, dict):
            return data
        named: dict[Any, Any] = {}
        for key, value in data.items():
            share = percentile(key) if isinstance(key, str) else None
            name = percentile_name(share) if share is not None else key
            if name in named:
                raise ValueError(f"{name} is given twice")
            named[name] = value
        return named

    def percentiles(self) -> dict[float, float]:
        """Limits in seconds, by share of the requests."""
        held: dict[float, float] = {}
        for name, attribute in PERCENTILES.items():
            share, limit = percentile(name), getattr(self, attribute)
            if share is not None and limit is not None:
                held[share] = float(limit)
        return held


class Goodput(Part):
    """Answers of a language model that keep all limits, and how many must."""

    ttft: Seconds | None = None
    """Largest time to the first token, from when the request was due."""
    tpot: Seconds | None = None
    """Largest time per output token after the first."""
    e2e: Seconds | None = None
    """Largest time to the last token, from when the request was due."""
    share: Annotated[Share, Field(gt=0.0, lt=1.0)] | None = None
    """Smallest share of the requests whose answers are good."""
    rate: Rate | None = None
    """Smallest number of good answers per second."""

    @model_validator(mode="after")
    def _asks(self) -> Goodput:
        if self.share is None and self.rate is None:
            raise ValueError("give share, rate or both")
        return self


LLM_TIMES = ("ttft", "tpot", "e2e")
"""Times of language models that have limits."""


class Objectives(Percentiles):
    """What a stage has to meet. A percentile is judged by an anytime-valid test: it passes when it
    is shown, with an error of at most `alpha`, that the share over the limit is small enough."""

    first_byte_p95: Seconds | None = None
    """Of the time to the first byte of the answer."""
    ttft: Percentiles | None = None
    """Of a language model's stream: time to the first token, from when the request was due."""
    tpot: Percentiles | None = None
    """Of a language model's stream: time per output token after the first."""
    e2e: Percentiles | None = None
    """Of a language model's stream: time to the last token, from when the request was due."""
    goodput: Goodput | None = None
    """Answers of a language model that keep all limits of times."""
    errors: Annotated[Share, Field(lt=1.0)] | None = None
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
    p99 of 500 ms), cloud-scale (p99 of 500 ms at a rate), edge (p90 of 100 ms at an energy); or
    MLPerf's for a language model, as llama2-70b-interactive (p99 of ttft and tpot)."""

    @model_validator(mode="after")
    def _known(self) -> Objectives:
        if self.preset is not None and self.preset not in (*PRESETS, *MLPERF):
            known = ", ".join((*PRESETS, *MLPERF))
            raise ValueError(f"preset {self.preset!r} is not one of {known}")
        needs = PRESETS.get(self.preset or "", {}).get("needs")
        if needs is not None and getattr(self, needs) is None:
            raise ValueError(f"preset {self.preset} needs {needs}")
        if self.goodput is not None and not self.good_limits():
            raise ValueError("goodput: give at least one of ttft, tpot and e2e, or a preset")
        if self.rule == "loadgen" and self.goodput is not None:
            raise ValueError("goodput: the rule loadgen is for percentiles")
        return self

    def percentiles(self) -> dict[float, float]:
        """Limits in seconds, by share of the requests."""
        held = super().percentiles()
        if not held and self.preset is not None and self.preset in PRESETS:
            held = dict(PRESETS[self.preset]["percentiles"])
        return held

    def _mlperf(self) -> dict[str, float]:
        limits = MLPERF.get(self.preset or "", ())
        return {name: limit for name, limit in zip_longest(LLM_TIMES, limits) if limit is not None}

    def stream_percentiles(self) -> dict[str, dict[float, float]]:
        """Limits in seconds of the times of a language model, by its name and the share of the
        requests; names without a limit are left out."""
        held = {}
        for name in LLM_TIMES:
            given: Percentiles | None = getattr(self, name)
            limits = given.percentiles() if given is not None else {}
            preset = self._mlperf().get(name)
            # A goodput with the limits of the preset asks for its own share of the answers.
            if not limits and preset is not None and self.good_limits() != self._mlperf():
                limits = {0.99: preset}
            if limits:
                held[name] = limits
        return held

    def good_limits(self) -> dict[str, float]:
        """Limits in seconds that a good answer keeps, by name; those of the preset where none is
        given."""
        if self.goodput is None:
            return {}
        own = {name: getattr(self.goodput, name) for name in LLM_TIMES}
        return {name: one for name, one in own.items() if one is not None} or self._mlperf()

    @property
    def streams(self) -> bool:
        """Whether times of a language model's streams are asked for."""
        return bool(self.stream_percentiles()) or self.goodput is not None

    def most_errors(self) -> float | None:
        """Largest share of requests that may fail; None where that is not judged."""
        if self.errors is None and self.preset is not None and self.preset in PRESETS:
            return float(PRESETS[self.preset]["errors"])
        return self.errors

    @property
    def empty(self) -> bool:
        """Whether nothing is asked of the requests of a stage."""
        parts = (self.percentiles() or None, self.most_errors(), self.first_byte_p95, self.rate)
        return all(part is None for part in parts) and not self.streams

    @property
    def tightest(self) -> float | None:
        """The smallest latency limit, in seconds."""
        return min(self.percentiles().values(), default=None)


class Prompts(Part):
    """Requests to a language model by their lengths, for /v1/chat/completions and /v1/completions.
    A number may be a generator, such as `{$lognormal: [6, 0.8]}`."""

    model: str
    input_tokens: Any = 512
    """Of a turn's new text, in words that most tokenizers have as one token."""
    output_tokens: Any = 128
    """Of an answer: its `max_tokens`."""
    trace: Path | None = None
    """Lengths, and shared prefixes, of a trace (Azure's or BurstGPT's CSV, Mooncake's JSONL)
    instead of the above: `count` requests from its beginning."""
    prefix_tokens: Annotated[int, Field(ge=0, le=2_000_000)] = 0
    """Of a prefix that prompts share: a system message."""
    prefixes: Annotated[int, Field(ge=1, le=100_000)] = 1
    """Different shared prefixes; each request has one of them."""
    words_per_token: Annotated[float, Field(gt=0.0, le=10.0)] = 1.0
    """To correct the lengths of prompts by the `prompt_tokens` that the server tells."""
    exact: bool = True
    """Whether answers are asked to have exactly `output_tokens` (`min_tokens`, `ignore_eos`)."""
    turns: Any = 1
    """Requests of a session, of which the load starts so many per second: each has the turns before
    it in its prompt, with texts of the planned length in place of the server's answers."""
    think: Any = 0
    """Seconds from the end of an answer to the next turn."""
    cancelled: Share = 0.0
    """Of the requests, whose client leaves before the end."""
    cancel_after: Seconds | None = None
    """From the sending of such a request, to 0.05 s."""

    @model_validator(mode="after")
    def _complete(self) -> Prompts:
        if (self.cancelled > 0.0) != (self.cancel_after is not None):
            raise ValueError("cancelled and cancel_after go together")
        if self.trace is not None and self.model_fields_set & {"input_tokens", "output_tokens"}:
            raise ValueError("the trace has the lengths: leave input_tokens and output_tokens out")
        return self


class Payloads(Part):
    """What is sent: one of `bodies`, `rows`, `template`, `records`, `messages` and `prompts`."""

    bodies: Path | None = None
    """A JSONL file, or a JSON list: each a body, or an object with `body`, `path`, `method`,
    `headers`, `expect`."""
    rows: Path | None = None
    """A CSV, JSONL, JSON or Parquet file of features, put into `format`."""
    datatypes: dict[str, Datatype] = {}
    """Datatypes of columns of `rows`; by default each column has one by the whole file."""
    delimiter: Delimiter | None = None
    """Delimiter of a CSV file, a character or `tab`; by default detected."""
    format: str = "open-inference-v2"
    rows_per_request: Annotated[int, Field(ge=1, le=100_000)] = 1
    template: Any = None
    """JSON in which `{"$uniform": [0, 1]}` and others stand for values that are drawn."""
    count: Annotated[int, Field(ge=1, le=100_000)] = 1000
    """Different payloads that are made of a template, or read from a file; they come in turns."""
    records: Path | None = None
    """A log of Understudy's records: what was asked, with its own paths."""
    messages: Path | None = None
    """A file of gRPC messages, each with its head of five bytes, for a target over gRPC."""
    model: str = ""
    """Over gRPC: the model; by default that of a path such as `/v2/models/NAME/infer`."""
    model_version: str = ""
    contents: Literal["raw", "typed"] = "raw"
    """Over gRPC: how messages have the elements of tensors."""
    prompts: Prompts | None = None
    """Requests to a language model, by their lengths."""
    path: str = "/"
    method: str = "POST"
    headers: dict[str, str] = {}
    headers_env: dict[str, str] = {}
    """Headers with secrets: by name the environment variable that has the whole value."""

    @model_validator(mode="after")
    def _one(self) -> Payloads:
        given = [
            self.bodies, self.rows, self.template, self.records, self.messages, self.prompts
        ]  # fmt: skip
        if sum(one is not None for one in given) > 1:
            raise ValueError("give one of bodies, rows, template, records, messages and prompts")
        if self.method in ("GET", "HEAD") and any(one is not None for one in given):
            raise ValueError(f"{self.method} has no body: give a path alone")
        return self


class Checks(Part):
    """What the answers must be."""

    statuses: list[int] = []
    """Of HTTP that are good; by default those of 2xx. Redirects are not followed. A gRPC call is
    good when it ends with OK."""
    format: Literal["auto", "none", "open-inference-v2", "kserve-v1", "mlflow", "openai"] = "auto"
    """The format in which an answer must have a prediction. `auto`: by the `format` of payloads
    where it is written, else by the path. `none`: only the status counts."""
    row_count: Literal["same", "any"] = "same"
    """`same`: an answer has predictions for as many rows as its request, where both can be read.
    `any`: for models of which that is not true, such as detectors of objects."""
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
    streams: Annotated[int, Field(ge=1, le=10_000)] = 100
    """Over HTTP/2: requests at a time over one connection, at most what the server allows."""
    timeout: Long = 30.0
    seed: int = 1
    arrivals: Literal["poisson", "gamma", "even"] = "poisson"
    burstiness: Annotated[float, Field(gt=0.0, le=1000.0)] | None = None
    """Of `gamma` arrivals, the shape of their gaps: 1 is Poisson, less comes in bursts."""
    ca_file: Path | None = None
    verify: bool = True

    @model_validator(mode="after")
    def _bursts(self) -> Engine:
        if (self.arrivals == "gamma") != (self.burstiness is not None):
            raise ValueError("arrivals gamma and burstiness go together")
        return self


class Limits(Part):
    """In force whatever the stages say."""

    rate: Rate = 20_000.0
    seconds: NamedLong = 3600.0
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
    rate: SendRate | None = None
    """Of `steady` and `soak`; the quiet rate of `spike` and `bursts`; where others begin."""
    to: SendRate | None = None
    """The other rate: of the peak, or where it ends."""
    seconds: NamedLong = 30.0
    peak_seconds: NamedLong = 5.0
    every: NamedLong = 15.0
    step_seconds: NamedLong = 10.0
    steps: Annotated[int, Field(ge=1, le=1000)] = 5
    at_least: Rate | None = None
    """Of `until-break`: the step that must surely hold; without it the last one is shown."""
    trace: Path | None = None
    """An access log, a log of Understudy's records, or a trace of language models (Azure's or
    BurstGPT's CSV, Mooncake's JSONL): its own times."""
    requests: Annotated[int, Field(ge=1, le=2_000_000)] = 2_000_000
    """Of a trace: so many from its beginning, at the most."""
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


class Stage(Part):
    """One stage; each kind of stage adds a field of its name with its settings."""

    name: str = Field(min_length=1, max_length=100)
    objectives: Objectives | None = None
    judged: bool = True
    """Whether its verdict counts: False for a warm-up. A stage that is judged must ask
    something."""
    stop_on_fail: bool = False
    """Whether the stages after it are left out when it fails."""

    @classmethod
    def kinds(cls) -> list[str]:
        """The names of all kinds."""
        return [name for name in cls.model_fields if name not in Stage.model_fields]

    @property
    def kind(self) -> str:
        """The name of its kind."""
        return next(kind for kind in self.kinds() if getattr(self, kind) is not None)

    @property
    def settings(self) -> Any:
        """The settings of its kind."""
        return getattr(self, self.kind)

    @model_validator(mode="after")
    def _one(self) -> Stage:
        if sum(getattr(self, kind) is not None for kind in self.kinds()) != 1:
            raise ValueError(f"give one of {', '.join(self.kinds())}")
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
