"""Every route of the control APIs: who may call it, and how large its body may be.

A path that is not listed here does not exist, whatever an application registers: a new route needs
a line in this table before it answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from starlette.routing import compile_path

SMALL_BODY = 64 * 1024
DECLARATION_BODY = 256 * 1024
BULK_BODY = 8 * 1024 * 1024
"""Bytes of a body with labels, records or events; it is parsed while it arrives."""


class Access(Enum):
    """Who may call a route."""

    PUBLIC = "everybody"
    """Probes, scrapes, verdicts for rollout controllers, and the page without its data: nothing of
    a single request."""
    READ = "token, unless the address is loopback"
    """Shows payloads, or what was computed from them."""
    CHANGE = "token, if one is configured"
    """Changes state. Without a token only on a loopback address."""


@dataclass(frozen=True, slots=True)
class Route:
    """A route. ``body`` is the largest body in bytes; one up to :data:`DECLARATION_BODY` is read
    before the application is called, a larger one arrives there in pieces."""

    method: str
    path: str
    access: Access
    body: int = SMALL_BODY

    @property
    def bulk(self) -> bool:
        """Whether the body arrives in pieces."""
        return self.body > DECLARATION_BODY


def _of(access: Access, *routes: str, body: int = SMALL_BODY) -> Iterator[Route]:
    for route in routes:
        method, _, path = route.partition(" ")
        yield Route(method, path, access, body)


ROUTES = (
    *_of(
        Access.PUBLIC,
        "GET /",
        "GET /static/{file}",
        "GET /openapi.json",
        "GET /healthz",
        "GET /readyz",
        "GET /metrics",
        "GET /v1/argo/{name}",
        "POST /v1/flagger/{name}/{hook}",
    ),
    *_of(
        Access.READ,
        "GET /v1/status",
        "GET /v1/arms",
        "GET /v1/history",
        "GET /v1/events",
        "GET /v1/stream",
        "GET /v1/distributions",
        "GET /v1/session",
        "GET /v1/models",
        "GET /v1/records",
        "GET /v1/evaluator",
        "GET /v1/feedback",
        "GET /v1/baseline",
        "GET /v1/drift",
        "GET /v1/validation",
        "GET /v1/objectives",
        "GET /v1/experiments",
        "GET /v1/experiments/{name}",
        "GET /v1/experiments/{name}/timeline",
        "GET /v1/experiments/{name}/disagreements",
        "GET /v1/experiments/{name}/audit",
        "GET /v1/experiments/{name}/report",
        "GET /v1/findings",
        "GET /v1/findings/history",
        "GET /v1/findings/{id}",
        "GET /v1/findings/{id}/records",
        "GET /v1/findings/{id}/timeline",
        "GET /v1/findings/{rest:path}",
        "GET /v1/incidents",
        "GET /v1/incidents/{id}",
        "GET /v1/incidents/{rest:path}",
        "GET /v1/silences",
    ),
    *_of(
        Access.CHANGE,
        "POST /v1/session",
        "POST /v1/config/reload",
        "DELETE /v1/experiments/{name}",
        "POST /v1/experiments/{name}/{command}",
        "POST /v1/findings/{id}/acknowledge",
        "POST /v1/findings/{id}/close",
        "POST /v1/incidents/{id}/acknowledge",
        "POST /v1/silences",
        "DELETE /v1/silences/{id}",
    ),
    *_of(Access.CHANGE, "POST /v1/experiments", body=DECLARATION_BODY),
    *_of(
        Access.CHANGE,
        "POST /v1/feedback",
        "POST /v1/records",
        "POST /v1/cloudevents",
        body=BULK_BODY,
    ),
)


def _patterns() -> dict[str, list[tuple[re.Pattern[str], Route]]]:
    found: dict[str, list[tuple[re.Pattern[str], Route]]] = {}
    for route in ROUTES:
        # The matching of the router itself, so that both see the same route in a path.
        found.setdefault(route.method, []).append((compile_path(route.path)[0], route))
    return found


_PATTERNS = _patterns()
_EXACT = {(route.method, route.path): route for route in ROUTES if "{" not in route.path}


def find(method: str, path: str) -> Route | None:
    """The route of a request; None if there is none."""
    exact = _EXACT.get((method, path))
    if exact is not None:
        return exact
    for pattern, route in _PATTERNS.get(method, ()):
        if pattern.match(path):
            return route
    return None


def methods(path: str) -> list[str]:
    """The methods that a path has."""
    return [method for method in sorted(_PATTERNS) if _is_path(find(method, path))]


def _is_path(route: Route | None) -> bool:
    """Whether it is the route of a path, and not one for the rest of them."""
    return route is not None and ":path}" not in route.path


def describe(document: dict[str, Any]) -> dict[str, Any]:
    """Add to an OpenAPI document which operations need the token."""
    schemes = document.setdefault("components", {}).setdefault("securitySchemes", {})
    schemes["token"] = {
        "type": "http",
        "scheme": "bearer",
        "description": "The configured token (`control.token_env`).",
    }
    table = {(route.method, route.path): route for route in ROUTES}
    paths: Mapping[str, dict[str, Any]] = document["paths"]
    for path, operations in paths.items():
        for method, operation in operations.items():
            route = table[method.upper(), path]
            if route.access is not Access.PUBLIC:
                operation["security"] = [{"token": []}]
                operation.setdefault("description", "")
                operation["description"] = (
                    f"{operation['description']}\n\nNeeds: {route.access.value}."
                )
    return document
