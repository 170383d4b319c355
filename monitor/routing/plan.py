"""The plan of a worker, as plain frozen data.

The configuration is validated by pydantic outside the workers (``understudy.monitor.config``) and
compiled into this plan, which travels as JSON. A worker swaps one plan for another atomically:
exchanges in flight keep the plan that they started with.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, get_type_hints

from understudy.shadow.assignment import POINTS


@dataclass(frozen=True, slots=True)
class Tls:
    """TLS towards an upstream; PEM paths: ``ca`` (None: the system's), and the ``certificate`` that
    is shown to it, with its ``key``."""

    verify: bool = True
    ca: str | None = None
    server_name: str | None = None
    certificate: str | None = None
    key: str | None = None


@dataclass(frozen=True, slots=True)
class Rewrite:
    """How requests name the model on another model server: pairs of a name and what replaces it,
    where "*" is any name, and the version to ask for ("": the client's)."""

    names: tuple[tuple[str, str], ...] = ()
    version: str = ""


@dataclass(frozen=True, slots=True)
class Upstream:
    """One model server. Times in seconds, counts per worker; ``max_header_lines`` (with those of
    interim responses) and ``max_interim`` are per response.

    ``rewrites`` are beginnings of targets and what replaces them, the longest first; ``rewrite``
    is what names another model in requests;
    ``path_prefix`` is put in front of the target; ``host_header`` replaces ``Host`` when
    it is set (None forwards the client's); ``headers`` are added, replacing the client's of the
    same name; those in ``removed_headers`` are not sent. ``credential_headers`` and
    ``credential_query`` are patterns for names of headers and query parameters with credentials of
    clients that are not sent to it. ``socket`` is the path of a Unix socket, instead of
    host and port. The host is resolved again every ``resolve_every`` seconds; a connection gets no
    new request once it is ``max_age`` seconds old. ``http2``: it is spoken to over HTTP/2,
    with a ping after ``keepalive`` seconds of silence (0: none).
    """

    name: str
    host: str
    port: int
    tls: Tls | None = None
    path_prefix: str = ""
    rewrites: tuple[tuple[str, str], ...] = ()
    rewrite: Rewrite | None = None
    host_header: str | None = None
    headers: tuple[tuple[str, str], ...] = ()
    removed_headers: tuple[str, ...] = ()
    credential_headers: tuple[str, ...] = ()
    credential_query: tuple[str, ...] = ()
    connect_timeout: float = 2.0
    first_byte_timeout: float = 120.0
    between_bytes_timeout: float = 120.0
    total_timeout: float | None = None
    max_connections: int = 256
    max_waiting: int = 1024
    idle_timeout: float = 4.0
    max_age: float = 300.0
    keepalive: float = 0.0
    resolve_every: float = 10.0
    socket: str | None = None
    max_header_lines: int = 128
    max_interim: int = 64
    http2: bool = False


@dataclass(frozen=True, slots=True)
class Breaker:
    """Opens after ``failures`` in a row, for ``open_seconds`` doubling up to ``max_open_seconds``;
    then ``probes`` successful requests close it."""

    failures: int = 5
    open_seconds: float = 5.0
    max_open_seconds: float = 60.0
    probes: int = 2


@dataclass(frozen=True, slots=True)
class Challenger:
    """A model server that gets mirrored requests. ``rate`` in [0, 1]; limits per worker, in bytes.
    ``timeout`` in seconds replaces the time limits of ``upstream`` and of the model.

    ``serving`` is how it is addressed where it answers clients itself.
    """

    upstream: Upstream
    rate: float = 1.0
    timeout: float | None = None
    queue_requests: int = 1024
    queue_bytes: int = 16 * 1024 * 1024
    max_response_bytes: int = 16 * 1024 * 1024
    breaker: Breaker = field(default_factory=Breaker)
    serving: Upstream | None = None


@dataclass(frozen=True, slots=True)
class Split:
    """The requests of a model, divided among the arms of one experiment.

    ``model`` is an index into the plan's models. ``unit`` is "request" (the proxy's id), "header",
    "cookie" or "pointer", ``unit_name`` the lower-case header, the cookie, or the JSON pointer into
    the body. ``slice`` are the points from and below which units belong to this experiment; the
    slices of a model's experiments do not overlap. ``starts`` and ``arms`` are those of a
    :class:`understudy.shadow.assignment.Allocation` over the indices of the plan's arms. A record
    of arm ``i`` has ``first + i`` as its assignment, so that records of several experiments can be
    told apart. ``holdout`` is a share of units that never take part. Units in ``overrides``,
    requests whose ``override_header`` names an arm, and those with a header of ``exclude`` are
    excluded from the experiment. ``epoch`` is when this split was decided (unix seconds).
    """

    experiment: str
    model: int
    salt: str
    unit: str = "request"
    unit_name: str = ""
    starts: tuple[int, ...] = (0,)
    arms: tuple[int, ...] = (-1,)
    slice: tuple[int, int] = (0, POINTS)
    first: int = 1
    holdout: float = 0.0
    overrides: tuple[tuple[str, int], ...] = ()
    override_header: str | None = None
    exclude: tuple[tuple[str, str], ...] = ()
    epoch: float = 0.0


@dataclass(frozen=True, slots=True)
class Match:
    """Which names in requests become models of their own: those that fit one of ``names``, in which
    ``*`` stands for any text, at most ``most``. ``pointer`` is a JSON pointer to the name in the
    body, for paths that have none."""

    names: tuple[str, ...] = ("*",)
    pointer: str = "/model"
    most: int = 50


@dataclass(frozen=True, slots=True)
class Model:
    """An inference route: target paths whose segments match are this model's.

    ``paths`` are exact paths in which ``*`` stands for one segment. Time limits in seconds replace
    those of the model servers. ``overload`` are the statuses that mean that the model server is
    overloaded. ``retry``: any request may be repeated once if the model server had closed its
    connection, not only GET and HEAD. With ``match``, this is the route of all models that are not
    listed, and the first two ``*`` of a path are a model's name and version.
    """

    name: str
    version: str
    protocol: str
    paths: tuple[str, ...]
    first_byte_timeout: float | None = None
    between_bytes_timeout: float | None = None
    total_timeout: float | None = None
    overload: tuple[int, ...] = (429,)
    retry: bool = False
    match: Match | None = None


@dataclass(frozen=True, slots=True)
class Limits:
    """Bounds per worker: sizes in bytes, times in seconds, ``body_rate`` in bytes per second.
    ``connection_age`` is of connections over HTTP/2."""

    head_bytes: int = 32 * 1024
    body_bytes: int = sys.maxsize
    header_lines: int = 128
    target_bytes: int = 8 * 1024
    connections: int = 4096
    header_timeout: float = 10.0
    body_timeout: float = 30.0
    body_rate: int = 1024
    keepalive_timeout: float = 75.0
    connection_age: float | None = None
    drain_timeout: float = 20.0
    memory_bytes: int = 16 * 1024 * 1024


@dataclass(frozen=True, slots=True)
class Capture:
    """Capture limits: of larger bodies only the size is recorded.

    ``headers`` are lower-case names kept beside the ones that the codecs need.
    """

    max_body_bytes: int = 256 * 1024
    headers: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class HandOff:
    """Bounds of a worker's queue of records that the evaluation plane has not acknowledged."""

    max_bytes: int = 8 * 1024 * 1024
    batch_records: int = 256
    batch_bytes: int = 128 * 1024
    flush_seconds: float = 0.05


@dataclass(frozen=True, slots=True)
class Fault:
    """Injected errors: a ``share`` of the requests to the arm with this index gets ``status`` and
    never reaches the model."""

    arm: int
    share: float
    status: int


@dataclass(frozen=True, slots=True)
class Tracing:
    """How inference requests are traced. ``by_parent``: a request with a trace context is sampled
    as that says; the others, or all of them, if the low 56 bits of the trace id are not below
    ``threshold``, which is (1 − ratio)·2⁵⁶. ``copies`` is what mirrored requests belong to: "link",
    traces of their own that are linked to the request's, "child", the same trace, or "none", traces
    that are not sampled. ``keep``: records of requests that are not sampled have ids of spans, too.
    """

    by_parent: bool = True
    threshold: int = 0
    copies: str = "link"
    keep: bool = False


@dataclass(frozen=True, slots=True)
class ListenTls:
    """PEM files of the listener. With ``client_ca``, clients have to show a certificate that one of
    these authorities has signed."""

    certificate: str
    key: str
    client_ca: str | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything a worker needs. ``generation`` grows by one with each accepted configuration;
    ``client_request_ids`` is whether ids that clients send are used; without ``tracing``, trace
    contexts are forwarded unchanged."""

    generation: int
    champion: Upstream
    models: tuple[Model, ...] = ()
    challengers: tuple[Challenger, ...] = ()
    splits: tuple[Split, ...] = ()
    limits: Limits = field(default_factory=Limits)
    capture: Capture = field(default_factory=Capture)
    handoff: HandOff = field(default_factory=HandOff)
    tls: ListenTls | None = None
    faults: tuple[Fault, ...] = ()
    sample_salt: str = "understudy"
    client_request_ids: bool = True
    tracing: Tracing | None = None

    @property
    def arms(self) -> tuple[str, ...]:
        """Names of the arms; index 0 is the champion."""
        return (self.champion.name, *(c.upstream.name for c in self.challengers))

    @property
    def upstream_connections(self) -> int:
        """Most connections of a worker to model servers."""
        upstreams = [self.champion]
        for challenger in self.challengers:
            upstreams.append(challenger.upstream)
            if challenger.serving is not None:
                upstreams.append(challenger.serving)
        return sum(upstream.max_connections for upstream in upstreams)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Plan:
        """Rebuild a plan from ``dataclasses.asdict(plan)`` after a trip through JSON.

        Raises TypeError or KeyError when ``data`` is not a plan; the supervisor compiles it, so
        that is a bug and not an error in the user's file.
        """
        plan = _build(cls, data)
        assert isinstance(plan, Plan)
        return plan


_NESTED: dict[str, type] = {
    "Tls": Tls,
    "Rewrite": Rewrite,
    "Match": Match,
    "Upstream": Upstream,
    "Breaker": Breaker,
    "Limits": Limits,
    "Capture": Capture,
    "HandOff": HandOff,
    "ListenTls": ListenTls,
    "Tracing": Tracing,
}
_LISTS: dict[str, type] = {
    "models": Model,
    "challengers": Challenger,
    "splits": Split,
    "faults": Fault,
}


def _build(cls: type, data: dict[str, Any]) -> Any:
    hints = get_type_hints(cls)
    known = {f.name for f in fields(cls)}
    unknown = set(data) - known
    if unknown:
        raise TypeError(f"{cls.__name__}: unknown {sorted(unknown)}")
    values: dict[str, Any] = {}
    for name, value in data.items():
        if name in _LISTS:
            values[name] = tuple(_build(_LISTS[name], item) for item in value)
        elif isinstance(value, dict):
            text = str(hints[name])
            nested = next(
                c for key, c in _NESTED.items() if text.endswith((f".{key}'>", f".{key} | None"))
            )
            values[name] = _build(nested, value)
        elif isinstance(value, list):
            values[name] = tuple(tuple(v) if isinstance(v, list) else v for v in value)
        else:
            values[name] = value
    return cls(**values)


def live_labels(
    plan: Plan, found: Collection[tuple[str, str]] = ()
) -> Callable[[Mapping[str, str]], bool]:
    """Whether labels of a series name an arm, a model and an experiment of the plan, or none.

    ``found`` are name and version of models that are known from requests; it may grow.
    """
    arms = frozenset((*plan.arms, "other"))
    models = frozenset((model.name, model.version) for model in plan.models)
    experiments = frozenset((*(split.experiment for split in plan.splits), "other"))

    def are_live(labels: Mapping[str, str]) -> bool:
        model, version = labels.get("model", "other"), labels.get("version", "")
        return (
            labels.get("arm", "other") in arms
            and (model == "other" or (model, version) in models or (model, version) in found)
            and labels.get("experiment", "other") in experiments
        )

    return are_live
