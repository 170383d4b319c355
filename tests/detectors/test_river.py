"""river's detectors behind our interface: the same answers as river one value at a time."""

from __future__ import annotations

import builtins
import json
import sys
from typing import Any

import numpy as np
import pytest

from understudy.monitor.detectors.river_detectors import KINDS, OF_ERRORS, RiverDetector
from understudy.monitor.errors import MissingExtraError

drift = pytest.importorskip("river.drift", reason="river is an extra")


def rows(kind: str) -> np.ndarray:
    """900 rows of two series; the second changes upwards after 600."""
    rng = np.random.default_rng(2)
    if kind in OF_ERRORS:
        p = np.full((900, 2), 0.1)
        p[600:, 1] = 0.9
        return (rng.random((900, 2)) < p).astype(np.float64)
    x = rng.normal(size=(900, 2)) * 0.1
    x[600:, 1] += 3.0
    return x


@pytest.mark.parametrize("kind", KINDS)
def test_a_change_is_detected_for_any_batch_size(kind: str) -> None:
    x = rows(kind)
    options: dict[str, Any] = {"threshold": 20.0} if kind == "page_hinkley" else {}
    if kind == "kswin":
        options = {"alpha": 1e-4}
    whole, parts = RiverDetector(kind, 2, **options), RiverDetector(kind, 2, **options)
    found = whole.update(x)
    first = [-1, -1]
    for start in range(0, len(x), 70):
        last = parts.update(x[start : start + 70])
        for series in (0, 1):
            if last.crossed[series] >= 0 and first[series] < 0:
                first[series] = start + int(last.crossed[series])
    assert first == found.crossed.tolist()
    # The first of all that a river detector says after the change is about the change, and up;
    # EDDM, which is known to cry wolf, is only held to saying something.
    after = RiverDetector(kind, 2, **options)
    after.update(x[:600])
    late = after.update(x[600:])
    assert late.alarms[1]
    if kind != "eddm":
        assert late.crossed[1] < 120
        assert late.direction[1] == 1


def test_alarms_equal_those_of_river() -> None:
    x = rows("adwin")
    theirs = drift.ADWIN(delta=0.01)
    wanted = -1
    for row, value in enumerate(x[:, 1].tolist()):
        theirs.update(value)
        if theirs.drift_detected:
            wanted = row
            break
    x[::7, 0] = np.inf
    found = RiverDetector("adwin", 2, delta=0.01).update(x)
    assert found.crossed.tolist() == [-1, wanted]
    assert found.alarms.tolist() == [False, True]


@pytest.mark.parametrize("kind", KINDS)
def test_a_restored_detector_continues(kind: str) -> None:
    x = rows(kind)
    one = RiverDetector(kind, 2)
    one.update(x[:400])
    state = json.loads(json.dumps(one.dump_state()))
    other = RiverDetector(kind, 2)
    other.load_state(state)
    assert other.dump_state() == state
    assert other.update(x[400:]).alarms[1]
    other.reset(np.array([True, True]))
    assert other.dump_state()["values"] == [[], []]
    with pytest.raises(ValueError, match="not of"):
        RiverDetector(kind, 3).load_state(state)


def test_the_state_is_bounded() -> None:
    one = RiverDetector("page_hinkley", 1, threshold=1e9)
    one.update(np.random.default_rng(1).normal(size=(5000, 1)))
    assert len(one.dump_state()["values"][0]) == 1000


def test_invalid_input_is_rejected() -> None:
    with pytest.raises(ValueError, match="no detector 'magic'"):
        RiverDetector("magic", 1)
    with pytest.raises(ValueError, match="adwin"):
        RiverDetector("adwin", 1, magic=2)
    with pytest.raises(ValueError, match="0 or 1"):
        RiverDetector("ddm", 1).update(np.array([[0.5]]))
    with pytest.raises(ValueError, match="shape"):
        RiverDetector("adwin", 1).update(np.zeros((3, 2)))


def test_without_river_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any) -> Any:
        if name.split(".")[0] == "river":
            raise ModuleNotFoundError("No module named 'river'")
        return real(name, *rest)

    for name in [name for name in sys.modules if name.split(".")[0] == "river"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setattr(builtins, "__import__", without)
    monkeypatch.setitem(sys.modules, "river", None)
    with pytest.raises(MissingExtraError, match=r"understudy-serving\[river\]"):
        RiverDetector("adwin", 1)
