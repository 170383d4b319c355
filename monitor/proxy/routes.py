"""Maps a request target to its model."""

from __future__ import annotations

import re

from understudy.monitor.proxy.series import SeriesRow
from understudy.monitor.proxy.target import normal_path
from understudy.monitor.records.record import ROLES
from understudy.monitor.routing.plan import Model, Plan, Upstream
from understudy.monitor.stats.shared import SharedStats

_SAFE = frozenset((b"GET", b"HEAD"))
"""Methods of requests that are repeated on another connection if theirs was stale, on any route."""
_CACHED = 2048
_CACHED_BYTES = 256
_PROTOCOLS = (
    (re.compile(rb"/v2/models/[^/]+(?:/versions/[^/]+)?/infer"), "open-inference-v2"),
    (
        re.compile(rb"/v1/models/[^/]+(?:/versions/[^/]+)?:(?:predict|classify|regress)"),
        "kserve-v1",
    ),
    (re.compile(rb"/invocations"), "mlflow"),
)


class Route:
    """A model, or none, and its statistics: ``rows[arm][role]``.

    ``model`` is the index in the plan, or -1 for a request that is not an inference request: it is
    forwarded and counted, but neither recorded nor mirrored. ``overload`` are the statuses with
    which the model says that it is overloaded."""

    __slots__ = ("_settings", "model", "overload", "rows")

    def __init__(self, model: int, rows: list[list[SeriesRow]], settings: Model) -> None:
        self.model = model
        self.rows = rows
        self.overload = settings.overload
        self._settings = settings

    def may_repeat(self, reason: str, method: bytes) -> bool:
        """Whether a request may be sent again after its connection was lost; see
        :meth:`understudy.monitor.proxy.upstream.Sink.on_lost`."""
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


class Routes:
    """Looks up targets; the cache is bounded, so that random paths cost no memory."""

    def __init__(self, plan: Plan, stats: SharedStats) -> None:
        self._plan = plan
        self._stats = stats
        self._exact: dict[bytes, int] = {}
        self._patterns: list[tuple[re.Pattern[bytes], int]] = []
        for index, model in enumerate(plan.models):
            for path in model.paths:
                if "*" in path:
                    pattern = re.escape(path.encode()).replace(rb"\*", rb"[^/]+")
                    self._patterns.append((re.compile(pattern), index))
                else:
                    self._exact.setdefault(path.encode(), index)
        self._routes: dict[tuple[int, str], Route] = {}
        self._cache: dict[bytes, Route] = {}
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

    def _look_up(self, path: bytes) -> Route:
        index = self._index(path)
        if index is None:
            # A client must not pass by an experiment by spelling a path in another way.
            index = self._index(normal_path(path))
            if index is None:
                return self.other
        model = self._plan.models[index]
        # As it is first: a name may hold an encoded slash.
        found = (_protocol(model, spelled) for spelled in (path, normal_path(path)))
        return self._route(index, next((one for one in found if one != "auto"), "auto"))

    def _index(self, path: bytes) -> int | None:
        index = self._exact.get(path)
        if index is not None:
            return index
        for pattern, candidate in self._patterns:
            if pattern.fullmatch(path) is not None:
                return candidate
        return None

    def _route(self, index: int, protocol: str) -> Route:
        route = self._routes.get((index, protocol))
        if route is None:
            model = self._plan.models[index] if index >= 0 else Model("other", "", "other", ())
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
            route = self._routes[index, protocol] = Route(index, rows, model)
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
