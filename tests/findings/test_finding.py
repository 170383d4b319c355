"""Signals and findings as data: bounded, JSON-able, and rejected when they are invalid."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pytest

from tests.support.signals import signal
from understudy.monitor.errors import FindingError
from understudy.monitor.findings.finding import (
    MAX_EXAMPLES,
    MAX_FEATURES,
    MAX_KEY,
    MAX_TEXT,
    Contribution,
    Finding,
    Note,
    Signal,
    Size,
)


def finding(**changes: Any) -> Finding:
    made = Finding("20261123T221530-7", "watch", signal(), signal(), 1000.0, 1001.0, 1000.0)
    return replace(made, **changes)


def test_findings_survive_a_round_trip() -> None:
    assert Signal.from_dict(orjson.loads(orjson.dumps(signal().to_dict()))) == signal()
    notified = signal(severity="info", size=None, since=None)
    note = Note("close", "ada", "so it is", 1002.0)
    made = finding(notified=notified, closed=1002.0, event="closed", notes=(note,), dismissed=True)
    assert Finding.from_dict(orjson.loads(orjson.dumps(made.dump()))) == made
    # What a later version adds is left out.
    assert Finding.from_dict({**made.dump(), "colour": "red"}) == made


def test_numbers_of_numpy_become_plain_ones() -> None:
    made = signal(
        since=np.float64(900),
        features=(Contribution("x", np.float32(0.5)), Contribution("y", 1.0 + 1e-9)),
        size=Size("x", "", np.int64(0), np.float64(2), -math.inf, math.nan),
    )
    orjson.dumps(made.to_dict())
    assert made.size is not None
    assert (made.size.low, made.size.high) == (None, None)
    assert made.features[1].share == 1.0


def test_long_values_are_cut_and_keys_stay_distinct() -> None:
    long = "x" * 10_000
    made = signal(
        long + "1",
        title=long,
        features=tuple(Contribution(long, 0.01, long) for _ in range(100)),
        examples=tuple(str(n) for n in range(100)),
    )
    other = signal(long + "2")
    assert len(made.key) == len(other.key) == MAX_KEY
    assert made.key != other.key
    assert signal(long + "1").key == made.key
    assert len(made.title) == MAX_TEXT
    assert len(made.features) == MAX_FEATURES
    assert len(made.examples) == MAX_EXAMPLES
    assert len(orjson.dumps(made.to_dict())) < 100_000


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"key": ""}, "needs a key"),
        ({"key": 3}, "key must be text"),
        ({"title": ""}, "needs a title"),
        ({"kind": "weather"}, "kind 'weather'"),
        ({"severity": "bad"}, "severity 'bad'"),
        ({"model": None}, "model must be text"),
        ({"since": "now"}, "since must be a number"),
        ({"features": [Contribution("x", 1.0)]}, "features must be a tuple"),
        ({"features": ("x",)}, "features must be a tuple"),
        ({"examples": (1,)}, "examples must be a tuple"),
        ({"size": 3.0}, "size must be a Size"),
    ],
)
def test_invalid_signals_are_rejected(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(FindingError, match=words):
        signal(**changes)


@pytest.mark.parametrize("share", [math.nan, math.inf, -0.1, 1.1, "much"])
def test_shares_outside_0_to_1_are_rejected(share: Any) -> None:
    with pytest.raises(FindingError, match="share"):
        Contribution("x", share)


def test_a_size_has_a_value_and_an_interval_that_is_not_empty() -> None:
    with pytest.raises(FindingError, match="value"):
        Size("x", "", 0.0, math.nan, None, None)
    with pytest.raises(FindingError, match="empty"):
        Size("x", "", 0.0, 1.0, 3.0, 2.0)


@pytest.mark.parametrize(
    "damage",
    [
        {"key": None},
        {"features": 3},
        {"features": [{"name": "x"}]},
        {"size": {"name": "x"}},
        {"size": "large"},
        {"examples": 3},
        {"opened": None},
        {"seen": "x"},
        {"event": "melted"},
        {"notes": [1]},
        {"told": 3},
        {"id": ...},
        {"source": ...},
        {"severity": ...},
    ],
)
def test_damaged_data_are_an_error(damage: dict[str, Any]) -> None:
    data = {**finding().dump(), **damage}
    data = {name: value for name, value in data.items() if value is not ...}
    with pytest.raises(FindingError):
        Finding.from_dict(data)
    for wrong in ([], None, "x"):
        with pytest.raises(FindingError):
            Finding.from_dict(wrong)  # type: ignore[arg-type]


def test_a_finding_of_an_earlier_version_is_read() -> None:
    data = finding().dump()
    data["room"] = data.pop("source")
    assert Finding.from_dict(data) == finding()


def test_notes_are_bounded() -> None:
    made = finding()
    for number in range(100):
        made = made.with_note(Note("acknowledge", "ada", str(number), 1.0))
    assert len(made.notes) == 20
    assert made.notes[-1].why == "99"
