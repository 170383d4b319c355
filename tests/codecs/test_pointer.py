"""Plain JSON, mapped by pointers."""

from __future__ import annotations

import pytest

from tests.support.codecs import decode, reason
from understudy.common.codecs import ModelSpec, Reason, Table
from understudy.common.codecs.pointer import follow, steps

# RFC 6901, section 5: the document and where its pointers lead.
RFC = {
    "foo": ["bar", "baz"],
    "": 0,
    "a/b": 1,
    "c%d": 2,
    "e^f": 3,
    "g|h": 4,
    "i\\j": 5,
    'k"l': 6,
    " ": 7,
    "m~n": 8,
}


@pytest.mark.parametrize(
    ("pointer", "value"),
    [
        ("", RFC),
        ("/foo", ["bar", "baz"]),
        ("/foo/0", "bar"),
        ("/", 0),
        ("/a~1b", 1),
        ("/c%d", 2),
        ("/e^f", 3),
        ("/g|h", 4),
        ("/i\\j", 5),
        ('/k"l', 6),
        ("/ ", 7),
        ("/m~0n", 8),
        ("/foo/2", None),
        ("/foo/x", None),
        ("/foo/-", None),
        ("/foo/01", None),
        ("/foo/+1", None),
        ("/foo/\u0661", None),
        ("/foo/", None),
        ("/foo/" + "9" * 5000, None),
        ("/a~1b/c", None),
        ("/foo/*", ["bar", "baz"]),
        ("/foo/*/x", [None, None]),
        ("/*", None),
    ],
)
def test_pointers_follow_the_rfc(pointer: str, value: object) -> None:
    assert follow(RFC, steps(pointer)) == value


def test_escapes_are_read_from_the_right() -> None:
    assert steps("/~01") == ("~1",)


def test_a_star_that_is_a_key() -> None:
    assert follow({"*": {"a": 1}}, steps("/*/a")) == 1


def spec(**features: str) -> ModelSpec:
    return ModelSpec(
        "m",
        protocol="json",
        json_features=tuple(features.items()),
        json_predictions=(("score", "/scores"),),
    )


def test_rows_columns_and_shared_cells() -> None:
    mapping = spec(age="/rows/*/age", city="/where/city", slash="/a~1b")
    request = {"rows": [{"age": 3}, {}], "where": {"city": "Ulm"}}
    features, predictions = decode(b"/score", request, {"scores": [0.5, 0.7]}, mapping)
    assert features == Table(("age", "city", "slash"), 2, [3, "Ulm", None, None, "Ulm", None])
    assert predictions == Table(("score",), 2, [0.5, 0.7])


def test_a_single_row() -> None:
    features, predictions = decode(
        b"/score", {"a": 1, "b": {"c": "u"}}, {"scores": 0.5}, spec(a="/a", c="/b/c", d="/d")
    )
    assert features == Table(("a", "c", "d"), 1, [1, "u", None])
    assert predictions == Table(("score",), 1, [0.5])


def test_vectors_stay_below_the_name_of_the_mapping() -> None:
    """Redaction goes by the names and pointers of the mapping, so there must not be others."""
    features, _ = decode(b"/score", {"rows": [{"v": [1, 2]}, {"v": [3]}]}, spec=spec(v="/rows/*/v"))
    assert features == Table(("v",), 2, [[1, 2], [3]])


def test_payloads_that_do_not_fit_the_mapping() -> None:
    assert reason(decode(b"/s", {"other": 1}, spec=spec(a="/a"))[0]) == Reason.WRONG_SHAPE
    assert reason(decode(b"/s", 5, spec=spec(a="/a"))[0]) == Reason.WRONG_SHAPE
    uneven = {"a": [1, 2], "b": [1]}
    assert reason(decode(b"/s", uneven, spec=spec(a="/a", b="/b"))[0]) == Reason.WRONG_SHAPE
    assert reason(decode(b"/s", {"a": []}, spec=spec(a="/a"))[0]) == Reason.EMPTY
    assert reason(decode(b"/s", {"a": 1}, spec=spec())[0]) == Reason.WRONG_SHAPE
