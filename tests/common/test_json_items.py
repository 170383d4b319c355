"""JSON bodies that arrive in pieces."""

from __future__ import annotations

import json
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.common import json_items
from understudy.common.json_items import Document, ItemsError, Lines, Splitter, splitter

VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


def split(found: Splitter, body: bytes, size: int) -> list[tuple[int, bytes | None]]:
    items = []
    for start in range(0, len(body), size):
        items += list(found.feed(body[start : start + size]))
    return [*items, *found.finish()]


@given(st.lists(VALUES, max_size=6), st.integers(1, 40), st.sampled_from([None, 2]))
def test_a_list_in_pieces_has_the_items_of_the_whole(
    values: list[Any], size: int, indent: int | None
) -> None:
    for ascii_only in (True, False):
        body = json.dumps(values, indent=indent, ensure_ascii=ascii_only).encode(
            "utf-8", "surrogatepass"
        )
        found = split(Document(), body, size)
        assert [number for number, _ in found] == list(range(1, len(values) + 1))
        assert [json.loads(item or b"") for _, item in found] == values


@given(VALUES.filter(lambda value: not isinstance(value, list)), st.integers(1, 40))
def test_a_document_that_is_not_a_list_is_one_item(value: Any, size: int) -> None:
    ((number, item),) = split(Document(), b" \n" + json.dumps(value).encode() + b" ", size)
    assert (number, json.loads(item or b"")) == (1, value)


@given(st.text('[]{},:"\\ 1a\n', max_size=12), st.integers(1, 5))
def test_what_is_accepted_is_what_a_parser_of_the_whole_accepts(text: str, size: int) -> None:
    body = text.encode()

    def whole() -> Any:
        try:
            return orjson.loads(body)
        except orjson.JSONDecodeError:
            return ItemsError

    def pieces() -> Any:
        try:
            items = [orjson.loads(item or b"") for _, item in split(Document(), body, size)]
        except (ItemsError, orjson.JSONDecodeError):
            return ItemsError
        return items if body.lstrip().startswith(b"[") else items[0]

    assert pieces() == whole()


def test_an_item_that_would_take_much_memory_is_refused_while_it_arrives() -> None:
    found = Document()
    piece = b"[]," * 10_000
    assert list(found.feed(b'[{"a": [')) == []
    for _ in range(json_items.MAX_TOKENS // 20_000 - 1):
        assert list(found.feed(piece)) == []
    with pytest.raises(ItemsError, match="more than 500,000"):
        list(found.feed(piece))


def test_what_was_split_off_is_not_kept() -> None:
    found = Document()
    count = len(list(found.feed(b"[")))
    for _ in range(1000):
        count += len(list(found.feed(b'{"a": "0123456789"}, ')))
        assert len(found._buffer) < 64
    assert count == 1000


@given(st.lists(st.binary(max_size=8).filter(lambda b: b"\n" not in b)), st.integers(1, 20))
def test_lines_in_pieces_are_the_lines_of_the_whole(lines: list[bytes], size: int) -> None:
    body = b"\n".join(lines)
    expected = [
        (number, line.removeprefix(b"\xef\xbb\xbf") if number == 1 else line)
        for number, line in enumerate(lines, start=1)
    ]
    assert split(Lines(), body, size) == [(n, line) for n, line in expected if line.strip()]


def test_a_long_line_is_dropped_while_it_arrives_and_keeps_its_number() -> None:
    found = splitter("application/x-ndjson; charset=utf-8", longest_line=10)
    assert isinstance(found, Lines)
    result = list(found.feed(b'"a"\n'))
    for _ in range(100):
        result += list(found.feed(b"x" * 9))
        assert len(found._line) <= 18
    result += list(found.feed(b'\n"b"'))
    assert [*result, *found.finish()] == [(1, b'"a"'), (2, None), (3, b'"b"')]
