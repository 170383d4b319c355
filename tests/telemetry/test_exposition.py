"""Our text of the metrics is prometheus_client's, byte for byte."""

from __future__ import annotations

import numpy as np
import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.exposition import generate_latest
from prometheus_client.openmetrics.exposition import generate_latest as generate_openmetrics
from prometheus_client.registry import Collector

from understudy.monitor.pipeline.exemplars import Exemplar
from understudy.monitor.stats.reader import labels_of
from understudy.monitor.stats.shared import SKETCH_WORDS
from understudy.monitor.stats.sketch import observe
from understudy.monitor.telemetry.exposition import encode
from understudy.monitor.telemetry.families import QuantileFamily, counter, gauge, sketches

HARD = 'quo"te, back\\slash,\nline and ünïcode'


class Families(Collector):
    def __init__(self, families: list[Metric]) -> None:
        self.families = families

    def collect(self) -> list[Metric]:
        return self.families


def families() -> list[Metric]:
    words = np.zeros(SKETCH_WORDS, np.uint64)
    view = words.data.cast("B").cast("Q")
    for milliseconds in (1, 5, 30, 30, 20_000):
        observe(view, 0, milliseconds * 1_000_000)
    names = {"model": HARD, "version": "", "arm": "a", "role": "primary", "outcome": "ok"}
    labels = labels_of({**names, "protocol": "auto"})
    key = (HARD, "", "a", "primary", "ok")
    quantiles = QuantileFamily("wait", HARD, ("arm", "window"))
    quantiles.add((HARD, "1m"), [(0.5, 0.1), (1.0, float("inf"))], 7, 1e-9)
    return [
        counter("requests", HARD, ("arm", "zone"), [((HARD, "b"), 3), (("", "c"), 1e20)]),
        counter("empty", "Nothing.", (), []),
        gauge("level", "A\nB", (), [((), -0.5)]),
        gauge("odd", "x", ("z", "a"), [(("1", "2"), float("nan"))]),
        sketches("latency", "x", {labels: words}, {key: {0: Exemplar("abc", 0.005, 12.5)}}, [0.02]),
        quantiles,
    ]


@pytest.mark.parametrize("accept", ["", "application/openmetrics-text"])
def test_the_text_is_that_of_the_reference(accept: str) -> None:
    registry = CollectorRegistry(auto_describe=False)
    registry.register(Families(families()))
    reference = generate_openmetrics if accept else generate_latest
    expected: bytes = reference(registry)
    kind, found = encode(families(), accept)
    assert found.decode() == expected.decode()
    assert ("openmetrics" in kind) == bool(accept)
    assert ("# {" in found.decode()) == bool(accept), "exemplars are for OpenMetrics"
