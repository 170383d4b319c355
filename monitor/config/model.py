"""The configuration file, as pydantic models: one class for each mapping of the YAML."""

from __future__ import annotations

import ipaddress
import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Field,
    WithJsonSchema,
    WrapValidator,
    model_validator,
)

from monitor.config.units import Bytes, Seconds

_NAME = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,62}$"
Name = Annotated[str, Field(pattern=_NAME)]
Protocol = Literal["auto", "open-inference-v2", "kserve-v1", "mlflow", "json"]


class Section(BaseModel):
    """Unknown keys are refused: a misspelt limit must not silently be no limit."""

    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


def _address(value: str) -> str:
    split_address(value)
    return value


def split_address(value: str) -> tuple[str, int]:
    """``host:port`` or ``[v6]:port`` as host and port. Raises ValueError."""
    host, colon, port = value.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535 or not host:
        raise ValueError(f"{value!r} is no address: write host:port, as in 127.0.0.1:8080")
    return host.removeprefix("[").removesuffix("]"), int(port)


def _url(value: str) -> str:
    try:
        parts = urlsplit(value)
        port = parts.port
    except ValueError as error:
        raise ValueError(f"{value!r} is no URL: {error}") from error
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise ValueError(f"{value!r} is no URL: write http://host:port or https://host:port")
    if parts.query or parts.fragment or parts.username or parts.password:
        raise ValueError(f"{value!r}: query, fragment and credentials have no place here")
    return value


def _model_path(value: str) -> str:
    if not value.startswith("/") or not value.isascii() or any(c in value for c in "?# \t\r\n"):
        raise ValueError(f"{value!r} is no path: it must start with / and hold no query or space")
    if any("*" in segment and segment != "*" for segment in value.split("/")):
        raise ValueError(f"{value!r}: * stands for a whole segment")
    return value


def _header_name(value: str) -> str:
    if not re.fullmatch(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+", value):
        raise ValueError(f"{value!r} is no header name")
    return value.lower()


def _workers(value: object, _: object) -> int | Literal["auto"]:
    if value == "auto":
        return "auto"
    if isinstance(value, int) and not isinstance(value, bool) and 1 <= value <= 256:
        return value
    raise ValueError(f"{value!r} is neither auto nor a number from 1 to 256")


def _header_value(value: str) -> str:
    if not re.fullmatch(r"[\x21-\x7e](?:[\x20-\x7e\t]*[\x21-\x7e])?", value):
        raise ValueError(f"{value!r} is no header value: visible ASCII without space at its ends")
    return value


Address = Annotated[str, AfterValidator(_address)]
Url = Annotated[str, AfterValidator(_url)]
ModelPath = Annotated[str, AfterValidator(_model_path)]
HeaderName = Annotated[str, AfterValidator(_header_name)]
HeaderValue = Annotated[str, AfterValidator(_header_value)]
Workers = Annotated[
    int | Literal["auto"],
    WrapValidator(_workers),
    WithJsonSchema(
        {"anyOf": [{"type": "integer", "minimum": 1, "maximum": 256}, {"const": "auto"}]}
    ),
]
Pointer = Annotated[str, Field(pattern=r"^(/([^~]|~[01])*)?$")]

_OWN_HEADERS = frozenset(
    ("host", "content-length", "transfer-encoding", "connection", "upgrade", "te", "keep-alive")
)


class ListenTls(Section):
    certificate: str
    """PEM file with the certificate chain."""
    key: str
    """PEM file with the private key."""


class Listen(Section):
    address: Address
    """Where clients connect, as host:port; port 0 takes a free one."""
    tls: ListenTls | None = None
    """Serve TLS with this certificate."""


class Control(Section):
    listen: Address = "127.0.0.1:9090"
    """Metrics, status page and control API, as host:port."""
    token_env: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] | None = None
    """Name of the environment variable that holds the bearer token for calls that change state."""

    @model_validator(mode="before")
    @classmethod
    def _no_literal_secret(cls, data: Any) -> Any:
        if isinstance(data, dict) and "token" in data:
            raise ValueError(
                "token: secrets do not belong in the file; put it into an environment variable "
                "and name that in token_env"
            )
        return data

    @property
    def loopback(self) -> bool:
        """Only this machine can connect."""
        host = split_address(self.listen)[0]
        try:
            return ipaddress.ip_address(host).is_loopback
        except ValueError:
            return host == "localhost"


class JsonMapping(Section):
    features: dict[str, Pointer] = Field(min_length=1)
    """Feature name to JSON pointer into the request."""
    predictions: dict[str, Pointer] = Field(min_length=1)
    """Prediction name to JSON pointer into the response."""


class Model(Section):
    name: Name
    """Label in metrics, and the name in the default paths."""
    version: str = ""
    """Label in metrics."""
    protocol: Protocol = "auto"
    """Wire format; auto looks at path and content."""
    paths: list[ModelPath] | None = None
    """Paths of inference requests, * for one segment; by default those of the V1 and V2 protocols
    for this name, and /invocations."""
    features: list[str] = []
    """Names of positional input columns."""
    predictions: list[str] = []
    """Names of positional outputs."""
    json_: JsonMapping | None = Field(default=None, alias="json")
    """Where features and predictions are, for protocol json."""

    @model_validator(mode="after")
    def _whole(self) -> Model:
        if (self.protocol == "json") != (self.json_ is not None):
            raise ValueError("protocol json and the json mapping belong together")
        if self.protocol == "json" and not self.paths:
            raise ValueError("protocol json needs paths")
        return self


class UpstreamTls(Section):
    ca: str | None = None
    """PEM file of the authorities to trust; by default the system's."""
    verify: bool = True
    """False accepts any certificate: for tests only."""
    server_name: str | None = None
    """Name to expect in the certificate, if it is not the URL's host."""


class Timeouts(Section):
    connect: Seconds = 2.0
    """For a new connection."""
    first_byte: Seconds = 30.0
    """From the end of the request to the first byte of the answer."""
    total: Seconds = 300.0
    """For the whole exchange, streams included."""


class Upstream(Section):
    name: Name
    """Label of the arm in metrics."""
    url: Url
    """Of the model server; a path in it is put in front of each request's."""
    tls: UpstreamTls | None = None
    """How to check the certificate of an https URL."""
    host: HeaderValue | None = None
    """Host header to send."""
    headers: dict[HeaderName, HeaderValue] = {}
    """Added to each request, replacing the client's of the same name."""
    timeouts: Timeouts = Timeouts()
    """How long to wait."""
    max_connections: int = Field(default=256, ge=1, le=65536)
    """Connections to this server, per worker."""
    max_waiting: int = Field(default=1024, ge=0, le=1_000_000)
    """Requests that may wait for a connection, per worker; more are answered 503."""
    idle: Seconds = 4.0
    """A pooled connection that was idle for longer is not used again. Keep it below the model
    server's own limit (uvicorn: 5 s)."""

    @model_validator(mode="after")
    def _consistent(self) -> Upstream:
        if self.tls is not None and not self.url.startswith("https:"):
            raise ValueError("tls is given, but the url is not https")
        own = _OWN_HEADERS & set(self.headers)
        if own:
            raise ValueError(f"headers: {sorted(own)[0]} is set by the proxy itself")
        return self


class Champion(Upstream):
    name: Name = "champion"
    """Label of the arm in metrics."""


class Breaker(Section):
    failures: int = Field(default=5, ge=1)
    """Failures in a row that stop the copies."""
    open: Seconds = 5.0
    """First pause; it doubles with each failed probe."""
    max_open: Seconds = 60.0
    """Longest pause."""
    probes: int = Field(default=2, ge=1)
    """Successes that end the pauses."""


class Queue(Section):
    requests: int = Field(default=1024, ge=0, le=1_000_000)
    """Copies that may wait for a connection, per worker."""
    bytes: Bytes = 16 * 1024 * 1024
    """Bytes that copies may hold, per worker."""


class Mirror(Section):
    rate: float = Field(default=1.0, ge=0.0, le=1.0, allow_inf_nan=False)
    """Share of the inference requests that is copied; which ones is decided by the request id."""
    timeout: Seconds = 5.0
    """For a copy, waiting included."""
    connections: int = Field(default=32, ge=1, le=65536)
    """Connections to the challenger, per worker."""
    queue: Queue = Queue()
    """What may wait."""
    max_response: Bytes = 1024 * 1024
    """A longer answer is cut off."""
    breaker: Breaker = Breaker()
    """When to stop for a while."""


class Challenger(Upstream):
    mirror: Mirror = Mirror()
    """How requests are copied to it."""


class Capture(Section):
    max_body: Bytes = 256 * 1024
    """Larger payloads leave only their size, and are not mirrored."""
    headers: list[HeaderName] = []
    """Headers kept with the record, beside those that the codecs need."""


class Limits(Section):
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


class Records(Section):
    keep: int = Field(default=200, ge=0, le=10_000)
    """Recent records that /v1/records can show."""
    redact: list[str] = []
    """Globs over field names; what matches is not shown."""


class Evaluation(Section):
    prediction_buckets: list[float] = []
    """Upper edges of the histogram of predicted values; by default fit for probabilities and for
    wide ranges."""


class HandOff(Section):
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
    state_dir: str = "understudy-state"
    """Folder for state that outlives a restart."""
    models: list[Model] = Field(min_length=1)
    """What counts as inference; anything else is forwarded and counted as model "other"."""
    champion: Champion
    """The model server that answers clients."""
    challengers: list[Challenger] = []
    """Model servers that get copies."""
    capture: Capture = Capture()
    """What of a payload is kept."""
    limits: Limits = Limits()
    """What a client may do."""
    records: Records = Records()
    """What the control API shows of single requests."""
    evaluation: Evaluation = Evaluation()
    """How records are evaluated."""
    handoff: HandOff = HandOff()
    """The queue between the planes."""

    @model_validator(mode="before")
    @classmethod
    def _short_listen(cls, data: Any) -> Any:
        if isinstance(data, dict) and isinstance(data.get("listen"), str):
            data = {**data, "listen": {"address": data["listen"]}}
        return data
