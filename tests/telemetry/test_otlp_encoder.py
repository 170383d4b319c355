"""Spans that are encoded by hand are those of the SDK's encoder, as the official types read both."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("opentelemetry.sdk", reason="NOT TESTED: needs the extra otel")

from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from understudy.monitor.telemetry.otlp.sdk import encoder_of, readable, resource_of
from understudy.monitor.telemetry.otlp.spans import CLIENT_KIND, SERVER_KIND, Shape, Span

ids = st.integers(1, 2**64 - 1)
traces = st.integers(1, 2**128 - 1)
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
names = st.sampled_from(["a", "http.route", "understudy.model"])
values = st.one_of(
    texts,
    st.integers(0, 2**63 - 1),
    st.floats(allow_nan=False),
    st.booleans(),
    st.lists(texts, max_size=3),
)
shapes = st.builds(
    Shape,
    name=texts.filter(bool),
    kind=st.sampled_from([SERVER_KIND, CLIENT_KIND]),
    failed=st.booleans(),
    attributes=st.dictionaries(names, values),
    encoded=st.just(b""),
)
spans = st.builds(
    Span,
    shape=shapes,
    trace=traces,
    span=ids,
    parent=st.one_of(st.just(0), ids),
    remote=st.booleans(),
    flags=st.integers(0, 3),
    start=st.integers(1, 2**63),
    end=st.integers(1, 2**63),
    own=st.dictionaries(st.sampled_from(["b", "understudy.request_id"]), values),
    link=st.one_of(st.none(), st.tuples(traces, ids)),
)


@given(st.lists(spans, min_size=1, max_size=6), st.dictionaries(names, texts))
def test_it_decodes_to_what_the_sdk_encodes(found: list[Span], attributes: dict[str, str]) -> None:
    resource = resource_of(attributes, "here")
    encoder = encoder_of(resource)
    for _ in range(2):  # the second time from what is remembered
        mine = ExportTraceServiceRequest.FromString(encoder.encode(found))
        assert mine == encode_spans(readable(found, resource))


def test_numbers_are_not_taken_for_each_other() -> None:
    resource = resource_of({}, "here")
    encoder = encoder_of(resource)
    of = Span(Shape("x", SERVER_KIND, False, {}), 1, 2, 0, False, 3, 4, 5, {})
    for value in (1, True, 1.0, 0, False, 0.0):
        of.own = {"a": value}
        mine = ExportTraceServiceRequest.FromString(encoder.encode([of]))
        assert mine == encode_spans(readable([of], resource))
