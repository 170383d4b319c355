"""The configuration file, as pydantic models: one class for each mapping of the YAML."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from understudy.monitor.config.experiment import Experiment
from understudy.monitor.config.fields import (
    Address,
    Columns,
    Edges,
    File,
    HeaderName,
    HeaderValue,
    ModelPath,
    Name,
    Pointer,
    Url,
    Variable,
    Workers,
    is_loopback,
)
from understudy.monitor.config.kafka import Kafka
from understudy.monitor.config.monitoring import Monitoring
from understudy.monitor.config.notify import Notify
from understudy.monitor.config.objectives import Objectives
from understudy.monitor.config.performance import Performance
from understudy.monitor.config.rehearsal import Fault
from understudy.monitor.config.section import Section
from understudy.monitor.config.sources import SourceTopic
from understudy.monitor.config.units import Bytes, Seconds
from understudy.monitor.config.validation import Validation

Protocol = Literal["auto", "open-inference-v2", "kserve-v1", "mlflow", "json"]

OWN_HEADERS = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "keep-alive")
)


class ListenTls(Section):
    """The certificate of the listener."""

    certificate: File
    """PEM file with the certificate chain."""
    key: File
    """PEM file with the private key."""


class Listen(Section):
    """Where clients connect. An address alone may also stand directly after `listen:`."""

    address: Address
    """Where clients connect, as host:port; port 0 takes a free one."""
    tls: ListenTls | None = None
    """Serve TLS with this certificate."""


class Control(Section):
    """Metrics, status page and control API."""

    listen: Address = "127.0.0.1:9090"
    """Metrics, status page and control API, as host:port."""
    token_env: Variable | None = None
    """Name of the environment variable that holds the bearer token for calls that change state."""

    @property
    def loopback(self) -> bool:
        """Only this machine can connect."""
        return is_loopback(self.listen)


class JsonMapping(Section):
    """Where features and predictions are in plain JSON."""

    features: dict[str, Pointer] = Field(min_length=1, examples=[{"age": "/customer/age"}])
    """Feature name to JSON pointer into the request."""
    predictions: dict[str, Pointer] = Field(min_length=1, examples=[{"score": "/result/score"}])
    """Prediction name to JSON pointer into the response."""


class Model(Section):
    """A model, and which requests are inferences of it."""

    name: Name
    """Label in metrics, and the name in the default paths."""
    version: str = Field(default="", max_length=63, examples=["1"])
    """Label in metrics."""
    protocol: Protocol = "auto"
    """Wire format; auto looks at path and content."""
    paths: Annotated[list[ModelPath], Field(min_length=1)] | None = None
    """Paths of inference requests, * for one segment; by default those of the V1 and V2 protocols
    for this name, with versions, and /invocations."""
    features: Columns = []
    """Names of positional input columns."""
    predictions: Columns = []
    """Names of positional outputs."""
    json_: JsonMapping | None = Field(default=None, alias="json")
    """Where features and predictions are, for protocol json."""
    baseline: File | None = None
    """What its inputs and predictions usually look like: a file of `understudy baseline build`."""

    performance: Performance | None = None
    """When its predictions are right, by labels and without."""

    @model_validator(mode="after")
    def _whole(self) -> Model:
        if self.protocol == "json" and self.json_ is None:
            raise ValueError("protocol json needs the json mapping of features and predictions")
        if self.protocol != "json" and self.json_ is not None:
            raise ValueError(f"the json mapping needs protocol json, not {self.protocol}")
        if self.protocol == "json" and self.paths is None:
            raise ValueError("protocol json needs paths: it has no usual ones")
        return self


class UpstreamTls(Section):
    """How the certificate of a model server is checked."""

    ca: File | None = None
    """PEM file of the authorities to trust; by default the system's."""
    verify: bool = True
    """False accepts any certificate: for tests only."""
    server_name: str | None = None
    """Name to expect in the certificate, if it is not the URL's host."""


class Timeouts(Section):
    """How long a model server may take."""

    connect: Seconds = 2.0
    """For a new connection."""
    first_byte: Seconds = 30.0
    """From the end of the request to the first byte of the answer."""
    total: Seconds = 300.0
    """For the whole exchange, streams included."""


class Upstream(Section):
    """A model server."""

    name: Name
    """Label of the arm in metrics."""
    url: Url
    """Of the model server; a path in it is put in front of each request's."""
    tls: UpstreamTls | None = None
    """How to check the certificate of an https URL."""
    host: HeaderValue | None = None
    """Host header to send; by default the client's for the champion, that of the url for a
    challenger."""
    headers: dict[HeaderName, HeaderValue] = Field(default={}, examples=[{"x-env": "shadow"}])
    """Added to each request, replacing the client's of the same name."""
    idle: Seconds = 4.0
    """A pooled connection that was idle for longer is not used again. Keep it below the model
    server's own limit (uvicorn: 5 s)."""

    @model_validator(mode="after")
    def _consistent(self) -> Upstream:
        if self.tls is not None and not self.url.startswith("https:"):
            raise ValueError("tls is given, but the url is not https")
        own = OWN_HEADERS & set(self.headers)
        if own:
            raise ValueError(f"headers: {sorted(own)[0]} is set by the proxy itself")
        return self


class Server(Upstream):
    """A model server that answers clients."""

    timeouts: Timeouts = Timeouts()
    """How long to wait."""
    max_connections: int = Field(default=256, ge=1, le=65536)
    """Connections to this server, per worker."""
    max_waiting: int = Field(default=1024, ge=1, le=1_000_000)
    """Requests that may wait for a connection, per worker; more are answered 503."""


class Champion(Server):
    """The model server that answers clients."""

    name: Name = "champion"
    """Label of the arm in metrics."""


class Breaker(Section):
    """Stops copying to a server that fails, and tries again now and then."""

    failures: int = Field(default=5, ge=1)
    """Failures in a row that stop the copies."""
    open: Seconds = 5.0
    """First pause; it doubles with each failed probe."""
    max_open: Seconds = 60.0
    """Longest pause."""
    probes: int = Field(default=2, ge=1)
    """Successes that end the pauses."""

    @model_validator(mode="after")
    def _ordered(self) -> Breaker:
        if self.max_open < self.open:
            raise ValueError(
                f"max_open ({self.max_open:g} s) must not be shorter than open ({self.open:g} s)"
            )
        return self


class Queue(Section):
    """Copies that wait for a connection, per worker."""

    requests: int = Field(default=1024, ge=1, le=1_000_000)
    """Copies that may wait for a connection, per worker."""
    bytes: Bytes = 16 * 1024 * 1024
    """Bytes that copies may hold, per worker."""


class Mirror(Section):
    """How requests are copied to a challenger."""

    rate: float = Field(default=1.0, ge=0.0, le=1.0, allow_inf_nan=False, examples=[0.1])
    """Share of the inference requests that is copied; which ones is decided by the request id."""
    timeout: Seconds = 5.0
    """For a whole copy: waiting, connecting and the answer."""
    connections: int = Field(default=32, ge=1, le=65536)
    """Connections to the challenger, per worker."""
    queue: Queue = Queue()
    """What may wait."""
    max_response: Bytes = 1024 * 1024
    """A longer answer is cut off."""
    breaker: Breaker = Breaker()
    """When to stop for a while."""


class Challenger(Server):
    """A model server that gets copies, of which nothing reaches a client; or, in an experiment that
    divides the requests, a share of these to answer."""

    mirror: Mirror = Mirror()
    """How requests are copied to it."""


class Capture(Section):
    """What of a payload is kept for evaluation."""

    max_body: Bytes = 256 * 1024
    """Larger payloads leave only their size, and are not mirrored."""
    headers: list[HeaderName] = Field(default=[], examples=[["x-segment"]])
    """Headers kept with the record, beside those that the codecs need."""


class Limits(Section):
    """What a client may do."""

    head: Bytes = Field(default=32 * 1024, ge=1024, le=60 * 1024)
    """Largest head of a request: 431."""
    target: Bytes = Field(default=8 * 1024, ge=256, le=60 * 1024)
    """Longest target of a request: 414."""
    connections: int = Field(default=4096, ge=1, le=1_000_000)
    """Client connections, per worker: 503."""
    header_timeout: Seconds = 10.0
    """For a head to arrive: 408."""
    keepalive: Seconds = 75.0
    """How long an idle client connection stays open."""
    drain: Seconds = 20.0
    """How long requests may take to finish when the service stops."""


class RecordLog(Section):
    """A log of whole exchanges, for `understudy replay` and `understudy records`."""

    path: File
    """The folder in which it is written. It holds payloads: protect it like these."""
    max_size: Bytes = Field(default=64 * 1024 * 1024, ge=64 * 1024)
    """Of one file, compressed; then the next is begun."""
    keep: int = Field(default=16, ge=1, le=1000)
    """Files that are kept, the present one included; the oldest go first."""
    max_age: Seconds | None = None
    """Files in which everything is older are deleted; by default only the number counts."""


class Records(Section):
    """What the control API shows of single requests."""

    keep: int = Field(default=200, ge=0, le=10_000)
    """Recent records that /v1/records can show."""
    redact: list[str] = Field(default=[], examples=[["ssn", "customer.*"]])
    """Globs over field names; what matches is not shown."""
    log: RecordLog | None = None
    """Write every exchange to a file."""


class Evaluation(Section):
    """How records are evaluated. The mode alone may also stand directly after `evaluation:`."""

    mode: Literal["embedded", "kafka"] = "embedded"
    """Where: embedded, in this sidecar; kafka: by `understudy evaluate` elsewhere, which gets the
    records of all sidecars over the cluster that `kafka:` names."""
    prediction_buckets: Edges = []
    """Upper edges of the histogram of predicted values; by default fit for probabilities and for
    wide ranges."""


class Feedback(Section):
    """Labels and rewards that come later, and the predictions that wait for them."""

    enabled: bool = True
    """Whether labels are taken and predictions kept for them."""
    horizon: Seconds = 7 * 86400.0
    """How long predictions wait for labels, and labels for predictions."""
    max_size: Bytes = Field(default=256 * 1024 * 1024, ge=1024 * 1024)
    """Bound of what the file holds; the oldest predictions go first."""
    max_rows: int = Field(default=2_000_000, ge=1000)
    """Predictions and labels together; the oldest go first."""


class HandOff(Section):
    """The queue of records between the planes."""

    max_bytes: Bytes = Field(default=8 * 1024 * 1024, ge=64 * 1024)
    """Records that a worker holds for the evaluation plane; more are dropped and counted."""


class Config(Section):
    """One file describes one sidecar."""

    version: Literal[1]
    """Version of this format."""
    listen: Listen
    """Where clients connect."""
    control: Control = Control()
    """Metrics, status and control."""
    workers: Workers = "auto"
    """Processes of the data plane; auto: one per processor, at most 4."""
    state_dir: File = "understudy-state"
    """Folder for state that outlives a restart."""
    models: list[Model] = Field(min_length=1)
    """What counts as inference; anything else is forwarded and counted as model "other"."""
    champion: Champion
    """The model server that answers clients."""
    challengers: list[Challenger] = []
    """Model servers that get copies."""
    experiments: list[Experiment] = []
    """Comparisons of challengers with the champion, and how they end."""
    capture: Capture = Capture()
    """What of a payload is kept."""
    limits: Limits = Limits()
    """What a client may do."""
    records: Records = Records()
    """What the control API shows of single requests."""
    evaluation: Evaluation = Evaluation()
    """How records are evaluated."""
    feedback: Feedback = Feedback()
    """Labels that come later."""
    validation: Validation | None = None
    """Cases that the models have to pass, again and again."""
    objectives: Objectives = {}
    """What is acceptable: accuracy, error_rate, throughput, latency_mean, latency_p50 …
    latency_p99.9, cost_per_prediction, energy_per_prediction, each as <= or >= and a number."""
    notify: Notify = []
    """Who is told of findings."""
    monitoring: Monitoring = Monitoring()
    """How silent failure is looked for."""
    handoff: HandOff = HandOff()
    """The queue between the planes."""
    kafka: Kafka | None = None
    """The cluster that records go through with `evaluation: kafka`."""
    sources: list[SourceTopic] = []
    """Topics of others that evaluators bring in; `understudy kafka import` does so alone."""
    faults: list[Fault] = []
    """Errors on purpose, for rehearsals. Leave it empty where it counts."""

    @model_validator(mode="before")
    @classmethod
    def _short_listen(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("listen"), str):
            data = {**data, "listen": {"address": data["listen"]}}
        if isinstance(data, dict) and isinstance(data.get("evaluation"), str):
            data = {**data, "evaluation": {"mode": data["evaluation"]}}
        return data
