"""From families to the text that a scraper asked for."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST as OPENMETRICS_TYPE
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from understudy.monitor.telemetry.protobuf import CONTENT_TYPE as PROTOBUF_TYPE
from understudy.monitor.telemetry.protobuf import encode as encode_protobuf


class _Collected(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families


def encode(families: list[Metric], accept: str) -> tuple[str, bytes]:
    """Content type and body for the ``Accept`` header of a scraper.

    Protobuf (with native histograms) and OpenMetrics (with exemplars) are given to those who ask
    for them by name with the highest weight, the plain text format to everybody else.
    """
    wanted = _preferred(accept)
    if wanted == "protobuf":
        return PROTOBUF_TYPE, encode_protobuf(families)
    registry = CollectorRegistry(auto_describe=False)
    registry.register(_Collected(families))
    if wanted == "openmetrics":
        body: bytes = generate_openmetrics(registry)  # type: ignore[no-untyped-call]
        return OPENMETRICS_TYPE, body
    return CONTENT_TYPE_LATEST, generate_latest(registry)


def _preferred(accept: str) -> str:
    best, weight = "text", 0.0
    for part in accept.split(","):
        kind, *parameters = (piece.strip() for piece in part.split(";"))
        values = {
            name.strip().lower(): value.strip(" \"'")
            for name, _, value in (parameter.partition("=") for parameter in parameters)
        }
        try:
            quality = float(values.get("q", "1"))
        except ValueError:
            continue
        format_ = _format(kind.lower(), values)
        if format_ is not None and quality > weight:
            best, weight = format_, quality
    return best


def _format(kind: str, parameters: dict[str, str]) -> str | None:
    if kind == "application/openmetrics-text":
        return "openmetrics"
    if kind in ("text/plain", "text/*", "*/*"):
        return "text"
    if (
        kind == "application/vnd.google.protobuf"
        and parameters.get("proto") == "io.prometheus.client.MetricFamily"
        and parameters.get("encoding") == "delimited"
    ):
        return "protobuf"
    return None
