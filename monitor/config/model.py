"""The configuration file, as pydantic models: one class for each mapping of the YAML."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field, model_validator

from understudy.common.fields import Bytes, BytesPerSecond, Ratio, Seconds, SecondsOrZero
from understudy.monitor.config.experiment import Experiment
from understudy.monitor.config.extensions import WIRE_FORMATS
from understudy.monitor.config.fields import (
    Address,
    AskedVersion,
    Columns,
    Edges,
    File,
    HeaderName,
    HeaderValue,
    HostPattern,
    ModelName,
    ModelPath,
    Name,
    NamePattern,
    PathPrefix,
    Pointer,
    ServerUrl,
    Variable,
    Workers,
    is_loopback,
    server_address,
)
from understudy.monitor.config.goodput import Goodput
from understudy.monitor.config.headers import Credentials, CredentialsTo, Headers
from understudy.monitor.config.history import History
from understudy.monitor.config.kafka import Kafka
from understudy.monitor.config.monitoring import Monitoring
from understudy.monitor.config.notify import Notify
from understudy.monitor.config.objectives import Objectives
from understudy.monitor.config.performance import Performance
from understudy.monitor.config.rehearsal import Fault
from understudy.monitor.config.runbooks import Runbooks
from understudy.monitor.config.section import Section
from understudy.monitor.config.sources import SourceTopic
from understudy.monitor.config.telemetry import Telemetry
from understudy.monitor.config.token_cost import TokenCost
from understudy.monitor.config.validation import Validation

if TYPE_CHECKING:
    Protocol = str
else:
    Protocol = Literal["auto", *WIRE_FORMATS]

OWN_HEADERS = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "keep-alive")
)


class ListenTls(Section):
    """TLS certificate of the listener."""

    certificate: File
    """PEM file with the certificate chain."""
    key: File
    """PEM file with the private key."""
    client_ca: File | None = None
    """PEM file with CAs. Clients must then show a certificate that one of them has signed."""


class Listen(Section):
    """Listening address for clients. `listen:` also accepts a plain address."""

    address: Address
    """Listening address for clients, as host:port; port 0 selects a free port."""
    tls: ListenTls | None = None
    """Serve TLS with this certificate."""
    client_request_ids: bool = True
    """Use the x-request-id of clients in records and for labels. false: each request gets an id of
    the proxy instead. Mirroring and splitting depend on the proxy's own ids in either case."""


class Control(Section):
    """Metrics, console and control API."""

    listen: Address = "127.0.0.1:9090"
    """Listening address, as host:port."""
    token_env: Variable | None = None
    """Environment variable with the bearer token for calls that change state, and for reading when
    the address is not loopback."""
    hosts: list[HostPattern] = Field(default=[], max_length=100, examples=[["*.example.com"]])
    """Host names under which the API is called, besides loopback names and IP addresses; when the
    address is not loopback, names within a cluster or a local network are accepted as well. `*`
    matches any text. Requests for other names are refused."""

    @property
    def loopback(self) -> bool:
        """Only this machine can connect."""
        return is_loopback(self.listen)


class JsonMapping(Section):
    """Location of features and predictions in plain JSON."""

    features: dict[str, Pointer] = Field(min_length=1, examples=[{"age": "/customer/age"}])
    """Feature names, each with a JSON pointer into the request."""
    predictions: dict[str, Pointer] = Field(min_length=1, examples=[{"score": "/result/score"}])
    """Prediction names, each with a JSON pointer into the response."""


class Classes(Section):
    """The class that an answer with a score for each class says: the one with the highest score.
    It becomes the prediction `class`, and its score `score`."""

    of: str = Field(min_length=1, max_length=256, examples=["probabilities"])
    """Prediction with the scores: a vector, or the columns `probabilities[0]`, `probabilities[1]`
    and so on; or Triton's classification output."""
    labels: list[Annotated[str, Field(max_length=256)]] = Field(
        default=[], max_length=100_000, examples=[["cat", "dog"]]
    )
    """Names of the classes, in the order of their scores. Default: their numbers."""


class Match(Section):
    """Names of models that are not listed: each becomes a model, once one of its requests has
    succeeded. A plain text is a pattern for names."""

    names: list[NamePattern] = Field(
        default=["*"], min_length=1, max_length=100, examples=[["meta-llama/*"]]
    )
    """Names that become models, in which `*` matches any text. Requests for others count under
    `name` of this entry."""
    body: Pointer = "/model"
    """JSON pointer to the name in bodies, for paths that have none. Bodies above
    `capture.max_body`, or that are not JSON, count under `name` of this entry."""
    most: int = Field(default=50, ge=1, le=200)
    """Maximum number of such models, per worker. Requests for further ones count under `name` of
    this entry."""

    @model_validator(mode="before")
    @classmethod
    def _short(cls, data: Any) -> Any:
        return {"names": [data]} if isinstance(data, str) else data


class Model(Section):
    """A model, and which requests are its inference requests."""

    name: ModelName
    """Label in metrics, and name in the default paths. With `match`, the label of requests without
    a known name; default `other`."""
    version: str = Field(default="", max_length=63, examples=["1"])
    """Label in metrics."""
    match: Match | None = None
    """Make this entry the settings of all models that are not listed, with labels from their
    requests. The first `*` of a path is the model's name, the second one its version."""
    protocol: Protocol = "auto"
    """Wire format; `auto` detects it from path and content."""
    paths: Annotated[list[ModelPath], Field(min_length=1)] | None = None
    """Paths of inference requests; * matches one segment. Default: those for this name in
    V2, V1 and MLflow, and in its own protocol; with `match` those for any name, and those of
    language models, whose bodies have the name."""
    features: Columns = []
    """Names for positional input columns."""
    predictions: Columns = []
    """Names for positional outputs."""
    json_: JsonMapping | None = Field(default=None, alias="json")
    """Location of features and predictions, for protocol json."""
    classes: Classes | None = None
    """For answers that hold a score for each class."""
    baseline: File | None = None
    """Baseline file from `understudy baseline build`."""
    first_byte: Seconds | None = None
    """Time limit for the first byte of a response of this model; default: `timeouts.first_byte` of
    the model server."""
    between_bytes: Seconds | None = None
    """Longest pause in a response of this model; default: `timeouts.between_bytes` of the model
    server."""
    total: Seconds | None = None
    """Time limit for a whole exchange with this model; default: `timeouts.total` of the model
    server."""
    overload: list[Annotated[int, Field(ge=400, le=599)]] = [429]
    """Statuses with which the model server says that it is overloaded: the outcome is
    model_overload, which counts as its error. With [], a 429 is the client's error."""
    retry: bool = False
    """Whether any request of this model is repeated once if its connection ends without a byte of
    the response: for models that may get a request twice. GET and HEAD are always repeated if that
    connection had been used before. The body must not be larger than `capture.max_body`."""

    goodput: Goodput | None = None
    """Of a language model: the times within which an answer is good."""
    cost: TokenCost | None = None
    """Of a language model: what its tokens cost."""
    performance: Performance | None = None
    """How accuracy is computed, with and without labels."""

    read: bool = True
    """false: its payloads are forwarded and never decoded. Latency, errors and size are monitored,
    inputs and answers are not, and nothing warns of it."""

    def named(self, name: str) -> Model:
        """The settings of one of the models that this entry matches."""
        return self.model_copy(update={"name": name, "match": None})

    @model_validator(mode="before")
    @classmethod
    def _unnamed(cls, data: Any) -> Any:
        if isinstance(data, dict) and data.get("match") is not None and "name" not in data:
            data = {**data, "name": "other"}
        return data

    @model_validator(mode="after")
    def _whole(self) -> Model:
        own = {"version": self.version, "baseline": self.baseline, "performance": self.performance}
        for key, one in own.items():
            if one and self.match is not None:
                raise ValueError(f"{key} is of one model: list that by its name, before `match`")
        unread = {
            "baseline": self.baseline,
            "performance": self.performance,
            "json": self.json_,
            "classes": self.classes,
        }
        for name, given in unread.items():
            if given is not None and not self.read:
                raise ValueError(f"{name} needs payloads that are read: remove it, or read: false")
        if self.protocol == "json" and self.json_ is None:
            raise ValueError("protocol json needs the json mapping of features and predictions")
        if self.protocol != "json" and self.json_ is not None:
            raise ValueError(f"the json mapping needs protocol json, not {self.protocol}")
        if self.protocol == "json" and self.paths is None:
            raise ValueError("protocol json needs paths: it has no default paths")
        return self


class UpstreamTls(Section):
    """TLS towards a model server. Files are read again when they change."""

    ca: File | None = None
    """PEM file with trusted CAs; default: the system's."""
    verify: bool = True
    """False accepts any certificate; for tests only."""
    server_name: str | None = None
    """Expected name in the certificate; default: the URL's host."""
    certificate: File | None = None
    """PEM file with the certificate chain to show to the model server (mutual TLS)."""
    key: File | None = None
    """PEM file with the private key of the certificate, without a password."""

    @model_validator(mode="after")
    def _pair(self) -> UpstreamTls:
        if (self.certificate is None) != (self.key is None):
            raise ValueError("certificate and key belong together: give both, or neither")
        return self


class Timeouts(Section):
    """Timeouts of a model server."""

    connect: Seconds = 2.0
    """To open a connection, including the first look-up of the name."""
    first_byte: Seconds = 120.0
    """From the end of the request to the first byte of the response. A challenger that hangs shows
    only after this time: an experiment's minimum_duration should be longer."""
    between_bytes: Seconds = 120.0
    """Longest pause in a response, or in a request that the model server does not read."""
    total: Seconds | None = None
    """For the whole exchange; default: no limit, so that a response may flow for as long as it
    does. Experiments count a response that takes longer than 5 minutes as late."""


class Upstream(Section):
    """A model server."""

    name: Name
    """Label of the arm in metrics."""
    url: ServerUrl
    """URL of the model server; its path is prepended to each request's path. `unix:/run/model.sock`
    is a Unix socket, `unix:/run/model.sock:/path` one with a path. `h2c://` and `grpc://` mean
    HTTP/2 without TLS, `grpcs://` with TLS."""
    http2: bool | None = None
    """Whether to speak HTTP/2 to it, which calls of gRPC need. Default: as the scheme of the URL
    says. With https, `true` demands it in the TLS handshake (ALPN)."""
    rewrite_path: dict[PathPrefix, PathPrefix] = Field(
        default={}, max_length=64, examples=[{"/v2/models/m/": "/v2/models/m/versions/2/"}]
    )
    """Beginnings of paths and what to send instead, so that another version or model of the same
    server can be a challenger. The longest that fits is replaced."""
    tls: UpstreamTls | None = None
    """TLS verification, and client certificate, for an https URL."""
    host: HeaderValue | None = None
    """Host header to send; default: the client's for the champion, for a challenger the URL's host
    (`localhost` for a Unix socket)."""
    headers: Headers = Field(default={}, examples=[{"x-env": "shadow"}])
    """Headers to add to each request; they replace the client's headers of the same name. A value
    is text, or `{env: NAME}` or `{file: PATH}` for a secret."""
    remove_headers: list[HeaderName] = Field(default=[], examples=[["x-internal"]])
    """Headers of clients that are not sent."""
    idle: Seconds = 4.0
    """Maximum idle time of a pooled connection. Keep it below the model server's own limit
    (uvicorn: 5 s)."""
    keepalive: Seconds | None = None
    """Over HTTP/2: after how long without a byte from the server, while requests wait for it, a
    ping asks whether the connection works. Without an answer, in this time and at most 20 s, it is
    closed, and its requests end. gRPC servers allow one ping in 5 minutes, unless they are
    configured otherwise. Default: no pings."""
    max_age: Seconds = 300.0
    """Maximum age of a pooled connection, shortened at random by up to a fifth. An older one gets
    no new request, so that the pods behind a Service of Kubernetes share the load again; an
    exchange in flight is never cut."""
    resolve: Seconds = 10.0
    """Time between two look-ups of the URL's host. Requests are spread over all its addresses. When
    a look-up fails, the addresses before stay in use."""

    @model_validator(mode="after")
    def _consistent(self) -> Upstream:
        if self.tls is not None and not self.url.startswith(("https:", "grpcs:")):
            raise ValueError("tls is given, but the url is not https")
        if self.http2 is False and server_address(self.url).http2:
            raise ValueError("http2 is false, but the url's scheme says HTTP/2")
        for key, names in (("headers", self.headers), ("remove_headers", self.remove_headers)):
            own = OWN_HEADERS & set(names)
            if own:
                raise ValueError(f"{key}: {sorted(own)[0]} is set by the proxy itself")
        both = set(self.headers) & set(self.remove_headers)
        if both:
            raise ValueError(
                f"remove_headers: {sorted(both)[0]} is in headers, which replaces the client's"
            )
        return self


class Server(Upstream):
    """A model server that answers clients."""

    timeouts: Timeouts = Timeouts()
    """Timeouts."""
    max_connections: int = Field(default=256, ge=1, le=65536)
    """Maximum number of connections to this server, per worker."""
    max_waiting: int = Field(default=1024, ge=1, le=1_000_000)
    """Maximum number of requests that wait for a connection, per worker; further requests get
    503."""


class Champion(Server):
    """The model server that answers clients."""

    name: Name = "champion"
    """Label of the arm in metrics."""
    credentials: CredentialsTo = "forward"
    """Whether clients' credentials (see `credentials`) are sent to it."""


class Breaker(Section):
    """Circuit breaker: stops mirroring to a failing server, and probes it."""

    failures: int = Field(default=5, ge=1)
    """Consecutive failures that open the breaker."""
    open: Seconds = 5.0
    """First open period; it doubles with each failed probe."""
    max_open: Seconds = 60.0
    """Longest open period."""
    probes: int = Field(default=2, ge=1)
    """Successful probes that close the breaker."""

    @model_validator(mode="after")
    def _ordered(self) -> Breaker:
        if self.max_open < self.open:
            raise ValueError(
                f"max_open ({self.max_open:g} s) must not be shorter than open ({self.open:g} s)"
            )
        return self


class Queue(Section):
    """Queue of mirrored requests that wait for a connection, per worker."""

    requests: int = Field(default=1024, ge=1, le=1_000_000)
    """Maximum number of queued mirrored requests, per worker."""
    bytes: Bytes = 16 * 1024 * 1024
    """Maximum size of all mirrored requests, per worker; of those above capture.max_body, what the
    challenger has not taken yet."""


class Mirror(Section):
    """How requests are mirrored to a challenger."""

    rate: Ratio = Field(default=1.0, examples=[0.1])
    """Share of inference requests to mirror, sampled by ids of the proxy: clients cannot choose
    what is mirrored. Several challengers with the same rate get the same requests."""
    timeout: Seconds | None = None
    """For a whole mirrored request; default: the champion's timeouts. With another limit, answers
    of both arms are compared as if both had the shorter one."""
    connections: int | None = Field(default=None, ge=1, le=65536)
    """Maximum number of connections to the challenger, per worker; default: the champion's
    max_connections."""
    queue: Queue = Queue()
    """Limits of the queue."""
    max_response: Bytes = 16 * 1024 * 1024
    """Maximum size of a response body on the wire, with its chunk framing and interim responses; a
    longer response ends as too_large. It is read and not kept beyond capture.max_body."""
    breaker: Breaker = Breaker()
    """Circuit breaker."""


class Rewrite(Section):
    """Which model requests ask for, where it is not the one that clients name. The name is replaced
    in the path (V1 and V2), in the members `model` and `model_name` of a JSON body, and in headers
    such as `seldon-model`. A request that names no model in any of these is not sent."""

    model: ModelName | dict[ModelName, ModelName] | None = Field(
        default=None, examples=["delays-v2", {"delays": "delays-v2"}]
    )
    """Name of the model to ask for; or, by names that clients use, what replaces them: requests for
    other models are sent as they are. Default: the name stays."""
    version: AskedVersion = ""
    """Version to ask for, in the path, in `model_version` and in headers. Default: that of the
    client."""

    @model_validator(mode="after")
    def _something(self) -> Rewrite:
        if not self.model and not self.version:
            raise ValueError("give a model, a version, or both")
        return self


class Challenger(Server):
    """A model server that gets mirrored requests, whose responses never reach a client. In a split
    or canary experiment, it also serves a share of the clients' requests."""

    credentials: CredentialsTo = "remove"
    """Whether clients' credentials (see `credentials`) are sent to it: in mirrored requests, and
    where it serves clients. Credentials of its own belong in `headers`."""
    mirror: Mirror = Mirror()
    """How requests are mirrored to it."""
    rewrite: Rewrite | None = None
    """The model, or version of it, to ask for: for another one on the same server, such as version
    2 in one Triton, or another adapter of one server of language models."""


class Capture(Section):
    """What is captured of payloads and headers for evaluation."""

    max_body: Bytes = 256 * 1024
    """Of larger payloads only the size is recorded; larger requests are mirrored while they
    arrive."""
    headers: list[HeaderName] = Field(default=[], examples=[["x-segment"]])
    """Headers to keep in the record, besides those that codecs need."""


class Limits(Section):
    """Limits for clients."""

    head: Bytes = Field(default=32 * 1024, ge=1024, le=60 * 1024)
    """Maximum size of a request head; otherwise 431."""
    body: Bytes | None = None
    """Maximum size of a request body, otherwise 413: before the client sends it, if it announces
    the size and expects a 100. Default: no limit."""
    header_lines: int = Field(default=128, ge=16, le=4096)
    """Maximum number of header lines of a request, otherwise 431, or of a response, including its
    interim (1xx) responses, otherwise 502."""
    interim: int = Field(default=64, ge=0, le=4096)
    """Maximum number of interim (1xx) responses to one request; otherwise 502."""
    target: Bytes = Field(default=8 * 1024, ge=256, le=60 * 1024)
    """Maximum length of a request target; otherwise 414."""
    connections: int = Field(default=4096, ge=1, le=1_000_000)
    """Maximum number of client connections, per worker, TLS handshakes in progress included. One
    more takes the place of that which has been idle for the longest, or else gets a 503. Fewer if
    there are fewer file descriptors: connections to model servers have theirs reserved."""
    header_timeout: Seconds = 10.0
    """Maximum time for a TLS handshake, and to receive a request head; otherwise 408. A new
    connection that sends nothing is closed after this time."""
    body_timeout: Seconds = 30.0
    """Maximum time to receive a request body, in addition to one second for each body_rate of it;
    otherwise 408. Time in which the proxy does not read does not count."""
    body_rate: BytesPerSecond = 1024
    """Minimum rate of a request body that takes longer than body_timeout."""
    keepalive: Seconds = 75.0
    """Idle timeout of a client connection, also of one that reads nothing of the response that
    is left."""
    connection_age: Seconds | None = 600.0
    """Maximum age of a client connection over HTTP/2, shortened at random by up to a fifth. An
    older client is told to open another one, so that the workers and pods share the load again; a
    request in flight is never cut. null: no limit."""
    memory: Bytes = Field(default=16 * 1024 * 1024, ge=1024 * 1024)
    """Maximum size of what a worker keeps for all its connections: bodies that are not whole, wait
    for a connection to the model server or are copied for records and mirrored requests, and
    responses that clients have not read. 4 KiB of each connection do not count. When it is used
    up, copies are dropped, the slowest client is cut off, and a request with a larger body that
    would have to wait gets a 503."""
    drain: Seconds = 20.0
    """Time for requests in flight to finish at shutdown; what is cut off ends as shutdown."""


class RecordLog(Section):
    """A durable log of exchanges, for `understudy replay` and `understudy records`."""

    path: File
    """Folder of the log. It contains payloads: protect it accordingly."""
    max_size: Bytes = Field(default=64 * 1024 * 1024, ge=64 * 1024)
    """Maximum size of one file, compressed."""
    keep: int = Field(default=16, ge=1, le=1000)
    """Maximum number of files, including the current one; the oldest are deleted first."""
    max_age: Seconds | None = None
    """Delete files in which all entries are older; default: no age limit."""


class Records(Section):
    """Individual records in the control API, and the record log."""

    keep: int = Field(default=200, ge=0, le=10_000)
    """Number of recent records in /v1/records."""
    redact: list[str] = Field(default=[], examples=[["ssn", "customer.*"]])
    """Globs over field names; matching values are never shown."""
    log: RecordLog | None = None
    """Write every exchange to a log on disk."""


class Evaluation(Section):
    """Where and how records are evaluated. `evaluation:` also accepts a plain mode."""

    mode: Literal["embedded", "kafka"] = "embedded"
    """embedded: in this sidecar. kafka: by `understudy evaluate`, which reads the records of all
    sidecars from the cluster in `kafka:`."""
    prediction_buckets: Edges = []
    """Bucket boundaries of the histogram of predicted values; the default suits probabilities and
    wide ranges."""
    nice: int = Field(default=5, ge=0, le=19)
    """How much lower the priority of the evaluation plane is than that of the workers, as with
    `nice`: where both want the same CPU, the workers come first. 0: the same priority."""
    memory_limit: Bytes | None = None
    """Memory of its own that the evaluation plane may use. Beyond it, it is restarted, and the
    workers go on. Default: 70 % of the memory of the container or the machine."""


class Watchdog(Section):
    """When a process of the service that hangs is killed and replaced. Time in which the machine
    was paused, or the process waited for a CPU, does not count."""

    workers: Seconds = Field(default=5.0, ge=0.5)
    """Time for which a worker may not respond."""
    evaluation: Seconds = Field(default=30.0, ge=0.5)
    """Time for which the evaluation plane may not respond."""
    start: Seconds = Field(default=60.0, ge=1)
    """Time that the start of a process may take."""


class Feedback(Section):
    """Late labels and rewards, and the predictions that wait for them."""

    enabled: bool = True
    """Accept labels, and store predictions for them."""
    horizon: Seconds = 7 * 86400.0
    """Maximum time that predictions wait for labels, and labels for predictions."""
    max_size: Bytes = Field(default=256 * 1024 * 1024, ge=1024 * 1024)
    """Maximum size of the database; the oldest predictions are deleted first."""
    max_rows: int = Field(default=2_000_000, ge=1000)
    """Maximum number of predictions and labels together; the oldest are deleted first."""
    settle: SecondsOrZero = 0.0
    """Time for which a label may still be corrected before it counts: what was counted is not taken
    back."""


class HandOff(Section):
    """The queue of records between workers and the evaluation plane."""

    max_bytes: Bytes = Field(default=8 * 1024 * 1024, ge=64 * 1024)
    """Maximum size of the records that a worker buffers for the evaluation plane; further records
    are dropped and counted."""


class Config(Section):
    """The configuration of one sidecar."""

    version: Literal[1]
    """Version of the file format."""
    listen: Listen
    """Listening address for clients."""
    control: Control = Control()
    """Metrics, console and control API."""
    workers: Workers = "auto"
    """Number of worker processes; `auto`: one per CPU, at most 4."""
    state_dir: File = "understudy-state"
    """Folder for persistent state."""
    reload: Literal["signal", "watch"] = "signal"
    """When this file is read again. signal: at SIGHUP and at a call of the control API. watch: also
    a few seconds after it has changed, or a file that it names, such as a baseline; this includes a
    mounted ConfigMap. It is validated in the same way, and an invalid one is rejected."""
    models: list[Model] = Field(min_length=1)
    """The models. A request to any other path is forwarded and counted as model "other"."""
    champion: Champion
    """The model server that answers clients."""
    challengers: list[Challenger] = []
    """Model servers that get mirrored requests."""
    credentials: Credentials = Credentials()
    """What counts as a client's credential."""
    experiments: list[Experiment] = []
    """Experiments that compare challengers with the champion."""
    capture: Capture = Capture()
    """What is captured of payloads and headers."""
    limits: Limits = Limits()
    """Limits for clients."""
    records: Records = Records()
    """Individual records in the control API, and the record log."""
    evaluation: Evaluation = Evaluation()
    """Where and how records are evaluated."""
    watchdog: Watchdog = Watchdog()
    """When a process of the service that hangs is replaced."""
    feedback: Feedback = Feedback()
    """Late labels and rewards."""
    validation: Validation | None = None
    """Cases that the models must pass, tested periodically."""
    objectives: Objectives = {}
    """Limits for accuracy, error_rate, throughput, latency_mean, latency_p50 … latency_p99.9,
    cost_per_prediction, energy_per_prediction, each as <= or >= and a number. Limits on errors and
    latency that are missed give findings."""
    notify: Notify = []
    """Notification channels for findings."""
    runbooks: Runbooks = Runbooks()
    """Pages that notifications and rules link to."""
    monitoring: Monitoring = Monitoring()
    """Detection of silent failure."""
    history: History = History()
    """What the charts of the console show."""
    handoff: HandOff = HandOff()
    """The queue between workers and the evaluation plane."""
    telemetry: Telemetry = Telemetry()
    """OpenTelemetry."""
    kafka: Kafka | None = None
    """The Kafka cluster, for `evaluation: kafka`."""
    sources: list[SourceTopic] = []
    """Other producers' topics that evaluators import; `understudy kafka import` only imports."""
    faults: list[Fault] = []
    """Injected errors, for tests. Leave it empty in production."""

    @model_validator(mode="before")
    @classmethod
    def _short_listen(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("listen"), str):
            data = {**data, "listen": {"address": data["listen"]}}
        if isinstance(data, dict) and isinstance(data.get("evaluation"), str):
            data = {**data, "evaluation": {"mode": data["evaluation"]}}
        return data
