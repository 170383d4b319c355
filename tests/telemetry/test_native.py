"""Native histograms: exact sums of neighbours, and bytes that mean what they should."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.common.protobuf_writer import varint
from understudy.monitor.stats.distribution import Words
from understudy.monitor.stats.shared import SKETCH_WORDS
from understudy.monitor.stats.sketch import observe
from understudy.monitor.telemetry.native import NativeHistogram, native_histogram
from understudy.monitor.telemetry.protobuf import zigzag


def sketch(values: list[float]) -> Words:
    words = np.zeros(SKETCH_WORDS, np.uint64)
    for value in values:
        observe(words.data.cast("B").cast("Q"), 0, int(value * 1e9))
    return words


def expand(native: NativeHistogram) -> dict[int, int]:
    """Counts by bucket index, read as a Prometheus server reads spans and deltas."""
    counts: dict[int, int] = {}
    index, value = 0, 0
    deltas = iter(native.deltas)
    for offset, length in native.spans:
        index += offset
        for _ in range(length):
            value += next(deltas)
            counts[index] = value
            index += 1
    assert next(deltas, None) is None
    return {index: count for index, count in counts.items() if count}


@pytest.mark.parametrize("schema", [0, 1, 3, 6])
@given(values=st.lists(st.floats(2e-6, 4000.0), max_size=60))
def test_every_value_is_in_the_bucket_of_the_schema(schema: int, values: list[float]) -> None:
    expected: dict[int, int] = {}
    for value in values:
        # The sketch rounds to nanoseconds, and so must the oracle; edges of schema 6 are shared.
        nanoseconds = int(value * 1e9)
        fine = math.ceil(math.log2(nanoseconds) * 64 - math.log2(1e9) * 64)
        index = math.ceil(fine / 2 ** (6 - schema))
        expected[index] = expected.get(index, 0) + 1
    native = native_histogram(sketch(values), schema)
    assert expand(native) == expected
    assert native.count == len(values)
    assert native.zero_count == 0


def test_what_is_below_the_range_is_in_the_zero_bucket() -> None:
    native = native_histogram(sketch([0.0, 1e-7, 0.5]))
    assert native.zero_count == 2
    assert native.count == 3
    assert expand(native) == {-8: 1}  # 0.5 s = 2^(-8/8), the upper edge of bucket -8


def test_short_gaps_are_empty_buckets_and_long_ones_new_spans() -> None:
    native = native_histogram(sketch([1.0, 1.2, 30.0]), 3)
    assert native.spans == [(0, 4), (36, 1)]
    assert expand(native) == {0: 1, 3: 1, 40: 1}


def test_unknown_schema() -> None:
    with pytest.raises(ValueError, match="schema 7"):
        native_histogram(sketch([1.0]), 7)


@pytest.mark.parametrize(
    ("number", "encoded"),
    [
        (0, b"\x00"),
        (127, b"\x7f"),
        (128, b"\x80\x01"),
        (300, b"\xac\x02"),
        (2**63, b"\x80" * 9 + b"\x01"),
    ],
)
def test_varint(number: int, encoded: bytes) -> None:
    assert varint(number) == encoded


def test_zigzag() -> None:
    assert [zigzag(n) for n in (0, -1, 1, -2, 2**31 - 1, -(2**31))] == [
        0,
        1,
        2,
        3,
        2**32 - 2,
        2**32 - 1,
    ]
