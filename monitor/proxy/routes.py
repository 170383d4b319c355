"""Maps a request target to its model, and the name in a body."""

from __future__ import annotations

import json
import logging
import re
from collections.abc import Callable
from dataclasses import replace
from typing import Final
from urllib.parse import unquote_to_bytes

from understudy.common.grpc_messages import INFER, STREAM_INFER, model_of
from understudy.common.protocols import LLM_PATHS, MARKS_END
from understudy.monitor.proxy.pointer import pointed, steps
from understudy.monitor.proxy.series import SeriesRow
from understudy.monitor.proxy.target import normal_path
from understudy.monitor.records.record import ROLES
from understudy.monitor.routing.plan import Match, Model, Plan, Upstream
from understudy.monitor.stats.shared import OTHER, SharedStats, walk

log = logging.getLogger(__name__)

_SAFE = frozenset((b"GET", b"HEAD"))
"""Methods of requests that are repeated on another connection if theirs was stale, on any route."""
_CACHED: Final = 2048
_CACHED_BYTES: Final = 256
_PROTOCOLS = (
    (re.compile(rb"/v2/models/[^/]+(?:/versions/[^/]+)?/infer"), "open-inference-v2"),
    (re.compile(rb"/inference\.GRPCInferenceService/Model(?:Stream)?Infer"), "open-inference-v2"),
    (
        re.compile(rb"/v1/models/[^/]+(?:/versions/[^/]+)?:(?:predict|classify|regress)"),
        "kserve-v1",
    ),
    (re.compile(rb"/invocations"), "mlflow"),
    *((re.compile(path.encode()), name) for name, path in LLM_PATHS.items()),
)


class Route:
    """A model, or none, and its statistics: ``rows[arm][role]``.

    ``model`` is the index in the plan, or -1 for a request that is not an inference request: it is
    forwarded and counted, but neither recorded nor mirrored. ``overload`` are the statuses with
    which the model says that it is overloaded. ``marks_end``: a stream of its protocol that has no
    end mark is cut off.

    A route whose model is in the body is ``by_body``. ``new`` are name and version of a model that
    becomes known when a request of this route succeeds; until then it counts as the route's."""

    __slots__ = (
        "_holds",
        *("_settings", "by_body", "marks_end", "model", "new", "overload", "protocol", "rows"),
    )

    def __init__(
        self,
        model: int,
        rows: list[list[SeriesRow]],
        settings: Model,
        stats: SharedStats,
        protocol: str,
        by_body: bool = False,
        new: tuple[str, str] | None = None,
    ) -> None:
        self.model = model
        self.marks_end = protocol in MARKS_END
        self.rows = rows
        self._holds = [stats.hold(row.forget) for by_role in rows for row in by_role]
        self.overload = settings.overload
        self.protocol = protocol
        self.by_body = by_body
        self.new = new
        self._settings = settings

    def may_repeat(self, reason: str, method: bytes) -> bool:
        """Whether a request may be sent again after its connection was lost; see
        :meth:`understudy.monitor.proxy.upstream.Sink.on_lost`."""
        if reason == "refused":
            return True
        if self._settings.retry:
            return reason in ("stale", "unanswered")
        # What is lost on a new connection may have brought the server down.
        return reason == "stale" and method in _SAFE

    def first_byte(self, upstream: Upstream) -> float:
        """Time limit for the first byte of a response of ``upstream``, in seconds."""
        own = self._settings.first_byte_timeout
        return upstream.first_byte_timeout if own is None else own

    def between_bytes(self, upstream: Upstream) -> float:
        """Time limit for a pause, in seconds."""
        own = self._settings.between_bytes_timeout
        return upstream.between_bytes_timeout if own is None else own

    def total(self, upstream: Upstream) -> float | None:
        """Time limit for the whole exchange, in seconds; None: no limit."""
        own = self._settings.total_timeout
        return upstream.total_timeout if own is None else own


_NAME = re.compile(r"[^\s\x00-\x1f\x7f*?#\\\"]{1,200}")
_VERSION = re.compile(r"[A-Za-z0-9._-]{0,63}")
_CALLS = frozenset((INFER.encode(), STREAM_INFER.encode()))
_BROKEN = "\ufffd"
"""Stands for bytes that are not UTF-8."""
_NO_NAME = ("", "")


class Routes:
    """Looks up targets; the cache is bounded, so that random paths cost no memory.

    ``known`` are models that were found in requests, each (name, version) with its index, which
    follow those of the plan; ``before`` are the routes of an earlier plan, which has found some.
    ``found`` is called when there is another one.
    """

    def __init__(
        self,
        plan: Plan,
        stats: SharedStats,
        before: Routes | None = None,
        found: Callable[[], None] = lambda: None,
    ) -> None:
        self._plan = plan
        self._stats = stats
        self._found = found
        self.models: list[Model] = list(plan.models)
        """Those of the plan, and those that were found."""
        self.known: dict[tuple[str, str], int] = {}
        self._exact: dict[bytes, int] = {}
        self._patterns: list[tuple[re.Pattern[bytes], int]] = []
        self._template = next((n for n, m in enumerate(plan.models) if m.match is not None), -1)
        match = plan.models[self._template].match if self._template >= 0 else None
        self._match = match or Match(())
        self._names = [
            re.compile(re.escape(name).replace(r"\*", ".*")) for name in self._match.names
        ]
        self._pointer = steps(self._match.pointer)
        self._declared: dict[tuple[str, str], int] = {}
        # What is listed comes before what matches any name.
        for index, model in sorted(
            enumerate(plan.models), key=lambda one: one[1].match is not None
        ):
            if model.match is None:
                self._declared.setdefault((model.name, model.version), index)
                self._declared.setdefault((model.name, ""), index)
            for path in model.paths:
                if "*" in path:
                    pattern = re.escape(path.encode()).replace(rb"\*", rb"([^/]+)")
                    self._patterns.append((re.compile(pattern), index))
                else:
                    self._exact.setdefault(path.encode(), index)
        # Calls of all models have the same paths.
        owners = [[m for m in plan.models if path in m.paths] for path in (INFER, STREAM_INFER)]
        self._called = self._template >= 0 or max(map(len, owners)) > 1
        self._routes: dict[tuple[int, str], Route] = {}
        self._cache: dict[bytes, Route] = {}
        self._full = self._closed = False
        for key in before.known if before is not None else self._counted():
            if self._fits(*key) and len(self.known) < self._match.most:
                self._add(key)
        self.other = self._route(-1, "other")

    def find(self, target: bytes) -> Route:
        """The route of a request target, ignoring its query."""
        path = target.partition(b"?")[0]
        route = self._cache.get(path)
        if route is None:
            route = self._look_up(path)
            if len(path) <= _CACHED_BYTES:
                if len(self._cache) >= _CACHED:
                    self._cache.clear()
                self._cache[path] = route
        return route

    def named(self, route: Route, body: bytes) -> Route:
        """The route of a request whose model is in its body."""
        name = version = ""
        if body[:1] in (b"\0", b"\1"):  # a message of gRPC, and no JSON
            name, version = model_of(body) or _NO_NAME
        else:
            try:
                name = pointed(json.loads(body), self._pointer).decode()
            except (ValueError, RecursionError):
                pass
        if self._template < 0:
            # Of several listed models: any other is none of them.
            index = self._declared.get((name, version), self._declared.get((name, "")))
            return self.other if index is None else self._route(index, route.protocol)
        return self._of_name(
            self._route(self._template, route.protocol), name, version, route.protocol
        )

    def close(self) -> None:
        """Learn no more: another plan is in force, whose models have other indices."""
        self._closed = True

    def learn(self, route: Route) -> Route:
        """A request of a model that was not known has succeeded: its route from now on, unless
        there are too many."""
        key = route.new
        if key is None or self._closed:
            return route
        if key not in self.known:
            if len(self.known) >= self._match.most:
                self._stats.words[self._stats.counter("models_unlisted")] += 1
                if not self._full:
                    self._full = True
                    log.warning(
                        "models[].match.most: more than %d models: requests for others, such as "
                        "%r, count as model %r",
                        self._match.most,
                        key[0],
                        self.models[self._template].name,
                    )
                return route
            self._add(key)
            self._cache.clear()
            self._found()
        return self._route(self.known[key], route.protocol)

    def _counted(self) -> list[tuple[str, str]]:
        """Models that a worker before this one has found and counted."""
        if self._template < 0:
            return []
        series = (entry for entry in walk(self._stats.words) if entry.name == "requests")
        keys = dict.fromkeys((one.labels["model"], one.labels["version"]) for one in series)
        listed = {(model.name, model.version) for model in self._plan.models}
        return [key for key in keys if key not in listed and key[0] != OTHER["model"]]

    def _add(self, key: tuple[str, str]) -> None:
        self.known[key] = len(self.models)
        template = self._plan.models[self._template]
        self.models.append(replace(template, name=key[0], version=key[1], match=None))

    def _fits(self, name: str, version: str) -> bool:
        """Whether a model of that name may become known."""
        return (
            _NAME.fullmatch(name) is not None
            and _BROKEN not in name
            and _VERSION.fullmatch(version) is not None
            and any(pattern.fullmatch(name) is not None for pattern in self._names)
        )

    def _of_name(self, route: Route, name: str, version: str, protocol: str) -> Route:
        """The route of a model by its name; ``route`` if it has none."""
        key = (name, version)
        index = self._declared.get(key, self.known.get(key))
        if index is not None:
            return self._route(index, protocol)
        if not name or not self._fits(name, version):
            return route
        settings = self._plan.models[self._template]
        return Route(route.model, route.rows, settings, self._stats, protocol, new=key)

    def _look_up(self, path: bytes) -> Route:
        spelled, (index, name) = path, self._index(path)
        if index is None:
            # A client must not pass by an experiment by spelling a path in another way.
            spelled = normal_path(path)
            index, name = self._index(spelled)
            if index is None:
                return self.other
        model = self._plan.models[index]
        # As it is first: a name may hold an encoded slash.
        found = (_protocol(model, spelled) for spelled in (path, normal_path(path)))
        protocol = next((one for one in found if one != "auto"), "auto")
        route = self._route(index, protocol)
        if self._called and path in _CALLS:
            return Route(index, route.rows, model, self._stats, protocol, by_body=True)
        if index != self._template:
            return route
        if name == _NO_NAME:
            return Route(index, route.rows, model, self._stats, protocol, by_body=True)
        return self._of_name(route, *name, protocol)

    def _index(self, path: bytes) -> tuple[int | None, tuple[str, str]]:
        """The index of the model, and the name and version that the path has."""
        index = self._exact.get(path)
        if index is not None:
            return index, _NO_NAME
        for pattern, candidate in self._patterns:
            match = pattern.fullmatch(path)
            if match is not None:
                parts = [
                    unquote_to_bytes(part).decode("utf-8", "replace") for part in match.groups()
                ]
                return candidate, (parts[0], parts[1] if len(parts) > 1 else "")
        return None, _NO_NAME

    def _route(self, index: int, protocol: str) -> Route:
        route = self._routes.get((index, protocol))
        if route is None:
            model = self.models[index] if index >= 0 else Model("other", "", "other", ())
            rows = [
                [
                    SeriesRow(
                        self._stats,
                        {
                            "model": model.name,
                            "version": model.version,
                            "protocol": protocol,
                            "arm": arm,
                            "role": role,
                        },
                    )
                    for role in ROLES
                ]
                for arm in self._plan.arms
            ]
            route = self._routes[index, protocol] = Route(index, rows, model, self._stats, protocol)
        return route


def protocols_of(model: Model) -> list[str]:
    """The protocols under which requests of a model can be counted."""
    paths = (path.replace("*", "x").encode() for path in model.paths)
    return list(dict.fromkeys(_protocol(model, path) for path in paths))


def _protocol(model: Model, path: bytes) -> str:
    if model.protocol != "auto":
        return model.protocol
    for pattern, name in _PROTOCOLS:
        if pattern.fullmatch(path) is not None:
            return name
    return "auto"
