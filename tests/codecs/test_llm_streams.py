"""Streams of language models: what is counted, timed and read is the same however they are split."""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Sequence

import pytest

from tests.support.llm_streams import SHAPES, Shape
from understudy.common import events as grammar
from understudy.common.codecs import ModelSpec, Reason, Table, Undecodable, decode_exchange
from understudy.common.events import BINS, HEAD_EVENTS, LINES, SSE, decode_times, gap_quantile
from understudy.common.protocols import LLM_PATHS, MARKS_END
from understudy.monitor.proxy.memory import Memory
from understudy.monitor.proxy.stream import StreamMeter, stream_kind
from understudy.monitor.records.record import OUTCOMES

TICK = 10_000_000
"""Nanoseconds between two reads: 10 ms."""
JSON = b"content-type: application/json"
each = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: shape.name)


def metered(body: bytes, header: bytes, cuts: Sequence[int]) -> StreamMeter:
    """A meter after reads that end at ``cuts``, each a tick after the one before."""
    meter = StreamMeter(stream_kind([header]), 1 << 18, Memory(1 << 24))
    for number, (start, end) in enumerate(zip((0, *cuts), (*cuts, len(body)), strict=True)):
        if start < end:
            meter.feed(body[start:end], (number + 1) * TICK)
    return meter


def marks_end(path: str) -> bool:
    spec = ModelSpec("m")
    protocol = decode_exchange(spec, path, JSON, b"{}", 0, b"", None).protocol
    assert protocol in LLM_PATHS
    return protocol in MARKS_END


def decoded(shape: Shape, meter: StreamMeter) -> Table | Undecodable:
    copy, deflated = meter.take_copy()
    assert copy is not None
    headers = shape.header + (b"\r\ncontent-encoding: deflate" if deflated else b"")
    body = json.dumps(shape.request).encode()
    found = decode_exchange(
        ModelSpec("m"), shape.path, JSON, body, 200, headers, copy, 1.0, meter.times(0)
    )
    assert isinstance(found.features, Table)
    return found.predictions


@each
def test_every_split_is_read_alike(shape: Shape) -> None:
    has_end = marks_end(shape.path)
    expected: list[object] | None = None
    for cut in range(len(shape.body) + 1):
        meter = metered(shape.body, shape.header, [cut])
        assert OUTCOMES[meter.outcome(has_end)] == shape.outcome, cut
        assert meter.events == shape.events, cut
        answer = decoded(shape, meter)
        if shape.outcome == "stream_error":
            assert isinstance(answer, Undecodable)
            assert answer.reason is Reason.ERROR_RESPONSE
            continue
        assert isinstance(answer, Table)
        row = answer.row(0)
        assert {name: row[name] for name in shape.cells} == shape.cells
        content = [row[name] for name in answer.names if not name.endswith("_seconds")]
        del content[answer.names.index("tokens_per_second") - len(answer.names)]
        expected = expected or content
        assert content == expected


@each
def test_byte_by_byte_and_each_event_alone(shape: Shape) -> None:
    whole = metered(shape.body, shape.header, [])
    single = metered(shape.body, shape.header, range(1, len(shape.body)))
    for meter in (whole, single):
        meter.outcome(marks_end(shape.path))
    assert whole.events == single.events == shape.events
    assert whole.take_copy() == single.take_copy() == (shape.body, False)


@each
def test_events_are_paired_with_their_times(shape: Shape) -> None:
    """One read for each event: each arrives a tick after the one before."""
    if shape.header.endswith(b"ndjson"):
        ends = [end + 1 for end, byte in enumerate(shape.body) if byte == 10]
    else:
        counts = [len(list(grammar.server_sent(shape.body[:at]))) for at in range(len(shape.body))]
        ends = [end for end in range(1, len(counts)) if counts[end] > counts[end - 1]]
    cuts = [end for end in ends if end < len(shape.body)]
    meter = metered(shape.body, shape.header, cuts)
    meter.outcome(marks_end(shape.path))
    times = decode_times(meter.times(0))
    assert times is not None
    assert times.first == [10_000 * (n + 1) for n in range(shape.events)]
    answer = decoded(shape, meter)
    if not isinstance(answer, Table):
        return
    row = answer.row(0)
    assert row["ttfc_seconds"] == pytest.approx(0.01 * (shape.first + 1))
    assert row["ttft_seconds"] == pytest.approx(0.01 * (shape.output[0] + 1))
    first = shape.output[0] if shape.answer is None else shape.answer
    assert row["ttfo_seconds"] == pytest.approx(0.01 * (first + 1))
    assert row["e2e_seconds"] == pytest.approx(0.01 * (shape.output[-1] + 1))
    assert row["output_events"] == len(shape.output)
    if shape.name.startswith("vllm chat"):
        # From event 1 to event 3, over 7 - 1 tokens.
        assert row["tpot_seconds"] == pytest.approx(0.02 / 6)
        assert row["gap_p99_seconds"] == pytest.approx(0.01)


_PIECES = (
    *(b"data", b":", b" ", b"\n", b"\r", b"\r\n", b"\n\n", b"event: error", b"x", b"data: a\n\n"),
    *(b": ping\n\n", b"\xef\xbb\xbf", b"id: 1\n", b'{"a": 1}', b"data: \xc3", b"\xa9\r\n\r\n"),
)


@pytest.mark.parametrize(
    ("kind", "split"), [(SSE, grammar.server_sent), (LINES, grammar.json_lines)]
)
def test_the_meter_agrees_with_the_grammar_on_random_streams(kind: int, split: object) -> None:
    assert callable(split)
    chance = random.Random(22)
    seen = 0
    for _ in range(3000):
        body = b"".join(chance.choices(_PIECES, k=chance.randint(0, 14)))
        meter = StreamMeter(kind, 1 << 16, Memory(1 << 20))
        at = 0
        while at < len(body):
            end = at + chance.choice((1, 2, 3, 8, 100))
            meter.feed(body[at:end], 1)
            at = end
        meter.outcome(False)
        found = list(split(body))
        assert meter.events == len(found), body
        assert meter.take_copy() == (body, False)
        seen += len(found)
    assert seen > 1000


def test_random_bytes_never_fail_a_codec() -> None:
    chance = random.Random(7)
    read = 0
    for _ in range(400):
        shape = chance.choice(SHAPES)
        body = bytearray(shape.body)
        for _ in range(chance.randint(1, 6)):
            at = chance.randrange(len(body))
            body[at : at + chance.randint(0, 3)] = chance.choice(
                (b"", b"null", b"\n", b"{", b"[1]")
            )
        meter = metered(bytes(body), shape.header, [])
        meter.outcome(True)
        answer = decoded(shape, meter)
        read += isinstance(answer, Table)
        assert isinstance(answer, Table) or answer.reason is not Reason.INTERNAL, bytes(body)
    assert read > 100


def long_stream(events: int) -> list[bytes]:
    return [
        b'data: {"choices":[{"index":0,"delta":{"content":"word%d "},"finish_reason":null}]}\n\n'
        % n
        for n in range(events)
    ] + [
        b'data: {"choices":[{"index":0,"delta":{},"finish_reason":"stop"}]}\n\n',
        b'data: {"choices":[],"usage":{"prompt_tokens":3,"completion_tokens":%d}}\n\n' % events,
        b"data: [DONE]\n\n",
    ]


def test_the_end_of_a_long_stream_survives_the_limit_of_captures() -> None:
    memory = Memory(1 << 24)
    meter = StreamMeter(SSE, 1 << 18, memory)
    events = long_stream(20_000)
    for number, event in enumerate(events):
        meter.feed(event, (number + 1) * 1_000_000)
    assert sum(map(len, events)) > 5 << 18
    assert meter.outcome(True) == 0
    times = decode_times(meter.times(0))
    copy, deflated = meter.take_copy()
    assert deflated
    assert copy is not None
    assert len(copy) <= 1 << 18
    assert memory.used == 0
    assert zlib.decompressobj(-15).decompress(copy) == b"".join(events)
    assert times is not None
    assert (times.events, len(times.first)) == (len(events), HEAD_EVENTS)
    assert times.at(19_999) == pytest.approx(20.0)
    assert times.at(HEAD_EVENTS + 5) is None
    half = gap_quantile(times.gaps, 0.5)
    assert half is not None
    assert 0.001 <= half <= 0.00113
    headers = b"content-type: text/event-stream\r\ncontent-encoding: deflate"
    found = decode_exchange(
        ModelSpec("m"), "/v1/chat/completions", JSON, b'{"messages": []}', 200, headers, copy,
        20.0, meter.times(0),
    ).predictions  # fmt: skip
    assert isinstance(found, Table)
    row = found.row(0)
    assert (row["output_tokens"], row["finish_reason"]) == (20_000.0, "stop")
    assert row["tpot_seconds"] == pytest.approx(0.001)
    assert row["e2e_seconds"] == pytest.approx(20.0)


def test_what_is_kept_of_a_stream_is_bounded() -> None:
    chance = random.Random(3)
    memory = Memory(1 << 24)
    meter = StreamMeter(SSE, 1 << 16, memory)
    for number in range(300):
        # Random text: it cannot be compressed by much.
        meter.feed(b"data: %b\n\n" % chance.randbytes(2000).hex().encode(), number)
        assert memory.used <= (1 << 16) + (1 << 15)
    assert meter.take_copy() == (None, False)
    assert memory.used == 0
    assert meter.events == 300


def test_gaps_in_which_the_client_did_not_read_are_not_the_models() -> None:
    second = 1_000_000_000
    meter = StreamMeter(SSE, 1 << 16, Memory(1 << 20))
    event = b'data: {"choices":[{"delta":{"content":"x"}}]}\n\n'
    meter.feed(event, second)
    meter.pause(second + 1)
    meter.resume(9 * second)
    meter.feed(event, 9 * second)
    meter.feed(event, 12 * second)
    assert (meter.stalls, meter.longest_ns) == (1, 3 * second)
    times = decode_times(meter.times(0))
    assert times is not None
    assert (times.excused, times.blocked) == ([1], 7_999_999)
    found = decode_exchange(
        ModelSpec("m"), "/v1/chat/completions", JSON, b'{"messages": []}', 200,
        b"content-type: text/event-stream", meter.take_copy()[0], 12.0, meter.times(0),
    ).predictions  # fmt: skip
    assert isinstance(found, Table)
    assert found.row(0)["gap_p50_seconds"] == pytest.approx(3.0)
    assert found.row(0)["stalls"] == 1.0


def test_bins_hold_every_gap_and_damaged_times_are_none() -> None:
    for micros in (0, 1, 7, 8, 15, 16, 1000, 123_456, 60_000_000, 1 << 50):
        index = grammar.bin_of(micros)
        assert 0 <= index < BINS
        counts = [0] * BINS
        counts[index] = 1
        upper = gap_quantile(counts, 0.99)
        assert upper is not None
        assert micros * 1e-6 <= upper + 1e-9 or micros == 1 << 50
        if 8 <= micros < 1 << 40:
            assert upper <= micros * 1e-6 * 1.125
    meter = metered(b"data: x\n\n" * 9, b"content-type: text/event-stream", range(9, 81, 9))
    packed = meter.times(0)
    assert decode_times(packed) is not None
    assert decode_times(b"") is None
    assert decode_times(b"\x09" + packed[1:]) is None
    for size in range(len(packed)):
        cut = decode_times(packed[:size])
        assert cut is None, size


@pytest.mark.parametrize(
    ("lines", "kind"),
    [
        ([b"Content-Type: text/event-stream"], SSE),
        ([b"content-type:TEXT/EVENT-STREAM;charset=utf-8"], SSE),
        ([b"content-type: application/x-ndjson"], LINES),
        ([b"content-type: application/json"], 0),
        ([b"content-type: text/event-streams"], 0),
        ([b"content-type: text/event-stream", b"content-encoding: gzip"], 0),
        ([b"content-encoding: identity", b"content-type: text/event-stream"], SSE),
    ],
)
def test_which_responses_are_streams(lines: list[bytes], kind: int) -> None:
    assert stream_kind(lines) == kind
