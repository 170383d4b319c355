"""Metric families built from series that are counted elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from prometheus_client.core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)
from prometheus_client.samples import Exemplar as SampleExemplar
from prometheus_client.utils import floatToGoString

from understudy.monitor.pipeline.exemplars import Exemplar, ExemplarKey
from understudy.monitor.stats.distribution import Words
from understudy.monitor.stats.reader import Labels
from understudy.monitor.stats.shared import SKETCH_SUM_NS, SKETCH_WORDS
from understudy.monitor.telemetry.edges import buckets

PREFIX = "understudy_"
SERIES_LABELS = ("model", "version", "arm", "role", "protocol", "outcome")


def number_text(value: float) -> str:
    """A number as a label value, written as Prometheus writes it when it reads protobuf.

    So the series of a scraper do not change with the format.
    """
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]
    return text


def counter(
    name: str, text: str, names: Sequence[str], values: Iterable[tuple[Sequence[str], float]]
) -> Metric:
    """A counter; ``name`` is without prefix and ``_total``."""
    family = CounterMetricFamily(PREFIX + name, text, labels=names)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def gauge(
    name: str, text: str, names: Sequence[str], values: Iterable[tuple[Sequence[str], float]]
) -> Metric:
    """A gauge; ``name`` is without prefix."""
    family = GaugeMetricFamily(PREFIX + name, text, labels=names)
    for labels, value in values:
        family.add_metric(labels, value)
    return family


def pick(labels: Labels, names: Sequence[str]) -> list[str]:
    """Values of the named labels, in that order; one that is missing is empty."""
    have = dict(labels)
    return [have.get(name, "") for name in names]


@dataclass(frozen=True, slots=True)
class NativeSeries:
    """One series of a histogram with its native buckets, for the protobuf exposition."""

    labels: tuple[str, ...]
    words: Words


class SketchFamily(HistogramMetricFamily):
    """A classic histogram that also carries the sketches it came from."""

    def __init__(self, name: str, text: str, names: Sequence[str]) -> None:
        super().__init__(PREFIX + name, text, labels=names)
        self.label_names = tuple(names)
        self.native: list[NativeSeries] = []


def histogram(name: str, text: str, names: Sequence[str]) -> HistogramMetricFamily:
    """A histogram of values that are not negative, as times: its sum is a counter."""
    return HistogramMetricFamily(PREFIX + name, text, labels=names)


class ValueFamily(HistogramMetricFamily):
    """A histogram of values that may be negative.

    Its sum can go down, so it is no counter; OpenMetrics forbids sum and count then. The protobuf
    format has a place for the sum all the same.
    """

    def __init__(self, name: str, text: str, names: Sequence[str]) -> None:
        super().__init__(PREFIX + name, text, labels=names)
        self.sums: dict[tuple[str, ...], float] = {}

    def add(
        self, labels: Sequence[str], buckets: Iterable[tuple[float, int]], total: float
    ) -> None:
        """One series: pairs of upper edge and cumulative count, and the sum of the values."""
        texts = [(number_text(edge), count) for edge, count in buckets]
        self.add_metric(labels, texts, None)
        self.sums[tuple(labels)] = total


class QuantileFamily(Metric):
    """Quantiles of windows as a summary; count and sum are those of the window as well."""

    def __init__(self, name: str, text: str, names: Sequence[str]) -> None:
        super().__init__(PREFIX + name, text, "summary")
        self._names = tuple(names)

    def add(
        self,
        labels: Sequence[str],
        quantiles: Iterable[tuple[float, float]],
        count: int,
        total: float,
    ) -> None:
        """One series: pairs of quantile and value, the number of values and their sum."""
        named = dict(zip(self._names, labels, strict=True))
        for quantile, value in quantiles:
            self.add_sample(self.name, {**named, "quantile": number_text(quantile)}, value)
        self.add_sample(self.name + "_count", named, count)
        self.add_sample(self.name + "_sum", named, total)


def sketches(
    name: str,
    text: str,
    series: Mapping[Labels, Words],
    exemplars: Mapping[ExemplarKey, Mapping[int, Exemplar]] | None = None,
    more: Sequence[float] = (),
    expected: Iterable[tuple[str, ...]] = (),
) -> SketchFamily:
    """A histogram with the classic buckets of each sketch that has values, and edges at ``more``.

    ``exemplars`` are by (model, version, arm, role, outcome) and number of the classic bucket.
    ``expected`` are label values of series that are there from the start, with zeros: ``rate()``
    cannot see with what a series begins.
    """
    family = SketchFamily(name, text, SERIES_LABELS)
    seen: set[tuple[str, ...]] = set()
    for labels, words in series.items():
        cumulative = buckets(words, more)
        if not cumulative[-1].count:
            continue
        values = pick(labels, SERIES_LABELS)
        seen.add(tuple(values))
        model, version, arm, role, _, outcome = values
        known = (exemplars or {}).get((model, version, arm, role, outcome), {})
        before = 0
        samples: list[tuple[str, float] | tuple[str, float, SampleExemplar]] = []
        for bucket in cumulative:
            edge = number_text(bucket.edge)
            example = known.get(bucket.classic) if bucket.count > before else None
            inside = example is not None and (
                not more or bucket.low < example.seconds <= bucket.edge
            )
            before = bucket.count
            samples.append(
                (edge, bucket.count, _sample(example))
                if example is not None and inside
                else (edge, bucket.count)
            )
        family.add_metric(values, samples, int(words[SKETCH_SUM_NS]) / 1e9)
        family.native.append(NativeSeries(tuple(values), words))
    nothing: Words = np.zeros(SKETCH_WORDS, np.uint64)
    empty = [(number_text(bucket.edge), 0) for bucket in buckets(nothing, more)]
    for labels_of in expected:
        if labels_of not in seen:
            family.add_metric(labels_of, empty, 0.0)
            family.native.append(NativeSeries(labels_of, nothing))
    return family


def _sample(exemplar: Exemplar) -> SampleExemplar:
    labels = {"trace_id": exemplar.trace_id}
    if exemplar.span_id:
        labels["span_id"] = exemplar.span_id
    return SampleExemplar(labels, exemplar.seconds, exemplar.at)
