"""Feedback as it is posted: labels that are accepted, and the faults of others."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.monitor.labels import label as labels
from understudy.monitor.labels.label import (
    Fault,
    FeedbackError,
    Label,
    LabelParser,
    TooManyError,
)

JSON = "application/json"
NDJSON = "application/x-ndjson; charset=utf-8"


def parse(body: bytes, content_type: str) -> tuple[list[tuple[int, Label]], list[Fault]]:
    parser = LabelParser(content_type)
    for start in range(0, len(body), 65536):
        parser.feed(body[start : start + 65536])
    return parser.finish()


def fault_of(item: Any) -> str:
    found, faults = parse(json.dumps([{"request_id": "fine", "label": 1}, item]).encode(), JSON)
    assert [label.request_id for _, label in found] == ["fine"], "the good one is taken"
    (fault,) = faults
    return str(fault)


@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: [x], lambda x: {"feedback": [x]}])
def test_one_a_list_and_a_wrapped_list_are_the_same(wrap: Any) -> None:
    item = {"request_id": "r", "label": "late", "reward": 2, "row": 3, "idempotency_key": "k"}
    found, faults = parse(json.dumps(wrap(item)).encode(), JSON)
    assert found == [(1, Label("r", 3, "late", 2.0, None, "k"))]
    assert not faults


def test_a_list_of_labels_is_one_for_each_row() -> None:
    found, _ = parse(b'{"request_id": "r", "label": [0, "x", true]}', JSON)
    assert [(label.row, label.label) for _, label in found] == [(0, 0), (1, "x"), (2, True)]


@pytest.mark.parametrize(
    ("at", "unix"),
    [
        (1767225600, 1767225600.0),
        (1767225600.25, 1767225600.25),
        ("2026-01-01T00:00:00Z", 1767225600.0),
        ("2026-01-01T01:30:00.5+01:30", 1767225600.5),
    ],
)
def test_times(at: object, unix: float) -> None:
    found, _ = parse(json.dumps({"request_id": "r", "label": 1, "at": at}).encode(), JSON)
    assert found[0][1].at == unix


@pytest.mark.parametrize(
    ("item", "message"),
    [
        ({"request_id": "r", "reward": "yes"}, "item 2: reward: must be a number, not 'yes'"),
        ({"request_id": "r", "reward": True}, "item 2: reward: must be a number, not True"),
        ({"request_id": "r"}, "item 2: label: is missing: give a label or a reward"),
        ({"request_id": "r", "label": None}, "item 2: label: is missing"),
        ({"request_id": "r", "label": {"a": 1}}, "item 2: label: must be a number, a text or"),
        ({"request_id": "r", "label": []}, "item 2: label: must be a list of"),
        ({"request_id": "r", "label": [1, None]}, "item 2: label: must be a list of"),
        ({"request_id": "r", "label": [1], "row": 0}, "item 2: row: must not be given with"),
        ({"request_id": "r", "label": "x" * 4097}, "item 2: label: must be"),
        ({"request_id": "r", "label": 1, "row": -1}, "item 2: row: must be a whole number from 0"),
        ({"request_id": "r", "label": 1, "row": 0.5}, "item 2: row: must be a whole number"),
        ({"request_id": "r", "label": 1, "row": 10**9}, "item 2: row: must be a whole number"),
        ({"request_id": "", "label": 1}, "item 2: request_id: must be a text of 1 to 256"),
        ({"request_id": 7, "label": 1}, "item 2: request_id: must be a text"),
        ({"label": 1}, "item 2: request_id: must be a text"),
        ({"request_id": "r", "lable": 1}, "item 2: lable: unknown key; known: at, idem"),
        ({"request_id": "r", "label": 1, "at": None}, "item 2: at: must be unix seconds or"),
        ({"request_id": "r", "label": 1, "at": True}, "item 2: at: must be unix seconds or"),
        ({"request_id": "r", "label": 1, "at": "yesterday"}, "item 2: at: must be a time such"),
        ({"request_id": "r", "label": 1, "at": "2026-01-01T00:00"}, "item 2: at: has no time zone"),
        ({"request_id": "r", "label": 1, "at": 1767225600000}, "item 2: at: is not in seconds"),
        ({"request_id": "r", "label": 1, "at": "0001-01-01T00:00Z"}, "item 2: at: is not in sec"),
        ({"request_id": "r", "label": 1, "idempotency_key": 5}, "item 2: idempotency_key: must be"),
        (3, "item 2: must be an object with request_id and label or reward, not 3"),
    ],
)
def test_a_fault_names_the_item_and_the_field(item: Any, message: str) -> None:
    assert fault_of(item).startswith(message)


def test_a_line_is_named_as_an_editor_counts_it() -> None:
    body = b'{"request_id": "a", "label": 1}\r\n\n  \nno JSON\n{"request_id": "b"}\n{"request_id":"c","label":0}'
    found, faults = parse(body, NDJSON)
    assert [(number, label.request_id) for number, label in found] == [(1, "a"), (6, "c")]
    assert [str(fault).split(":")[0] for fault in faults] == ["item 4", "item 5"]


def test_a_long_line_does_not_stop_the_others() -> None:
    long = b'{"request_id": "' + b"x" * labels.LONGEST_LINE + b'", "label": 1}'
    found, faults = parse(long + b'\n{"request_id": "b", "label": 1}', NDJSON)
    assert [label.request_id for _, label in found] == ["b"]
    assert str(faults[0]) == "item 1: is longer than 262,144 bytes"


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"NaN", b"\xff", b'{"feedback": 1}', b'{"feedback": [], "x": 1}', b"[" * 5000],
)
def test_an_unreadable_body_is_rejected_as_a_whole(body: bytes) -> None:
    with pytest.raises(FeedbackError):
        parse(body, JSON)


def test_batches_are_bounded_in_items_and_in_labels() -> None:
    item = {"request_id": "r", "label": 1}
    parse(json.dumps([item] * labels.MOST_ITEMS).encode(), JSON)
    with pytest.raises(TooManyError, match="10,000 items"):
        parse(json.dumps([item] * (labels.MOST_ITEMS + 1)).encode(), JSON)
    rows = {"request_id": "r", "label": [0] * (labels.MOST_LABELS + 1)}
    with pytest.raises(TooManyError, match="50,000 labels"):
        parse(json.dumps(rows).encode(), JSON)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner),
    max_leaves=5,
)
items = st.dictionaries(
    st.sampled_from(("request_id", "label", "reward", "row", "at", "idempotency_key", "other")),
    json_values,
)


@given(st.lists(items | json_values, max_size=5), st.sampled_from((JSON, NDJSON)))
def test_every_posted_item_is_accepted_or_named(posted: list[Any], kind: str) -> None:
    texts = [json.dumps(item, allow_nan=False) for item in posted if _is_json(item)]
    body = "\n".join(texts) if kind == NDJSON else f"[{','.join(texts)}]"
    found, faults = parse(body.encode(), kind)
    assert {number for number, _ in found} | {fault.number for fault in faults} == set(
        range(1, len(texts) + 1)
    )
    for _, label in found:
        assert label.label is not None or label.reward is not None


def _is_json(item: Any) -> bool:
    try:
        json.dumps(item, allow_nan=False).encode()
    except ValueError:
        return False
    return True


@given(st.binary(max_size=60), st.sampled_from((JSON, NDJSON)))
def test_arbitrary_bytes_raise_only_feedback_errors(body: bytes, kind: str) -> None:
    try:
        parse(body, kind)
    except FeedbackError as error:
        assert str(error)
