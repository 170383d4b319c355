"""Blocks as version 1 of the schema wrote them, and as a later one may: both have to be read."""

from pathlib import Path

import pytest

from understudy.common.codecs import Reason, Table, Undecodable
from understudy.monitor.evidence.blocks import Head, Heartbeat, LabelBlock, decode, encode
from understudy.monitor.labels.label import Label
from understudy.monitor.records.handoff import Names, SplitNames

GOLDEN = Path(__file__).parent / "golden"
START = 1.75e9
NAMES = Names(
    3,
    (("m", "1", "auto"), ("ü", "", "mlflow")),
    ("champion", "challenger"),
    (SplitNames("e", 0, (0.9, 0.1), 12.5, 11.0),),
)
FEATURES = ("age", "city", "score")
TABLES = [
    (Table(FEATURES, 1, [31, "Ulm", 0.25]), Table(("p",), 1, [0.125])),
    (
        Table(FEATURES, 2, [32, None, 1 / 3, True, "Köln", 2.5]),
        Undecodable(Reason.ERROR_RESPONSE),
    ),
    (
        Undecodable(Reason.NOT_CAPTURED),
        Table(("p", "q"), 1, [None, [1, {"a": 2**70}]]),
    ),
]


def golden(name):
    return decode((GOLDEN / f"{name}.unbl").read_bytes())


@pytest.mark.parametrize("name", ["records", "later"])
def test_records_are_read(name):
    block = golden(name)
    assert block.head == Head("sidecar-1", "run-7", 0, 1, START + 3)
    assert block.names == NAMES
    rows = list(block.rows())
    assert [(asked, said) for _, _, asked, said in rows] == TABLES
    assert [record.request_id for _, record, _, _ in rows] == [b"r-1", b"r-13", b"r-17"]
    assert [record.started for _, record, _, _ in rows] == [START, START + 1, START + 2]
    assert [record.status for _, record, _, _ in rows] == [200, 504, 200]
    # What the later writer left out has its default.
    left_out = name == "later"
    assert [record.outcome for _, record, _, _ in rows] == ([0, 0, 0] if left_out else [0, 3, 0])
    assert [record.role for _, record, _, _ in rows] == ([0, 0, 0] if left_out else [0, 0, 1])
    assert [record.unit for _, record, _, _ in rows] == [b"" if left_out else b"u-1", b"", b""]
    assert rows[0][1].duration_ns == (0 if left_out else 10)


def test_labels_are_read():
    block = golden("labels")
    assert isinstance(block, LabelBlock)
    assert block.head == Head("sidecar-1", "run-7", 0, 2, START + 10)
    assert block.labels == (
        (START + 9, Label("r-1", 0, True, 0.5, START + 8, "k")),
        (START + 9, Label("r-1", 1, "yes")),
    )


def test_heartbeats_are_read():
    head = Head("sidecar-1", "run-7", 0, 2, START + 11)
    assert golden("heartbeat") == Heartbeat(head, START + 11, START + 10.5, 3)


def test_what_was_read_is_written_the_same():
    again = decode(encode(golden("records")))
    assert [row[2:] for row in again.rows()] == TABLES
