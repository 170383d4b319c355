"""Compiles a :class:`Config` to the plan of the workers."""

from __future__ import annotations

import dataclasses
import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

from understudy.common.grpc_messages import INFER, STREAM_INFER
from understudy.monitor.config import model
from understudy.monitor.config.experiment import Experiment
from understudy.monitor.config.fields import server_address
from understudy.monitor.records.credentials import (
    CREDENTIAL_HEADERS,
    CREDENTIAL_QUERY,
    matcher,
)
from understudy.monitor.routing import plan
from understudy.monitor.routing.routes import Assignment, Routes
from understudy.shadow.assignment import OUT, Allocation, threshold

REPEAT_SUFFIX = "-again"
"""Suffix of the champion's name for the arm of its second answer to the same request."""


def compile_plan(
    config: model.Config,
    generation: int,
    routes: Routes | None = None,
    tracing: plan.Tracing | None = None,
) -> plan.Plan:
    """The plan for ``config``; ``generation`` numbers the plans of a run.

    Headers whose values are not in ``config`` are left out; see
    :func:`understudy.monitor.config.header_values.with_values`.

    ``routes`` is the assignment in force, but for experiments whose model servers are others now:
    what was decided on the ones before does not hold for them. A challenger that serves clients
    gets no mirrored requests, unless another experiment compares the answers to them. ``tracing``
    results from the environment as well: see :mod:`understudy.monitor.config.otel`.
    """
    limits = config.limits
    tls = config.listen.tls
    arms = arm_names(config)
    routes = _of_these_servers(config, routes or Routes())
    divided = list(_divided(config, routes, arms))
    serving = {
        arms[arm] for _, allocation, _ in divided for arm in set(allocation.arms) - {OUT}
    } - _compared(config, routes)
    champion = _champion(config)
    challengers = [_challenger(config, c, c.name in serving) for c in config.challengers]
    noise = max((e.compare.noise for e in config.experiments), default=0.0)
    if noise > 0.0:
        challengers.append(_again(config, noise))
    return plan.Plan(
        generation=generation,
        champion=champion,
        models=tuple(
            plan.Model(
                m.name,
                m.version,
                m.protocol,
                tuple(paths_of(m)),
                m.first_byte,
                m.between_bytes,
                m.total,
                tuple(m.overload),
                m.retry,
                plan.Match(tuple(m.match.names), m.match.body, m.match.most) if m.match else None,
            )
            for m in config.models
        ),
        challengers=tuple(challengers),
        splits=_splits(config, divided, arms, 1 + len(challengers)),
        limits=plan.Limits(
            head_bytes=limits.head,
            body_bytes=limits.body if limits.body is not None else sys.maxsize,
            header_lines=limits.header_lines,
            target_bytes=limits.target,
            connections=limits.connections,
            header_timeout=limits.header_timeout,
            body_timeout=limits.body_timeout,
            body_rate=limits.body_rate,
            keepalive_timeout=limits.keepalive,
            connection_age=limits.connection_age,
            drain_timeout=limits.drain,
            memory_bytes=limits.memory,
        ),
        capture=plan.Capture(config.capture.max_body, tuple(config.capture.headers)),
        handoff=plan.HandOff(max_bytes=config.handoff.max_bytes),
        tls=plan.ListenTls(tls.certificate, tls.key, tls.client_ca) if tls is not None else None,
        client_request_ids=config.listen.client_request_ids,
        tracing=tracing,
        faults=tuple(plan.Fault(arms.index(f.arm), f.share, f.status) for f in config.faults),
    )


def servers_of(config: model.Config, experiment: Experiment) -> dict[str, str]:
    """By arm, what tells its model server from another one: a digest of its URL and of the headers
    that are sent to it, but for credentials. It is stored, and headers may be secret."""
    servers: list[model.Server] = [config.champion]
    servers += [c for c in config.challengers if c.name in experiment.challengers]
    digests = {}
    is_credential = matcher((*CREDENTIAL_HEADERS, *config.credentials.headers))
    for server in servers:
        # A value from elsewhere is a secret, which is exchanged while the model stays.
        headers = sorted(
            (name, header.value)
            for name, header in server.headers.items()
            if header.value is not None and not is_credential(name.encode())
        )
        which = (server.url, server.host, headers, *sorted(server.rewrite_path.items()))
        rewrite = rewrite_of(server)
        text = repr(which if rewrite is None else (*which, rewrite))
        digests[server.name] = hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
    return digests


def _of_these_servers(config: model.Config, routes: Routes) -> Routes:
    """The assignments that were decided on the model servers of ``config``.

    Those that come over Kafka were decided on the servers of the evaluator's configuration, which
    may name them in another way.
    """
    if config.evaluation.mode == "kafka":
        return routes
    servers = {e.name: servers_of(config, e) for e in config.experiments}
    kept = {
        name: assignment
        for name, assignment in routes.assignments.items()
        if not assignment.servers or assignment.servers == servers.get(name, assignment.servers)
    }
    return replace(routes, assignments=kept)


def arm_names(config: model.Config) -> tuple[str, ...]:
    """Names of the plan's arms that can serve clients, champion first."""
    return (config.champion.name, *(challenger.name for challenger in config.challengers))


def plan_json(compiled: plan.Plan) -> dict[str, Any]:
    """The plan as plain data; :meth:`understudy.monitor.routing.plan.Plan.from_json` is the
    inverse."""
    return dataclasses.asdict(compiled)


def worker_count(config: model.Config) -> int:
    """The number of workers on this machine."""
    if config.workers == "auto":
        return min(len(os.sched_getaffinity(0)), 4)
    return config.workers


_METHODS = ("predict", "classify", "regress")
_MORE_PATHS = {
    **dict.fromkeys(("auto", "open-inference-v2"), (INFER, STREAM_INFER)),
    "seldon-v1": ("/api/v1.0/predictions", "/api/v0.1/predictions"),
    "bentoml": ("/predict",),
    "torchserve": ("/predictions/{name}", "/predictions/{name}/*"),
    "openai-chat": ("/v1/chat/completions", "/chat/completions"),
    "openai-completions": ("/v1/completions", "/completions"),
    "openai-responses": ("/v1/responses", "/responses"),
    "openai-embeddings": ("/v1/embeddings", "/embeddings", "/v1/rerank", "/rerank"),
    "anthropic-messages": ("/v1/messages",),
    "triton-generate": (
        "/v2/models/{name}/generate",
        "/v2/models/{name}/generate_stream",
        "/v2/models/{name}/versions/*/generate",
        "/v2/models/{name}/versions/*/generate_stream",
    ),
    "tgi": ("/generate", "/generate_stream"),
    "ollama": ("/api/chat", "/api/generate"),
}


_NAMED = (
    *("auto", "openai-chat", "openai-completions", "openai-responses", "openai-embeddings"),
    *("anthropic-messages", "triton-generate", "ollama"),
)
"""Protocols whose paths or bodies name the model."""


def paths_of(declared: model.Model) -> list[str]:
    """The inference paths of a declared model."""
    if declared.paths is not None:
        return declared.paths
    if declared.match is None:
        return default_paths(declared.name, declared.protocol)
    protocols = _NAMED if declared.protocol == "auto" else (declared.protocol,)
    more = (path.format(name="*") for name in protocols for path in _MORE_PATHS.get(name, ()))
    return list(dict.fromkeys((*(p for p in default_paths("*", "") if "*" in p), *more)))


def default_paths(name: str, protocol: str = "auto") -> list[str]:
    """The inference paths of a model in the V2 (HTTP and gRPC), V1 and MLflow protocols, and in its
    own."""
    return [
        f"/v2/models/{name}/infer",
        f"/v2/models/{name}/versions/*/infer",
        *(f"/v1/models/{name}:{method}" for method in _METHODS),
        *(f"/v1/models/{name}/versions/*:{method}" for method in _METHODS),
        "/invocations",
        *(path.format(name=name) for path in _MORE_PATHS.get(protocol, ())),
    ]


def _champion(config: model.Config) -> plan.Upstream:
    champion = config.champion
    return replace(
        _upstream(config, champion),
        connect_timeout=champion.timeouts.connect,
        first_byte_timeout=champion.timeouts.first_byte,
        between_bytes_timeout=champion.timeouts.between_bytes,
        total_timeout=champion.timeouts.total,
        max_connections=champion.max_connections,
        max_waiting=champion.max_waiting,
    )


def _divided(
    config: model.Config, routes: Routes, arms: tuple[str, ...]
) -> Iterator[tuple[Experiment, Allocation, Assignment]]:
    """Experiments that decide at present which arm serves a request."""
    for experiment in config.experiments:
        assignment = routes.assignments.get(experiment.name)
        allocation = assignment.over(arms) if assignment is not None else None
        if assignment is None or allocation is None:
            continue
        if experiment.routes or allocation.splits:
            yield experiment, allocation, assignment


def _compared(config: model.Config, routes: Routes) -> set[str]:
    """Challengers whose answers to mirrored requests an experiment compares at present."""
    found: set[str] = set()
    if not config.experiments:
        return found
    # Imported here: it imports numpy, which a supervisor without experiments does not need.
    from understudy.shadow.rollout.state import TERMINAL

    for experiment in config.experiments:
        assignment = routes.assignments.get(experiment.name)
        for name in experiment.challengers:
            if assignment is None or name not in assignment.names:
                found.add(name)
                continue
            phase = (assignment.rollouts.get(name) or {}).get("phase")
            serves = assignment.allocation.size(assignment.names.index(name)) > 0
            if not serves and phase not in TERMINAL:
                found.add(name)
    return found


def _splits(
    config: model.Config,
    divided: list[tuple[Experiment, Allocation, Assignment]],
    arms: tuple[str, ...],
    width: int,
) -> tuple[plan.Split, ...]:
    """The splits of all models; ``width`` is the number of the plan's arms."""
    found: list[plan.Split] = []
    of_model: dict[int, int] = {}
    # Should two ever claim the same units, the one that began first keeps them.
    for experiment, allocation, assignment in sorted(divided, key=lambda one: one[2].started):
        split = _split(config, experiment, allocation, arms)
        number = of_model.get(split.model, 0)
        of_model[split.model] = number + 1
        first = 1 + number * width
        found.append(replace(split, epoch=assignment.divided_at, first=first))
    return tuple(found)


def _split(
    config: model.Config, experiment: Experiment, allocation: Allocation, arms: tuple[str, ...]
) -> plan.Split:
    names = [one.name for one in config.models]
    unit = experiment.unit
    low, high = experiment.slice
    # An experiment in the shadow only routes its testers.
    whole = experiment.mode != "shadow" or allocation.splits
    return plan.Split(
        experiment=experiment.name,
        model=names.index(experiment.model) if experiment.model is not None else 0,
        salt=experiment.salt or experiment.name,
        slice=(threshold(low), threshold(high)) if whole else (0, 0),
        unit=unit.by,
        unit_name=unit.name.lower() if unit.by == "header" else unit.name,
        starts=allocation.starts,
        arms=allocation.arms,
        holdout=experiment.holdout,
        overrides=tuple((unit, arms.index(arm)) for unit, arm in experiment.overrides.items()),
        override_header=experiment.override_header,
        exclude=tuple((one.header, one.value) for one in experiment.exclude),
    )


def _again(config: model.Config, noise: float) -> plan.Challenger:
    """The champion as a mirror target, to measure how much its own answers differ."""
    mirror = model.Mirror(rate=noise)
    upstream = _champion(config)
    return _copied(config, replace(upstream, name=upstream.name + REPEAT_SUFFIX), mirror, noise)


def _challenger(
    config: model.Config, challenger: model.Challenger, serves: bool
) -> plan.Challenger:
    mirror = challenger.mirror
    timeouts = challenger.timeouts
    serving = replace(
        _upstream(config, challenger),
        host_header=challenger.host or server_address(challenger.url).authority,
        connect_timeout=timeouts.connect,
        first_byte_timeout=timeouts.first_byte,
        between_bytes_timeout=timeouts.between_bytes,
        total_timeout=timeouts.total,
        max_connections=challenger.max_connections,
        max_waiting=challenger.max_waiting,
    )
    return replace(
        _copied(config, serving, mirror, 0.0 if serves else mirror.rate),
        serving=serving,
    )


def mirror_timeouts(config: model.Config, mirror: model.Mirror) -> model.Timeouts:
    """The time limits of a mirrored request: those of the champion unless it has one."""
    limit = mirror.timeout
    if limit is None:
        return config.champion.timeouts
    every = dict.fromkeys(("connect", "first_byte", "between_bytes", "total"), limit)
    return model.Timeouts().model_copy(update=every)


def _copied(
    config: model.Config, upstream: plan.Upstream, mirror: model.Mirror, rate: float
) -> plan.Challenger:
    """A model server that gets mirrored requests."""
    timeouts = mirror_timeouts(config, mirror)
    return plan.Challenger(
        upstream=replace(
            upstream,
            connect_timeout=timeouts.connect,
            first_byte_timeout=timeouts.first_byte,
            between_bytes_timeout=timeouts.between_bytes,
            total_timeout=timeouts.total,
            max_connections=mirror.connections or config.champion.max_connections,
            max_waiting=mirror.queue.requests,
        ),
        rate=rate,
        timeout=mirror.timeout,
        queue_requests=mirror.queue.requests,
        queue_bytes=mirror.queue.bytes,
        max_response_bytes=mirror.max_response,
        breaker=plan.Breaker(
            mirror.breaker.failures,
            mirror.breaker.open,
            mirror.breaker.max_open,
            mirror.breaker.probes,
        ),
    )


def _upstream(config: model.Config, upstream: model.Champion | model.Challenger) -> plan.Upstream:
    """The settings that champion and challengers share."""
    removes = upstream.credentials == "remove"
    address = server_address(upstream.url)
    return plan.Upstream(
        name=upstream.name,
        host=address.host,
        port=address.port,
        socket=address.socket,
        tls=_tls(upstream.tls or model.UpstreamTls()) if address.secure else None,
        path_prefix=address.path,
        rewrites=tuple((old.decode(), new.decode()) for old, new in rewrites_of(upstream)),
        rewrite=rewrite_of(upstream),
        host_header=upstream.host,
        headers=tuple(
            (name, header.value)
            for name, header in upstream.headers.items()
            if header.value is not None
        ),
        removed_headers=tuple(upstream.remove_headers),
        credential_headers=(*CREDENTIAL_HEADERS, *config.credentials.headers) if removes else (),
        credential_query=(*CREDENTIAL_QUERY, *config.credentials.query) if removes else (),
        idle_timeout=upstream.idle,
        max_age=upstream.max_age,
        keepalive=upstream.keepalive or 0.0,
        resolve_every=upstream.resolve,
        max_header_lines=config.limits.header_lines,
        max_interim=config.limits.interim,
        http2=address.http2 if upstream.http2 is None else upstream.http2,
    )


def rewrites_of(upstream: model.Upstream) -> tuple[tuple[bytes, bytes], ...]:
    """Beginnings of targets and what replaces them, the longest first."""
    found = sorted(upstream.rewrite_path.items(), key=lambda one: -len(one[0]))
    return tuple((old.encode(), new.encode()) for old, new in found)


def rewrite_of(upstream: model.Upstream) -> plan.Rewrite | None:
    """What replaces the model's name and version in requests to a challenger, if anything does."""
    declared = upstream.rewrite if isinstance(upstream, model.Challenger) else None
    if declared is None:
        return None
    if isinstance(declared.model, dict):
        return plan.Rewrite(tuple(declared.model.items()), declared.version)
    return plan.Rewrite((("*", declared.model or ""),), declared.version)


def _tls(tls: model.UpstreamTls) -> plan.Tls:
    return plan.Tls(tls.verify, tls.ca, tls.server_name, tls.certificate, tls.key)
