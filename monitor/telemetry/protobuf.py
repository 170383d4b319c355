"""Prometheus' protobuf exposition, written by hand: it is how native histograms are scraped.

Only the few messages of ``io.prometheus.client`` that we fill are known here; field numbers are
those of the public ``metrics.proto``. Each family is preceded by its length (delimited encoding).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.core import Metric
from prometheus_client.samples import Exemplar, Sample

from understudy.common.protobuf_writer import double as _double
from understudy.common.protobuf_writer import integer as _unsigned
from understudy.common.protobuf_writer import message as _message
from understudy.common.protobuf_writer import text as _text
from understudy.common.protobuf_writer import varint
from understudy.monitor.telemetry.families import SketchFamily, ValueFamily
from understudy.monitor.telemetry.native import NativeHistogram, native_histogram

CONTENT_TYPE = (
    "application/vnd.google.protobuf; proto=io.prometheus.client.MetricFamily; encoding=delimited"
)

_TYPES = {"counter": 0, "gauge": 1, "summary": 2, "histogram": 4}


def zigzag(value: int) -> int:
    """The unsigned form of a signed number, as sint32 and sint64 have it."""
    return value << 1 if value >= 0 else (-value << 1) - 1


def _labels(number: int, labels: Mapping[str, str]) -> bytes:
    return b"".join(
        _message(number, _text(1, name) + _text(2, value)) for name, value in labels.items()
    )


def _exemplar(number: int, exemplar: Exemplar) -> bytes:
    payload = _labels(1, exemplar.labels) + _double(2, exemplar.value)
    if exemplar.timestamp is not None:
        nanoseconds = int(float(exemplar.timestamp) * 1e9)
        stamp = _unsigned(1, nanoseconds // 10**9) + _unsigned(2, nanoseconds % 10**9)
        payload += _message(3, stamp)
    return _message(number, payload)


def _spans(number: int, spans: Iterable[tuple[int, int]]) -> bytes:
    return b"".join(
        _message(number, _unsigned(1, zigzag(offset)) + _unsigned(2, length))
        for offset, length in spans
    )


def _native(histogram: NativeHistogram) -> bytes:
    deltas = b"".join(varint(zigzag(delta)) for delta in histogram.deltas)
    return b"".join(
        (
            _unsigned(5, zigzag(histogram.schema)),
            _double(6, histogram.zero_threshold),
            _unsigned(7, histogram.zero_count),
            _spans(12, histogram.spans),
            _message(13, deltas),
        )
    )


def encode(families: Iterable[Metric]) -> bytes:
    """All families in the delimited encoding; families without samples are left out."""
    result = []
    for family in families:
        body = _family(family)
        if body:
            result.append(varint(len(body)) + body)
    return b"".join(result)


def _family(family: Metric) -> bytes:
    if family.type == "histogram":
        metrics = _histograms(family)
    elif family.type == "summary":
        metrics = _summaries(family)
    else:
        metrics = [_plain(family.type, sample) for sample in family.samples]
    if not metrics:
        return b""
    name = family.name + "_total" if family.type == "counter" else family.name
    head = _text(1, name) + _text(2, family.documentation) + _unsigned(3, _TYPES[family.type])
    return head + b"".join(_message(4, metric) for metric in metrics)


def _plain(kind: str, sample: Sample) -> bytes:
    value = _double(1, float(sample.value))
    return _labels(1, sample.labels) + _message(3 if kind == "counter" else 2, value)


def _by_series(family: Metric, leave_out: str) -> list[tuple[dict[str, str], list[Sample]]]:
    """Samples that belong to one series: equal labels but for ``leave_out``."""
    series: dict[tuple[str, ...], tuple[dict[str, str], list[Sample]]] = {}
    for sample in family.samples:
        labels = {name: value for name, value in sample.labels.items() if name != leave_out}
        series.setdefault(tuple(labels.values()), (labels, []))[1].append(sample)
    return list(series.values())


def _summaries(family: Metric) -> list[bytes]:
    metrics = []
    for labels, samples in _by_series(family, "quantile"):
        parts = []
        for sample in samples:
            value = float(sample.value)
            if sample.name.endswith("_count"):
                parts.append(_unsigned(1, int(value)))
            elif sample.name.endswith("_sum"):
                parts.append(_double(2, value))
            else:
                quantile = float(sample.labels["quantile"])
                parts.append(_message(3, _double(1, quantile) + _double(2, value)))
        metrics.append(_labels(1, labels) + _message(4, b"".join(parts)))
    return metrics


def _histograms(family: Metric) -> list[bytes]:
    natives: dict[tuple[str, ...], NativeHistogram] = {}
    sums = family.sums if isinstance(family, ValueFamily) else {}
    if isinstance(family, SketchFamily):
        natives = {series.labels: native_histogram(series.words) for series in family.native}
    metrics = []
    for labels, samples in _by_series(family, "le"):
        key = tuple(labels.values())
        native = natives.get(key)
        parts = [_classic(samples, native.count if native else None, sums.get(key, 0.0))]
        if native:
            parts.append(_native(native))
        metrics.append(_labels(1, labels) + _message(7, b"".join(parts)))
    return metrics


def _classic(samples: list[Sample], limit: int | None, total: float) -> bytes:
    """Count, sum and classic buckets; none above ``limit``, the count of the native buckets.

    A sketch may have been read in the middle of an observation, and Prometheus refuses a histogram
    whose count is not that of its buckets.
    """
    parts = []
    count = 0
    for sample in samples:
        if sample.name.endswith("_bucket"):
            count = int(sample.value) if limit is None else min(int(sample.value), limit)
            bucket = _unsigned(1, count) + _double(2, float(sample.labels["le"]))
            if sample.exemplar is not None:
                bucket += _exemplar(3, sample.exemplar)
            parts.append(_message(3, bucket))
        elif sample.name.endswith("_sum"):
            total = float(sample.value)
    return b"".join((_unsigned(1, count), _double(2, total), *parts))
