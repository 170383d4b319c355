"""Blocks round-trip, whatever they hold; damaged ones raise an error that names the reason."""

import json
import math
from zlib import crc32

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from understudy.common.codecs import Reason, Table, Undecodable
from understudy.monitor.errors import BlockError
from understudy.monitor.evidence.blocks import (
    Builder,
    Heartbeat,
    LabelBlock,
    RecordBlock,
    decode,
    encode,
    partition_of,
)
from understudy.monitor.evidence.blocks.cell_buffer import MAX_UNPACKED, CellBuffer
from understudy.monitor.evidence.blocks.cells import column_of, decimals
from understudy.monitor.evidence.blocks.codec import SCHEMA
from understudy.monitor.evidence.columns import matrix_of
from understudy.monitor.kafka.topics import MOST_MESSAGE_BYTES
from understudy.monitor.labels.label import Label
from understudy.monitor.records.handoff import Names, SplitNames
from understudy.monitor.records.record import OUTCOMES, Record

BYTES = st.binary(max_size=40)
UNSIGNED = st.integers(0, 2**64 - 1)
NUMBERS = st.one_of(st.floats(), st.integers(), st.integers(-(2**65), 2**65))
SCALARS = st.one_of(st.none(), st.booleans(), NUMBERS, st.text(max_size=8))
NESTED = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3)
    ),
    max_leaves=5,
)
COLUMN = st.sampled_from(
    (
        st.floats(),
        st.integers(-(2**63), 2**63 - 1),
        st.booleans(),
        st.none(),
        st.text(max_size=6),
        st.none() | st.floats(),
        st.integers(-5, 5) | st.floats(),
        NESTED,
    )
)
UNREAD = st.builds(Undecodable, st.sampled_from(list(Reason)), st.text(max_size=10))


def record(**changes):
    made = Record()
    made.proxy_id = 0
    made.sampled = False
    made.span = made.events = b""
    made.model = made.arm = made.role = made.outcome = made.assigned = 0
    made.status, made.started = 200, 1.7e9
    made.duration_ns = made.first_byte_ns = made.queue_ns = 10
    made.request_size = made.response_size = 7
    made.request_id, made.trace_id, made.unit, made.target = b"r", b"", b"", b"/p"
    made.request_headers = made.response_headers = b""
    made.request_body = made.response_body = None
    for name, value in changes.items():
        setattr(made, name, value)
    return made


@st.composite
def records(draw):
    return record(
        model=draw(st.integers(0, 2)),
        arm=draw(st.integers(0, 65535)),
        status=draw(st.integers(0, 65535)),
        role=draw(st.integers(0, 1)),
        outcome=draw(st.integers(0, len(OUTCOMES) - 1)),
        assigned=draw(st.integers(0, 255)),
        started=draw(st.floats(0, 1e11)),
        duration_ns=draw(UNSIGNED),
        first_byte_ns=draw(UNSIGNED),
        queue_ns=draw(UNSIGNED),
        request_size=draw(UNSIGNED),
        response_size=draw(UNSIGNED),
        proxy_id=draw(UNSIGNED),
        request_id=draw(BYTES),
        trace_id=draw(BYTES),
        unit=draw(BYTES),
        target=draw(BYTES),
    )


@st.composite
def layouts(draw):
    names = draw(st.lists(st.text(min_size=1, max_size=5), min_size=1, max_size=4, unique=True))
    return tuple(names), [draw(COLUMN) for _ in names]


@st.composite
def tables(draw, known):
    names, kinds = draw(st.sampled_from(known))
    rows = draw(st.sampled_from((1, 1, 1, 2, 3)))
    return Table(names, rows, [draw(kind) for _ in range(rows) for kind in kinds])


@st.composite
def exchanges(draw):
    asked = draw(st.lists(layouts(), min_size=1, max_size=2))
    said = draw(st.lists(layouts(), min_size=1, max_size=2))
    one = st.tuples(records(), tables(asked) | UNREAD, tables(said) | UNREAD)
    return draw(st.lists(one, min_size=1, max_size=12))


NAMES = Names(
    3,
    (("m", "1", "auto"), ("ü", "", "mlflow")),
    ("champion", "challenger"),
    (SplitNames("e", 0, (0.9, 0.1), 12.5, 11.0),),
)


def plain(value):
    """For comparison: types count, and a NaN equals a NaN."""
    return repr(value)


def row_of(names, one, asked, said):
    fields = {name: getattr(one, name, None) for name in Record.__slots__}
    return names, plain(fields), plain(asked), plain(said)


def all_of(rows, partitions=3, most=5):
    builder = Builder("pod", "run", partitions, most)
    blocks = []
    for one, asked, said in rows:
        blocks += builder.add(NAMES, one, asked, said, 1.0)
    blocks += builder.flush(1.0, everything=True)
    assert builder.waiting == 0
    return blocks


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(exchanges())
def test_blocks_round_trip(rows):
    given_ = [row_of(NAMES, *row) for row in rows]
    blocks = all_of(rows)
    found = [row_of(*row) for block in blocks for row in decode(encode(block)).rows()]
    assert sorted(map(repr, found)) == sorted(map(repr, given_))
    # Within a partition and model the order is kept, and blocks count up from 1.
    for block in blocks:
        mine = [r for r in rows if r[0].model == block.model]
        mine = [
            r for r in mine if crc32(r[0].request_id or r[0].trace_id) % 3 == block.head.partition
        ]
        same = [
            b for b in blocks if (b.model, b.head.partition) == (block.model, block.head.partition)
        ]
        assert [row_of(*r) for b in same for r in b.rows()] == [row_of(NAMES, *r) for r in mine]
    for partition in range(3):
        seqs = [b.head.seq for b in blocks if b.head.partition == partition]
        assert seqs == list(range(1, len(seqs) + 1))


@settings(max_examples=40, suppress_health_check=[HealthCheck.too_slow])
@given(exchanges())
def test_block_columns_equal_those_of_the_embedded_evaluation(rows):
    for block in all_of(rows, partitions=1, most=100):
        block = decode(encode(block))
        for grid in (*block.features, *block.predictions):
            if not grid.rows:
                continue
            width = len(grid.names)
            columns = [grid.values()[place::width] for place in range(width)]
            wanted, others = matrix_of(columns, grid.rows)
            matrix, mask = grid.floats()
            np.testing.assert_array_equal(matrix, wanted)
            expected = np.zeros(wanted.shape, bool) if others is None else others
            np.testing.assert_array_equal(expected if mask is None else mask, expected)
            for place, name in enumerate(grid.names):
                assert plain(grid.column(name).values()) == plain(
                    grid.values()[place :: len(grid.names)]
                )


def test_cells_keep_their_types():
    cells = [1, 1.0, True, None, "1", math.nan, -0.0, 2**70, 2**53 + 1, [1, {"a": None}], "\ud800"]
    rows = [(record(), Table(("x",), 1, [cell]), Table(("y",), 1, [0.5])) for cell in cells]
    (block,) = all_of(rows, 1, 100)
    assert plain([r[2].values[0] for r in decode(encode(block)).rows()]) == plain(cells)


def test_values_outside_json_become_text():
    cells = [np.float64(0.5), {1, 2}, complex(1)]
    rows = [(record(), Table(("x",), 1, [cell]), Table(("y",), 1, [0.5])) for cell in cells]
    (block,) = all_of(rows, 1, 100)
    assert [r[2].values[0] for r in decode(encode(block)).rows()] == [0.5, "{1, 2}", "(1+0j)"]


@pytest.mark.parametrize(
    ("cells", "stored"),
    [
        ([0.1, -2.25, 100.0], True),
        ([31.0, 45.0], True),
        ([0.1, 1 / 3], False),
        ([0.5, -0.0], False),
        ([0.5, math.nan], False),
        ([0.5, math.inf], False),
        ([0.25, 3e9], False),
        ([0.5, 1e-7], False),
    ],
)
def test_exact_decimals_are_stored_as_integers(cells, stored):
    matrix = np.array([cells, [0.5] * len(cells)])
    scale, whole, fits = decimals(matrix)
    assert fits.tolist() == [stored, True]
    assert whole[1].tolist() == [round(0.5 * 10**scale)] * len(cells)
    rows = [
        (record(), Table(("x", "y"), 1, [cell, 0.5]), Table(("p",), 1, [0.5])) for cell in cells
    ]
    (block,) = all_of(rows, 1, 100)
    assert plain([r[2].values[0] for r in decode(encode(block)).rows()]) == plain(cells)


def test_nested_cells_are_not_shared():
    rows = [(record(), Table(("x",), 1, [[1, 2]]), Table(("y",), 1, [0.5])) for _ in range(2)]
    (block,) = all_of(rows, 1, 100)
    first, second = (r[2].values[0] for r in decode(encode(block)).rows())
    first.append(3)
    assert second == [1, 2]


LABELS = st.builds(
    Label,
    st.text(min_size=1, max_size=9),
    st.integers(0, 999_999),
    st.none() | st.text(max_size=5) | st.booleans() | st.floats(allow_nan=False) | st.integers(),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.floats(0, 1e11),
    st.none() | st.text(max_size=5),
)


@settings(suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(st.tuples(st.floats(0, 1e11), LABELS), min_size=1, max_size=9))
def test_label_blocks_round_trip(labels):
    blocks = Builder("pod", "run", 4).labels(labels, 5.0)
    found = [one for block in blocks for one in decode(encode(block)).labels]
    assert sorted(map(repr, found)) == sorted(map(repr, labels))
    for block in blocks:
        assert isinstance(block, LabelBlock)
        assert {partition_of(label.request_id, 4) for _, label in block.labels} == {
            block.head.partition
        }


def test_a_request_and_its_label_share_a_partition():
    for text in ("r-1", "b7e1", "é"):
        one = record(request_id=text.encode("latin-1"))
        (block,) = all_of([(one, Undecodable(Reason.EMPTY), Undecodable(Reason.EMPTY))], 7)
        (label,) = Builder("pod", "run", 7).labels([(1.0, Label(text, 0, 1.0))], 1.0)
        assert block.head.partition == label.head.partition == partition_of(text, 7)


def test_heartbeats_report_the_last_block_sent():
    builder = Builder("pod", "run", 2)
    read = Undecodable(Reason.EMPTY)
    builder.add(NAMES, record(request_id=b"r"), read, read, 1.0)
    builder.flush(9.0)
    beats = [decode(encode(beat)) for beat in builder.heartbeats(10.0, 8.5, 3)]
    assert all(isinstance(beat, Heartbeat) for beat in beats)
    assert [b.head.seq for b in beats] == [int(partition_of(b"r", 2) == p) for p in range(2)]
    assert [(b.clock, b.complete, b.dropped) for b in beats] == [(10.0, 8.5, 3)] * 2


def test_a_resumed_run_continues_its_sequence_numbers():
    read = Undecodable(Reason.EMPTY)
    builder = Builder("pod", "run", 1, most_records=1, last={0: 41})
    (block,) = builder.add(NAMES, record(), read, read, 1.0)
    assert block.head.seq == 42


def test_long_texts_keep_blocks_below_the_broker_limit():
    builder = Builder("pod", "run", 1, most_records=1024)
    rng = np.random.default_rng(5)
    closed = []
    for number in range(1000):
        text = rng.bytes(8000).hex()
        long = record(request_id=b"%d" % number, request_size=len(text) + 20)
        closed += builder.add(NAMES, long, Table(("x",), 1, [text]), Table(("p",), 1, [0.5]), 1.0)
    closed += builder.flush(1.0, everything=True)
    assert sum(block.count for block in closed) == 1000
    assert max(len(encode(block)) for block in closed) < MOST_MESSAGE_BYTES / 2


def test_blocks_close_after_the_linger_and_within_bounds(monkeypatch):
    read = Undecodable(Reason.EMPTY)
    builder = Builder("pod", "run", 1, linger=1.0)
    builder.add(NAMES, record(), read, read, 10.0)
    assert builder.flush(10.5) == []
    assert len(builder.flush(11.0)) == 1
    # A clock that was set back does not keep a block open.
    builder.add(NAMES, record(), read, read, 10.0)
    assert len(builder.flush(9.0)) == 1
    wide = Table(("x",), 200_000, [1.0] * 200_000)
    assert builder.add(NAMES, record(), wide, read, 1.0) == []
    (block,) = builder.add(NAMES, record(), wide, read, 1.0)
    assert block.count == 2
    monkeypatch.setattr("understudy.monitor.evidence.blocks.builder.MOST_WAITING", 3)
    builder = Builder("pod", "run", 64)
    for text in (b"a", b"b"):
        assert builder.add(NAMES, record(request_id=text), read, read, 1.0) == []
    assert sum(b.count for b in builder.add(NAMES, record(request_id=b"c"), read, read, 1.0)) == 3


# Bytes that are not a block -------------------------------------------------------------------------


def block_bytes():
    rows = [
        (record(), Table(("a", "b"), 1, [1.0, "x"]), Table(("p",), 1, [0.5])),
        (record(request_id=b"other"), Undecodable(Reason.NOT_JSON, "why"), Table(("p",), 1, [1.0])),
    ]
    return encode(all_of(rows, 1, 9)[0])


def reason_for(data):
    with pytest.raises(BlockError) as caught:
        decode(data)
    return caught.value.reason


def rewritten(change, kind="records"):
    """A block whose header was changed, otherwise in order."""
    import zstandard

    data = block_bytes()
    body = zstandard.ZstdDecompressor().decompress(data[16:])
    size = int.from_bytes(data[8:12], "little")
    header = json.loads(body[:size])
    change(header)
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    body = text + body[size:]
    sizes = len(text).to_bytes(4, "little") + len(body).to_bytes(4, "little")
    return data[:4] + bytes((0,)) + data[5:8] + sizes + body


def test_undecodable_payloads_keep_their_reasons():
    good = block_bytes()
    assert reason_for(b"") == "not_a_block"
    assert reason_for(b'{"json": "of another service"}') == "not_a_block"
    assert reason_for(good[:-3]) == "damaged"
    assert reason_for(good[:40] + bytes((good[40] ^ 1,)) + good[41:]) == "damaged"
    assert reason_for(good[:4] + bytes((9,)) + good[5:]) == "unknown_codec"
    assert reason_for(good[:8] + b"\xff" * 8 + good[16:]) == "too_large"
    assert reason_for(rewritten(lambda h: h.update(schema=SCHEMA + 1))) == "newer_schema"
    assert reason_for(rewritten(lambda h: h.update(kind="prophecy"))) == "unknown_kind"
    assert reason_for(rewritten(lambda h: h.pop("count"))) == "wrong_shape"
    assert reason_for(rewritten(lambda h: h["columns"].pop("started"))) == "wrong_shape"
    assert (
        reason_for(rewritten(lambda h: h["columns"]["started"].update(at=10**9))) == "wrong_shape"
    )
    assert reason_for(rewritten(lambda h: h["undecodable"].clear())) == "wrong_shape"
    # What asks for more memory than there is.
    assert (
        reason_for(rewritten(lambda h: (h["columns"].pop("arm"), h.update(count=10**12))))
        == "wrong_shape"
    )
    assert reason_for(rewritten(lambda h: h["features"][0].update(rows=10**12))) == "wrong_shape"


@settings(max_examples=80, suppress_health_check=[HealthCheck.too_slow])
@given(st.data())
def test_damaged_bytes_raise_only_block_errors(data):
    good = rewritten(
        lambda h: None
    )  # without compression, so that damage gets through to the columns
    at = data.draw(st.integers(0, len(good) - 1))
    bad = good[:at] + bytes((data.draw(st.integers(0, 255)),)) + good[at + 1 :]
    bad = bad[: data.draw(st.integers(0, len(bad)))] if data.draw(st.booleans()) else bad
    try:
        block = decode(bad)
    except BlockError:
        return
    if isinstance(block, RecordBlock):
        assert len(list(block.rows())) == block.count


def test_fields_of_later_versions_are_ignored():
    def add(header):
        header["colour"] = "blue"
        header["columns"]["energy"] = {"type": "f8", "at": 0}
        header["features"][0]["unit"] = ["m", "s"]
        header["undecodable"][0][0] = "a_reason_of_later"

    block = decode(rewritten(add))
    rows = list(block.rows())
    assert rows[0][2].values == [1.0, "x"]
    assert rows[1][2] == Undecodable(Reason.INTERNAL, "a_reason_of_later: why")


def test_fields_missing_in_earlier_versions_get_defaults():
    def strip(header):
        header["columns"] = {
            name: place
            for name, place in header["columns"].items()
            if name in ("started", "request")
        }

    rows = list(decode(rewritten(strip)).rows())
    assert [(r.request_id, r.status, r.outcome) for _, r, _, _ in rows] == [(b"", 0, 0)] * 2
    assert rows[0][2].values == [1.0, "x"]


def test_a_wider_type_is_read_if_its_values_fit():
    def widen(header):
        header["columns"]["status"] = {"type": "u8", "at": header["columns"]["duration_ns"]["at"]}

    assert [r.status for _, r, _, _ in decode(rewritten(widen)).rows()] == [10, 10]


CELLS = {
    "float": st.floats(),
    "whole": st.integers(-(2**31), 2**31 - 1),
    "long": st.integers(-(2**63), 2**63 - 1),
    "huge": st.sampled_from((2**53 - 1, 2**53, 2**53 + 1, -(2**53) - 1, 10**400)),
    "truth": st.booleans(),
    "text": st.sampled_from(("", "north", "ü", "\ud800")) | st.text(max_size=3),
    "nothing": st.none(),
    "list": st.lists(st.integers(0, 3), max_size=2),
}


@given(
    st.lists(st.sampled_from(sorted(CELLS)), min_size=1, max_size=3, unique=True).flatmap(
        lambda kinds: st.lists(st.one_of(*map(CELLS.__getitem__, kinds)), min_size=1, max_size=40)
    )
)
def test_a_column_keeps_each_cell_and_its_type(cells):
    assert repr(column_of(cells).values()) == repr(cells)


def test_columns_of_many_texts_and_of_unsupported_types_round_trip():
    texts = [f"text {number}" for number in range(70_000)]
    for many in (300, 70_000):
        assert column_of(texts[:many]).values() == texts[:many]
    thing = complex(1, 2)
    for first in (1.0, 1, True, "text", None):
        assert column_of([first, thing, object]).values() == [first, str(thing), str(object)]


@given(
    st.lists(
        st.tuples(st.floats(), st.floats()).map(list)
        # As long as two floats, as marshal writes them, and none.
        | st.just([1, "8 chars."])
        | st.tuples(st.floats(), st.none() | st.integers()).map(list),
        min_size=1,
        max_size=60,
    ),
    st.sets(st.integers(0, 59)),
)
def test_buffered_rows_round_trip(rows, several):
    buffer = CellBuffer(("a", "b"))
    for number, row in enumerate(rows):
        if number in several:
            buffer.add(row)
        else:
            buffer.rows.append(row)
            if len(buffer.rows) >= MAX_UNPACKED:
                buffer.pack()
    grid = buffer.finish()
    assert grid.rows == len(rows)
    assert repr(grid.values()) == repr([cell for row in rows for cell in row])
