"""Who serves, and how well, as metric families."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client.core import Metric

from understudy.monitor.routing.serving import ROLES, STATES, Service
from understudy.monitor.telemetry.families import gauge

_OF = ("model", "version", "arm")


def service_families(service: Service) -> Iterator[Metric]:
    """Planned and served shares, roles and states of all arms."""
    arms = service.arms
    shares = [(arm.arm, share) for arm in arms for share in arm.shares]
    yield gauge(
        "arm_share",
        "Part of a model's requests: planned by the routes, and served in the last minute.",
        (*_OF, "of"),
        [
            ([share.model, share.version, arm, of], value)
            for arm, share in shares
            for of, value in (("planned", share.planned), ("served", share.served))
            if value is not None
        ],
    )
    yield gauge(
        "arm_diverted_requests",
        "Requests of the last minute that the arm should have served, and another arm served.",
        _OF,
        [([share.model, share.version, arm], share.diverted) for arm, share in shares],
    )
    yield gauge(
        "arm_role",
        "1 for the present role of the arm, by the routes.",
        ("arm", "role"),
        [([arm.arm, role], float(arm.role == role)) for arm in arms for role in ROLES],
    )
    yield gauge(
        "arm_state",
        "1 for the present state of the arm.",
        ("arm", "state"),
        [([arm.arm, state], float(arm.state == state)) for arm in arms for state in STATES],
    )
