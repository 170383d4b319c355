"""From a :class:`Config` to the plan that the workers get."""

from __future__ import annotations

import dataclasses
import os
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

from monitor.config import model
from monitor.proxy import plan


def compile_plan(config: model.Config, generation: int) -> plan.Plan:
    """The plan for ``config``; ``generation`` numbers the accepted configurations of a run."""
    limits = config.limits
    tls = config.listen.tls
    return plan.Plan(
        generation=generation,
        champion=_champion(config.champion),
        models=tuple(
            plan.Model(m.name, m.version, m.protocol, tuple(m.paths or default_paths(m.name)))
            for m in config.models
        ),
        challengers=tuple(_challenger(challenger) for challenger in config.challengers),
        limits=plan.Limits(
            head_bytes=limits.head,
            target_bytes=limits.target,
            connections=limits.connections,
            header_timeout=limits.header_timeout,
            keepalive_timeout=limits.keepalive,
            drain_timeout=limits.drain,
        ),
        capture=plan.Capture(config.capture.max_body, tuple(config.capture.headers)),
        handoff=plan.HandOff(max_bytes=config.handoff.max_bytes),
        tls=plan.ListenTls(tls.certificate, tls.key) if tls is not None else None,
    )


def plan_json(compiled: plan.Plan) -> dict[str, Any]:
    """The plan as plain data; :meth:`monitor.proxy.plan.Plan.from_json` is the inverse."""
    return dataclasses.asdict(compiled)


def worker_count(config: model.Config) -> int:
    """How many workers ``workers`` means on this machine."""
    if config.workers == "auto":
        return min(len(os.sched_getaffinity(0)), 4)
    return config.workers


def default_paths(name: str) -> list[str]:
    """Where the V2, V1 and MLflow protocols have the inference requests of a model."""
    return [
        f"/v2/models/{name}/infer",
        f"/v2/models/{name}/versions/*/infer",
        f"/v1/models/{name}:predict",
        f"/v1/models/{name}/versions/*:predict",
        "/invocations",
    ]


def _champion(champion: model.Champion) -> plan.Upstream:
    return replace(
        _upstream(champion),
        connect_timeout=champion.timeouts.connect,
        first_byte_timeout=champion.timeouts.first_byte,
        total_timeout=champion.timeouts.total,
        max_connections=champion.max_connections,
        max_waiting=champion.max_waiting,
    )


def _challenger(challenger: model.Challenger) -> plan.Challenger:
    mirror = challenger.mirror
    return plan.Challenger(
        upstream=replace(
            _upstream(challenger),
            # A copy does not carry the client's Host: it would name the champion.
            host_header=challenger.host or urlsplit(challenger.url).netloc,
            connect_timeout=mirror.timeout,
            first_byte_timeout=mirror.timeout,
            total_timeout=mirror.timeout,
            max_connections=mirror.connections,
            max_waiting=mirror.queue.requests,
        ),
        rate=mirror.rate,
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


def _upstream(upstream: model.Upstream) -> plan.Upstream:
    """What champion and challengers have in common."""
    parts = urlsplit(upstream.url)
    secure = parts.scheme == "https"
    tls = upstream.tls or model.UpstreamTls()
    return plan.Upstream(
        name=upstream.name,
        host=parts.hostname or "",
        port=parts.port or (443 if secure else 80),
        tls=plan.Tls(tls.verify, tls.ca, tls.server_name) if secure else None,
        path_prefix=parts.path.rstrip("/"),
        host_header=upstream.host,
        headers=tuple(upstream.headers.items()),
        idle_timeout=upstream.idle,
    )
