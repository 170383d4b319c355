"""Arrays as short texts: what is kept of them, and what damages are told."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from understudy.monitor.detectors.change_point import ChangePoint
from understudy.monitor.detectors.packed import (
    PackedRounded,
    exactly,
    pack,
    pack_steps,
    unpack,
    unpack_steps,
)
from understudy.shadow.state import Saved, Stateful


class Kept(Stateful):
    values: Saved[PackedRounded]

    def __init__(self) -> None:
        self.values = np.zeros((9, 40))


def restored(made: Any, item: Any) -> Any:
    made.load_state(json.loads(json.dumps(item.dump_state())))
    return made


def test_steps_are_kept_to_half_a_step() -> None:
    x = np.random.default_rng(1).normal(0.0, 1.0, (168, 20))
    text = pack_steps(x, 2.0**-10)
    assert len(text) < len(pack(x, np.float16))
    assert np.abs(unpack_steps(text, x.shape, 2.0**-10) - x).max() <= 2.0**-11
    far = unpack_steps(pack_steps(np.array([1e9, -1e9]), 0.5), (2,), 0.5)
    assert far.tolist() == [16_383.5, -16_383.5]
    assert unpack_steps(pack_steps(np.zeros((0, 3)), 0.5), (0, 3), 0.5).shape == (0, 3)


def test_rounded_numbers_have_16_binary_digits_of_any_size() -> None:
    kept = Kept()
    kept.values = np.random.default_rng(2).normal(size=(9, 40)) * 10.0 ** np.arange(-4, 5)[:, None]
    kept.values[3, 5] = 0.0
    again = restored(Kept(), kept).values
    np.testing.assert_allclose(again, kept.values, rtol=2.0**-16)
    assert len(kept.dump_state()["values"]) < len(pack(kept.values))


def test_all_digits_are_kept_where_that_is_asked() -> None:
    x = np.random.default_rng(3).normal(size=(7, 3))
    kept, history = Kept(), ChangePoint(3)
    kept.values[:7, :3] = x
    history.update(np.concatenate([x] * 40), np.arange(280.0))
    with exactly():
        assert unpack_steps(pack_steps(x, 0.5), x.shape, 0.5).tolist() == x.tolist()
        assert restored(Kept(), kept).values.tolist() == kept.values.tolist()
        again = restored(ChangePoint(3), history)
    assert [again.estimate(n) for n in range(3)] == [history.estimate(n) for n in range(3)]


def test_sums_of_a_large_shift_leave_those_of_other_series_readable() -> None:
    rng = np.random.default_rng(4)
    history = ChangePoint(2)
    for start in range(0, 200_000, 1_000):
        x = rng.normal(size=(1_000, 2))
        x[:, 0] += 3.0 if start >= 20_000 else 0.0
        x[:, 1] += 0.1 if start >= 150_000 else 0.0
        history.update(x, np.arange(start, start + 1_000.0))
    again = restored(ChangePoint(2), history)
    for series in (0, 1):
        found, expected = again.estimate(series), history.estimate(series)
        assert found.time == expected.time
        assert found.size == pytest.approx(expected.size, rel=1e-3)
        assert found.weight == pytest.approx(expected.weight, rel=1e-3)


@pytest.mark.parametrize("text", ["", "e", "eJw=", "####", pack(np.zeros(3))])
def test_damaged_texts_are_refused(text: str) -> None:
    for read in (lambda: unpack(text, (2, 4)), lambda: unpack_steps(text, (2, 4), 0.5)):
        with pytest.raises(ValueError, match=r".+"):
            read()
