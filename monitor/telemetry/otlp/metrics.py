"""From the families of /metrics to metrics of OpenTelemetry.

Both show the same counts: what is sent is converted from what a scraper gets. Request durations
have the names and attributes of the semantic conventions of HTTP, everything else those of /metrics
with ``understudy.`` in front. This module imports the SDK: only threads that export import it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from opentelemetry.sdk.metrics import Exemplar
from opentelemetry.sdk.metrics.export import (
    AggregationTemporality,
    Buckets,
    ExponentialHistogram,
    ExponentialHistogramDataPoint,
    Gauge,
    Histogram,
    HistogramDataPoint,
    MetricsData,
    NumberDataPoint,
    ResourceMetrics,
    ScopeMetrics,
    Sum,
)
from opentelemetry.sdk.metrics.export import Metric as OtlpMetric
from opentelemetry.sdk.resources import Resource
from prometheus_client.core import Metric
from prometheus_client.samples import Sample

from understudy.monitor.records.record import CLIENT, OUTCOMES, SIDES
from understudy.monitor.telemetry.families import PREFIX, SketchFamily, ValueFamily
from understudy.monitor.telemetry.native import native_histogram
from understudy.monitor.telemetry.otlp.gen_ai import Value
from understudy.monitor.telemetry.otlp.sdk import SCHEMA, SCOPE
from understudy.monitor.telemetry.otlp.spans import Place

REQUESTS = f"{PREFIX}request_duration_seconds"
IN_FLIGHT = f"{PREFIX}in_flight_requests"
SERVER_DURATION = "http.server.request.duration"
CLIENT_DURATION = "http.client.request.duration"
ACTIVE = "http.server.active_requests"
OTHER = "other"
_SERVER_TEXT = "Duration of HTTP server requests, from their arrival to the end of the response."
_CLIENT_TEXT = "Duration of HTTP client requests, with what the proxy took of it."
_UNITS = {"seconds": "s", "bytes": "By", "joules": "J"}
_FAILED = {name for number, name in enumerate(OUTCOMES) if SIDES.get(number, CLIENT) != CLIENT}

Key = tuple[str, tuple[tuple[str, Value], ...]]


@dataclass(frozen=True, slots=True)
class Distribution:
    """One series of a histogram. ``counts`` are those of its buckets, one more than ``bounds``;
    ``fine`` are indices and counts of exponential buckets, where there are any, of ``scale``."""

    count: int
    total: float
    bounds: tuple[float, ...]
    counts: tuple[int, ...]
    exemplars: tuple[Any, ...] = ()
    scale: int = 0
    zero: int = 0
    fine: Mapping[int, int] | None = None

    def since(self, before: Distribution | None) -> Distribution:
        """What was added; everything if it began again, or has other buckets."""
        if before is None or before.bounds != self.bounds or before.count > self.count:
            return self
        fine = None
        if self.fine is not None:
            old = before.fine or {}
            fine = {k: n - old.get(k, 0) for k, n in self.fine.items() if n > old.get(k, 0)}
        return replace(
            self,
            count=self.count - before.count,
            total=self.total - before.total,
            counts=tuple(n - m for n, m in zip(self.counts, before.counts, strict=True)),
            zero=self.zero - before.zero,
            fine=fine,
        )


class Converter:
    """Makes the metrics of one export after the other.

    ``scheme`` is that of the listener, ``places`` are the model servers by arm. ``start`` is the
    unix time in nanoseconds at which the counts began. With ``delta``, an export has what was added
    since the last one that succeeded; the first has nothing, since an earlier process has sent what
    was counted before.
    """

    def __init__(
        self,
        resource: Resource,
        scheme: str,
        places: Mapping[str, Place],
        start: int,
        delta: bool,
        exponential: bool,
        exemplars: bool,
    ) -> None:
        self._resource = resource
        self._scheme = scheme
        self._places = places
        self._start = start
        self._delta = delta
        self._exponential = exponential
        self._exemplars = exemplars
        self._sums: dict[Key, float] = {}
        self._distributions: dict[Key, Distribution] = {}
        self._pending: tuple[int, dict[Key, float], dict[Key, Distribution]] = (start, {}, {})
        self._begins = delta

    @property
    def _temporality(self) -> Any:
        return AggregationTemporality.DELTA if self._delta else AggregationTemporality.CUMULATIVE

    def convert(self, families: Iterable[Metric], now: int) -> Any:
        """The data of an export at ``now``, unix nanoseconds."""
        self._pending = (now, {}, {})
        metrics: list[Any] = []
        for family in families:
            if isinstance(family, SketchFamily) and family.name == REQUESTS:
                metrics += self._requests(family, now)
            elif family.name == IN_FLIGHT:
                metrics.append(self._active(family, now))
            elif family.type == "histogram":
                metrics.append(self._histogram(family, now))
            elif family.type == "counter":
                metrics.append(self._counter(family, now))
            elif family.type == "gauge":
                points = [
                    self._number(_attributes(sample.labels), sample.value, now)
                    for sample in family.samples
                ]
                metrics.append(self._metric(family, Gauge(points)))
        if self._begins:
            self._begins = False
            self.sent()
            metrics = []
        scope = ScopeMetrics(SCOPE, [one for one in metrics if one.data.data_points], SCHEMA)
        return MetricsData([ResourceMetrics(self._resource, [scope], SCHEMA)])

    def sent(self) -> None:
        """The last export has succeeded."""
        if self._delta:
            self._start, self._sums, self._distributions = self._pending

    def _metric(self, family: Metric, data: Any) -> Any:
        name = family.name.replace(PREFIX, "understudy.", 1)
        unit = _UNITS.get(family.name.rpartition("_")[2], "1")
        return OtlpMetric(name, family.documentation, unit, data)

    def _number(self, attributes: dict[str, Value], value: float, now: int) -> Any:
        # Always one type: a count that turned from an integer into a float would be another metric.
        return NumberDataPoint(attributes, self._start, now, float(value))

    def _counter(self, family: Metric, now: int) -> Any:
        points = []
        for sample in family.samples:
            if not sample.name.endswith("_total"):
                continue
            attributes = _attributes(sample.labels)
            key = (family.name, tuple(sorted(attributes.items())))
            self._pending[1][key] = value = sample.value
            before = self._sums.get(key, 0.0)
            if self._delta and before <= value:
                value -= before
            points.append(self._number(attributes, value, now))
        return self._metric(family, Sum(points, self._temporality, True))

    def _active(self, family: Metric, now: int) -> Any:
        points = []
        for sample in family.samples:
            if sample.labels.get("role") == "primary":
                about: dict[str, Value] = {
                    "http.request.method": "POST",
                    "url.scheme": self._scheme,
                    "understudy.arm": sample.labels.get("arm", ""),
                }
                points.append(self._number(about, sample.value, now))
        # It may fall, so its parts are sent as they are.
        data = Sum(points, AggregationTemporality.CUMULATIVE, False)
        return OtlpMetric(ACTIVE, "Number of active HTTP server requests.", "{request}", data)

    def _requests(self, family: SketchFamily, now: int) -> list[Any]:
        """The durations of inference requests, on both sides."""
        server, client = [], []
        for labels, of in self._series(family):
            if labels.get("model") == OTHER:
                continue  # other methods than POST are counted with them
            own = _attributes(labels, "understudy.")
            outcome = labels.get("outcome", "")
            if outcome in _FAILED:
                own["error.type"] = outcome
            about: dict[str, Value]
            if labels.get("role") == "primary":
                about = {"http.request.method": "POST", "url.scheme": self._scheme}
                server.append(self._point(SERVER_DURATION, about | own, of, now))
            place = self._places.get(labels.get("arm", ""))
            if place is not None:
                about = {"http.request.method": "POST", "server.address": place.address}
                if place.port is not None:
                    about["server.port"] = place.port
                client.append(self._point(CLIENT_DURATION, about | own, of, now))
        return [
            OtlpMetric(SERVER_DURATION, _SERVER_TEXT, "s", self._data(server)),
            OtlpMetric(CLIENT_DURATION, _CLIENT_TEXT, "s", self._data(client)),
        ]

    def _histogram(self, family: Metric, now: int) -> Any:
        exponential = self._exponential and isinstance(family, SketchFamily)
        points = [
            self._point(family.name, _attributes(labels), of, now, exponential)
            for labels, of in self._series(family)
        ]
        return self._metric(family, self._data(points, exponential))

    def _data(self, points: Sequence[Any], exponential: bool | None = None) -> Any:
        wide = self._exponential if exponential is None else exponential
        kind: Callable[..., Any] = ExponentialHistogram if wide else Histogram
        return kind(points, self._temporality)

    def _point(
        self,
        name: str,
        attributes: dict[str, Value],
        of: Distribution,
        now: int,
        exponential: bool | None = None,
    ) -> Any:
        key = (name, tuple(sorted(attributes.items())))
        self._pending[2][key] = of
        if self._delta:
            of = of.since(self._distributions.get(key))
        exemplars = [one for one in of.exemplars if one.time_unix_nano >= self._start]
        wide = self._exponential if exponential is None else exponential
        if not wide or of.fine is None:
            return HistogramDataPoint(
                attributes,
                self._start,
                now,
                of.count,
                of.total,
                of.counts,
                of.bounds,
                None,
                None,
                exemplars,
            )
        low, counts = _dense(of.fine)
        return ExponentialHistogramDataPoint(
            attributes,
            self._start,
            now,
            of.count,
            of.total,
            of.scale,
            of.zero,
            Buckets(low, counts),
            Buckets(0, []),
            0,
            None,
            None,
            exemplars,
        )

    def _series(self, family: Metric) -> Iterable[tuple[dict[str, str], Distribution]]:
        """Labels and counts of each series of a histogram."""
        found: dict[tuple[tuple[str, str], ...], list[Sample]] = {}
        for sample in family.samples:
            labels = {k: v for k, v in sample.labels.items() if k != "le"}
            found.setdefault(tuple(sorted(labels.items())), []).append(sample)
        fine = {}
        if isinstance(family, SketchFamily) and self._exponential:
            for one in family.native:
                names = dict(zip(family.label_names, one.labels, strict=True))
                fine[tuple(sorted(names.items()))] = native_histogram(one.words)
        for labels_, samples in found.items():
            buckets = [one for one in samples if one.name.endswith("_bucket")]
            cumulative = [int(one.value) for one in buckets]
            total = next((s.value for s in samples if s.name.endswith("_sum")), 0.0)
            if isinstance(family, ValueFamily):
                total = family.sums.get(tuple(v for k, v in _ordered(buckets[0])), 0.0)
            counts = tuple(n - m for n, m in zip(cumulative, [0, *cumulative], strict=False))
            bounds = tuple(float(one.labels["le"]) for one in buckets[:-1])
            of = Distribution(cumulative[-1], total, bounds, counts, tuple(self._examples(buckets)))
            native = fine.get(labels_)
            if native is not None:
                of = replace(
                    of,
                    count=native.count,
                    scale=native.schema,
                    zero=native.zero_count,
                    fine=_indices(native.spans, native.deltas),
                )
            yield dict(labels_), of

    def _examples(self, buckets: Sequence[Sample]) -> Iterable[Any]:
        for one in buckets if self._exemplars else ():
            example = one.exemplar
            if example is not None and example.labels.get("span_id"):
                yield Exemplar(
                    {},
                    example.value,
                    int(float(example.timestamp or 0.0) * 1e9),
                    int(example.labels["span_id"], 16),
                    int(example.labels["trace_id"], 16),
                )


def _ordered(sample: Sample) -> list[tuple[str, str]]:
    """Labels as the family has them, without the bucket's."""
    return [(k, v) for k, v in sample.labels.items() if k != "le"]


def _attributes(labels: Mapping[str, str], prefix: str = "") -> dict[str, Value]:
    return {prefix + name: value for name, value in labels.items() if value}


def _indices(spans: Sequence[tuple[int, int]], deltas: Sequence[int]) -> dict[int, int]:
    """Buckets by OTLP's index, which is one less than Prometheus'."""
    found: dict[int, int] = {}
    index, count, number = 0, 0, 0
    for offset, length in spans:
        index += offset
        for _ in range(length):
            count += deltas[number]
            number += 1
            if count:
                found[index - 1] = count
            index += 1
    return found


def _dense(fine: Mapping[int, int]) -> tuple[int, list[int]]:
    if not fine:
        return 0, []
    low, high = min(fine), max(fine)
    return low, [fine.get(index, 0) for index in range(low, high + 1)]
