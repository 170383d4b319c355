"""What the processes for latencies and means promise: batches, merging, JSON, bounded state."""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.shadow.sequential import (
    AdjustedDifference,
    BlockDifference,
    BoundedVariance,
    EProcess,
    Gate,
    KolmogorovSmirnov,
    MeanDifference,
    MergeRule,
    MixtureSPRT,
    PairedMean,
    QuantileComparison,
    QuantileSequence,
    SequentialError,
    SpreadDifference,
    TailDetector,
    UnitDifference,
    edges_around,
    load,
)

Records = tuple[np.ndarray, ...]
EDGES = edges_around(0.04)
THRESHOLDS, LEVELS = [0.02, 0.04, 0.06, 0.1], [0.5, 0.9, 0.97, 0.998]
OPEN = Gate(effective=3.0)


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], Any]
    draw: Callable[[np.random.Generator, int], Records]
    feed: Callable[[Any, Records], None]


def _latencies(rng: np.random.Generator, n: int) -> np.ndarray:
    return 0.02 * np.exp(0.6 * rng.standard_normal(n))


def _one(rng: np.random.Generator, n: int) -> Records:
    return (_latencies(rng, n),)


def _two(rng: np.random.Generator, n: int) -> Records:
    arm = (rng.random(n) < 0.4).astype(float)
    return arm, _latencies(rng, n) * (1.0 + 0.5 * arm)


def _ramp(rng: np.random.Generator, n: int) -> Records:
    return *_two(rng, n), np.where(np.arange(n) < n // 3, 0.2, 0.5)


def _mirrored(rng: np.random.Generator, n: int) -> Records:
    x = _latencies(rng, n)
    return x, x * np.exp(0.3 * rng.standard_normal(n) + 0.1)


def _units(rng: np.random.Generator, n: int) -> Records:
    arm = (rng.random(n) < 0.4).astype(float)
    size = 1.0 + rng.poisson(3, n)
    return arm, size * (2.0 + arm) + rng.standard_normal(n), size


def _adjusted(rng: np.random.Generator, n: int) -> Records:
    arm = (rng.random(n) < 0.4).astype(float)
    x = rng.standard_normal((n, 2))
    return arm, x @ [2.0, -1.0] + arm + rng.standard_normal(n), x, np.full(n, 0.4)


def _plain(process: Any, records: Records) -> None:
    process.update(*records)


def _row(process: Any, records: Records) -> None:
    """Covariates keep their two dimensions also for a single record."""
    arm, y, x, share = records
    process.update(arm, y, np.reshape(x, (-1, 2)), share)


CASES = [
    Case("quantile", lambda: QuantileSequence(EDGES, 0.9, planned=100), _one, _plain),
    *(
        Case(
            f"two quantiles {side} {ratio} {together}",
            lambda side=side, ratio=ratio, together=together: QuantileComparison(
                EDGES, 0.5, side, ratio=ratio, planned=100, independent=not together
            ),
            _two,
            _plain,
        )
        for side in ("two-sided", "greater", "less")
        for ratio in (1.0, 1.1)
        for together in (False, True)
    ),
    *(
        Case(
            f"tail {side} {ratio}",
            lambda side=side, ratio=ratio: TailDetector(THRESHOLDS, LEVELS, side, ratio=ratio),
            _ramp,
            _plain,
        )
        for side in ("two-sided", "greater", "less")
        for ratio in (1.0, 1.2)
    ),
    Case(
        "tail pairs",
        lambda: TailDetector(THRESHOLDS, LEVELS),
        _mirrored,
        lambda p, r: p.update_pairs(*r),
    ),
    Case("kolmogorov-smirnov", lambda: KolmogorovSmirnov(EDGES, 10), _two, _plain),
    Case("msprt", lambda: MixtureSPRT(0.02, 0.01), _two, _plain),
    Case("mean", lambda: MeanDifference(200, gate=OPEN), _two, _plain),
    Case("mean greater", lambda: MeanDifference(200, "greater", gate=OPEN), _two, _plain),
    Case("paired mean", lambda: PairedMean(200, "less", gate=OPEN), _one, _plain),
    Case("blocks", lambda: BlockDifference(7, 200, gate=OPEN), _two, _plain),
    Case("units", lambda: UnitDifference(200, typical=2.0, gate=OPEN), _units, _plain),
    Case("adjusted", lambda: AdjustedDifference(2, 200, gate=OPEN), _adjusted, _row),
    Case("spread", lambda: SpreadDifference(200, gate=OPEN), _two, _plain),
    Case("bounded variance", lambda: BoundedVariance(0.0, 0.5), _one, _plain),
]
COUNTS = ("quantile", "two quantiles", "tail", "kolmogorov")
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_additive = pytest.mark.parametrize(
    "case",
    [c for c in CASES if c.make().merge_rule is MergeRule.ADDITIVE],
    ids=lambda case: case.name,
)


def _numbers(process: Any, *, merged: bool = False) -> list[float]:
    """What an observer can read. Seams between replicas are unknown, so runs are left out there."""
    out: list[float] = []
    if isinstance(process, EProcess):
        out.append(process.log_e)
    for name in ("interval", "unguarded_interval", "difference", "ratio_interval"):
        read = getattr(process, name, None)
        if callable(read):
            interval = read()
            out += [interval.lower, interval.upper]
    if isinstance(process, KolmogorovSmirnov):
        out += [process.p_value, process.distance[0]]
    if isinstance(process, TailDetector):
        out += [x.log_e for x in process.findings()]
        out += [] if merged else [process.clustering]
    if hasattr(process, "readiness") and not merged:
        out.append(float(process.readiness.ready))
    return out


def _cut(records: Records, rows: Any) -> Records:
    return tuple(column[rows] for column in records)


@each
@settings(max_examples=10)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 300), max_size=6))
def test_batches_and_single_updates_give_the_same_state(
    case: Case, seed: int, cuts: list[int]
) -> None:
    records = case.draw(np.random.default_rng(seed), 300)
    one_by_one, batched = case.make(), case.make()
    for i in range(300):
        case.feed(one_by_one, _cut(records, i))
    for a, b in itertools.pairwise([0, *sorted(cuts), 300]):
        case.feed(batched, _cut(records, slice(a, b)))
    expected = _numbers(one_by_one)
    assert _numbers(batched) == pytest.approx(expected, rel=1e-8, abs=1e-9)
    if isinstance(batched, TailDetector):
        assert batched.peak_log_e == pytest.approx(one_by_one.peak_log_e, abs=1e-9)


@each_additive
@settings(max_examples=8)
@given(seed=st.integers(0, 2**32), data=st.data())
def test_sixteen_replicas_merge_in_any_order(case: Case, seed: int, data: st.DataObject) -> None:
    rng = np.random.default_rng(seed)
    records = case.draw(rng, 3000)
    owner = rng.integers(0, 16, 3000)
    replicas = [case.make() for _ in range(16)]
    for i, replica in enumerate(replicas):
        case.feed(replica, _cut(records, owner == i))
    order = data.draw(st.permutations(replicas))
    chain = order[0]
    for other in order[1:]:
        chain = chain.merge(other)
    tree = list(replicas)
    while len(tree) > 1:
        tree = [a.merge(b) for a, b in zip(tree[::2], tree[1::2], strict=True)]
    expected = _numbers(chain, merged=True)
    assert _numbers(tree[0], merged=True) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    if case.name.startswith(COUNTS):
        whole = case.make()
        case.feed(whole, records)
        assert expected == pytest.approx(_numbers(whole, merged=True), abs=1e-9)


@each
def test_state_goes_through_json_and_stays_small(case: Case) -> None:
    rng = np.random.default_rng(7)
    process = case.make()
    fresh = json.dumps(process.dump_state(), allow_nan=False)
    assert _numbers(load(json.loads(fresh))) == _numbers(process)
    case.feed(process, case.draw(rng, 50_000))
    case.feed(process, case.draw(rng, 3))
    text = json.dumps(process.dump_state(), allow_nan=False)
    assert len(text) <= 4096
    again = load(json.loads(text))
    assert type(again) is type(process)
    assert json.dumps(again.dump_state()) == text
    more = case.draw(rng, 700)
    case.feed(process, more)
    case.feed(again, more)
    assert _numbers(again) == _numbers(process)
    if isinstance(process, EProcess):
        assert isinstance(again, EProcess)
        assert again.peak_log_e == process.peak_log_e


@pytest.mark.parametrize(
    "case", [c for c in CASES if hasattr(c.make(), "update_counts")], ids=lambda case: case.name
)
def test_a_full_histogram_of_two_arms_fits_in_four_kilobytes(case: Case) -> None:
    process = case.make()
    full = np.random.default_rng(1).integers(2**27, 2**28, EDGES.size + 1)
    both = (full,) if isinstance(process, QuantileSequence) else (full, full[::-1])
    process.update_counts(*both)
    assert len(json.dumps(process.dump_state())) <= 4096


@each
def test_every_field_of_the_state_is_checked(case: Case) -> None:
    process = case.make()
    case.feed(process, case.draw(np.random.default_rng(3), 600))
    state = json.loads(json.dumps(process.dump_state()))
    for name in state:
        with pytest.raises(SequentialError):
            load({key: value for key, value in state.items() if key != name})
        with pytest.raises(SequentialError):
            load(state | {name: {"odd": 1}})
    with pytest.raises(SequentialError, match="version"):
        load(state | {"version": 99})


@each
def test_empty_batches_change_nothing(case: Case) -> None:
    process = case.make()
    before = json.dumps(process.dump_state())
    case.feed(process, case.draw(np.random.default_rng(0), 0))
    assert json.dumps(process.dump_state()) == before
    assert all(not math.isnan(x) for x in _numbers(process))


@each
@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_invalid_numbers_are_rejected_and_change_nothing(case: Case, bad: float) -> None:
    process = case.make()
    records = [column.copy() for column in case.draw(np.random.default_rng(5), 40)]
    case.feed(process, tuple(records))
    before = json.dumps(process.dump_state())
    for i, column in enumerate(records):
        broken = list(records)
        broken[i] = column.copy()
        broken[i][-1] = bad
        with pytest.raises(SequentialError):
            case.feed(process, tuple(broken))
    assert json.dumps(process.dump_state()) == before


@each
def test_only_equal_settings_merge(case: Case) -> None:
    with pytest.raises(SequentialError, match="merged"):
        case.make().merge(MixtureSPRT(9.0, 9.0))
    if case.name.startswith("tail"):
        with pytest.raises(SequentialError, match="thresholds"):
            case.make().merge(TailDetector([0.1], [0.5], case.make().alternative))
