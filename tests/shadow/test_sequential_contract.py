"""What every sequential process promises: batches, merging, JSON, bounded state, clear errors."""

from __future__ import annotations

import itertools
import json
import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.shadow import sequential
from understudy.shadow.sequential import (
    BernoulliInterval,
    BettingInterval,
    BettingTest,
    EmpiricalBernstein,
    EProcess,
    LabelBetting,
    MergeRule,
    PairedMargin,
    PairedTest,
    Process,
    RateTest,
    SequentialError,
    SplitCheck,
    SplitDifference,
    TwoProportions,
    load,
)

Records = tuple[np.ndarray, ...]


@dataclass(frozen=True)
class Case:
    name: str
    make: Callable[[], Any]
    draw: Callable[[np.random.Generator, int], Records]
    feed: Callable[[Any, Records], None]


def _pairs(rng: np.random.Generator, n: int) -> Records:
    return (rng.choice([-1.0, 0.0, 1.0], p=[0.1, 0.7, 0.2], size=n),)


def _split(rng: np.random.Generator, n: int) -> Records:
    arm = (rng.random(n) < 0.3).astype(float)
    share = np.where(np.arange(n) < n // 2, 0.3, 0.4)
    return arm, (rng.random(n) < 0.1 + 0.1 * arm).astype(float), share


def _values(rng: np.random.Generator, n: int) -> Records:
    return (rng.beta(2.0, 5.0, size=n),)


def _binary(rng: np.random.Generator, n: int) -> Records:
    return ((rng.random(n) < 0.2).astype(float),)


def _arms(rng: np.random.Generator, n: int) -> Records:
    return (rng.choice(3, p=[0.5, 0.3, 0.2], size=n),)


def _plain(process: Any, records: Records) -> None:
    process.update(*records)


CASES = [
    *(
        Case(f"paired {side}", lambda side=side: PairedTest(4.0, side), _pairs, _plain)
        for side in ("two-sided", "greater", "less")
    ),
    *(
        Case(f"margin {side}", lambda side=side: PairedMargin(-0.02, side), _pairs, _plain)
        for side in ("two-sided", "greater", "less")
    ),
    *(
        Case(
            f"labels {side} {margin}",
            lambda side=side, margin=margin: LabelBetting(0.4, side, margin=margin),
            _split,
            _plain,
        )
        for side in ("two-sided", "greater", "less")
        for margin in (0.0, -0.03, 0.02)
    ),
    Case("betting interval", lambda: BettingInterval(-1.0, 2.0), _values, _plain),
    Case("betting test", lambda: BettingTest(0.3), _values, _plain),
    Case("betting greater", lambda: BettingTest(0.3, "greater"), _values, _plain),
    Case("empirical Bernstein", EmpiricalBernstein, _values, _plain),
    Case("bernoulli", BernoulliInterval, _binary, _plain),
    Case("two proportions", TwoProportions, _split, lambda p, r: p.update(r[0], r[1])),
    Case("split difference", lambda: SplitDifference(0.3), _split, _plain),
    *(
        Case(
            f"rates {side} {ramp}",
            lambda side=side, ramp=ramp: RateTest(1.1, side, ramp=ramp),
            _binary,
            lambda p, r: p.update(r[0], 0.25),
        )
        for side in ("two-sided", "greater", "less")
        for ramp in (False, True)
    ),
    Case("srm", lambda: SplitCheck([0.5, 0.3, 0.2]), _arms, _plain),
]
SUMS = ("betting", "empirical", "split")  # their state holds floating sums of outcomes
each = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
each_exact = pytest.mark.parametrize(
    "case", [c for c in CASES if not c.name.startswith(SUMS)], ids=lambda case: case.name
)


def _numbers(process: Process, *, peak: bool) -> list[float]:
    """Everything an observer can read."""
    out: list[float] = []
    if isinstance(process, EProcess):
        out.append(process.log_e)
        if peak:
            out += [process.peak_log_e, process.p_value]
    for name in ("interval", "difference", "ratio"):
        read = getattr(process, name, None)
        if read is not None and not isinstance(process, PairedTest):
            interval = read()
            out += [interval.lower, interval.upper]
    return out


@each
@settings(max_examples=12)
@given(seed=st.integers(0, 2**32), cuts=st.lists(st.integers(0, 150), max_size=6))
def test_batches_and_single_updates_give_the_same_state(
    case: Case, seed: int, cuts: list[int]
) -> None:
    records = case.draw(np.random.default_rng(seed), 150)
    one_by_one, batched, whole = case.make(), case.make(), case.make()
    for i in range(150):
        case.feed(one_by_one, tuple(column[i] for column in records))
    edges = [0, *sorted(cuts), 150]
    for a, b in itertools.pairwise(edges):
        case.feed(batched, tuple(column[a:b] for column in records))
    case.feed(whole, records)
    # The split check sees a batch of arms as counts, so only its peak depends on the batches.
    peak = not isinstance(whole, SplitCheck)
    expected = _numbers(one_by_one, peak=peak)
    assert _numbers(batched, peak=peak) == pytest.approx(expected, rel=1e-9, abs=1e-9)
    assert _numbers(whole, peak=peak) == pytest.approx(expected, rel=1e-9, abs=1e-9)


@each_exact
def test_label_and_count_states_are_exactly_equal(case: Case) -> None:
    records = case.draw(np.random.default_rng(3), 400)
    one_by_one, whole = case.make(), case.make()
    for i in range(400):
        case.feed(one_by_one, tuple(column[i] for column in records))
    case.feed(whole, records)
    first, second = one_by_one.dump_state(), whole.dump_state()
    first.pop("peak", None), second.pop("peak", None)
    assert first == second


@each
def test_state_survives_json_and_continues(case: Case) -> None:
    rng = np.random.default_rng(11)
    process = case.make()
    case.feed(process, case.draw(rng, 333))
    text = json.dumps(process.dump_state(), allow_nan=False)
    assert len(text) <= 4096
    revived = load(json.loads(text))
    assert type(revived) is type(process)
    assert revived.dump_state() == process.dump_state()
    more = case.draw(rng, 77)
    case.feed(process, more)
    case.feed(revived, more)
    assert revived.dump_state() == process.dump_state()
    assert _numbers(revived, peak=True) == _numbers(process, peak=True)


@each
def test_state_size_does_not_grow_with_n(case: Case) -> None:
    process = case.make()
    rng = np.random.default_rng(5)
    case.feed(process, case.draw(rng, 10))
    before = len(json.dumps(process.dump_state()))
    for _ in range(5):
        case.feed(process, case.draw(rng, 20_000))
    after = len(json.dumps(process.dump_state()))
    assert after <= min(4096, before + 120)  # only digits of counts


@each
@settings(max_examples=5)
@given(seed=st.integers(0, 2**32))
def test_merging_sixteen_replicas_in_any_order(case: Case, seed: int) -> None:
    rng = np.random.default_rng(seed)
    records = case.draw(rng, 800)
    replica = rng.integers(0, 16, size=800)
    parts = []
    for r in range(16):
        part = case.make()
        case.feed(part, tuple(column[replica == r] for column in records))
        parts.append(part)
    merged = []
    for _ in range(2):
        rng.shuffle(parts)
        total = parts[0]
        for part in parts[1:]:
            total = total.merge(part)
        merged.append(total)
    # Associative and commutative, for every rule.
    assert _numbers(merged[0], peak=False) == pytest.approx(
        _numbers(merged[1], peak=False), rel=1e-9, abs=1e-9
    )
    if merged[0].merge_rule is MergeRule.ADDITIVE:
        whole = case.make()
        case.feed(whole, records)
        assert _numbers(merged[0], peak=False) == pytest.approx(
            _numbers(whole, peak=False), abs=1e-9
        )
    if merged[0].merge_rule is MergeRule.PRODUCT and isinstance(merged[0], LabelBetting):
        assert merged[0]._logs == pytest.approx(sum(p._logs for p in parts), abs=1e-9)


@each
def test_merge_does_not_change_its_parts(case: Case) -> None:
    rng = np.random.default_rng(8)
    first, second = case.make(), case.make()
    case.feed(first, case.draw(rng, 100))
    case.feed(second, case.draw(rng, 50))
    states = first.dump_state(), second.dump_state()
    case.feed(first.merge(second), case.draw(rng, 64))
    assert (first.dump_state(), second.dump_state()) == states


@each
def test_intervals_are_unbounded_before_the_first_record(case: Case) -> None:
    process = case.make()
    case.feed(process, tuple(column[:0] for column in case.draw(np.random.default_rng(0), 4)))
    if isinstance(process, EProcess):
        assert process.log_e == pytest.approx(0.0, abs=1e-12)
        assert process.p_value == 1.0
        assert not process.rejects(0.05)
    assert json.dumps(process.dump_state(), allow_nan=False)


@each
def test_a_state_of_another_kind_is_rejected(case: Case) -> None:
    process = case.make()
    state = process.dump_state()
    with pytest.raises(SequentialError, match="kind must be"):
        type(process).from_state(state | {"kind": "other"})
    with pytest.raises(SequentialError, match="version"):
        type(process).from_state(state | {"version": 99})
    with pytest.raises(SequentialError, match="kind must be one of"):
        load({"kind": "no such"})
    for name in state:
        if name not in ("kind", "version"):
            with pytest.raises(SequentialError, match=name):
                type(process).from_state({k: v for k, v in state.items() if k != name})


@each
def test_merging_another_kind_is_rejected(case: Case) -> None:
    stranger = PairedTest(9.0) if case.name != "paired two-sided" else BernoulliInterval()
    with pytest.raises(SequentialError, match="other"):
        case.make().merge(stranger)


@each
@pytest.mark.parametrize("bad", [math.nan, math.inf, "x"])
def test_an_invalid_record_is_rejected_and_changes_nothing(case: Case, bad: Any) -> None:
    _refuse(case, bad)


@each_exact
def test_half_a_record_is_rejected_and_changes_nothing(case: Case) -> None:
    _refuse(case, 0.5)


def _refuse(case: Case, bad: Any) -> None:
    process = case.make()
    records = case.draw(np.random.default_rng(1), 20)
    case.feed(process, records)
    state = process.dump_state()
    column = 1 if len(records) == 3 else 0
    for size in (1, 20):
        wrong = [list(c[:size]) for c in records]
        wrong[column][-1] = bad
        arrays = tuple(np.asarray(w, dtype=object) for w in wrong)
        with pytest.raises(SequentialError):
            case.feed(process, arrays)
    assert process.dump_state() == state


def test_the_service_loads_no_method_that_it_does_not_use() -> None:
    code = (
        "import sys\n"
        "import understudy.shadow.experiment, understudy.shadow.comparison\n"
        "import understudy.monitor.health.watches\n"
        "print(*(m for m in sys.modules if '.sequential.contrib.' in m))\n"
        "from understudy.shadow.sequential import EmpiricalBernstein, load\n"
        "print(EmpiricalBernstein.__module__)\n"
        "print(type(load({'kind': 'msprt', 'version': 0})))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    loaded, module = done.stdout.split("\n")[:2]
    assert loaded == ""
    assert module == "understudy.shadow.sequential.contrib.empirical_bernstein"
    assert "SequentialError: version of 'msprt'" in done.stderr


def test_every_public_name_is_found() -> None:
    assert all(hasattr(sequential, name) for name in sequential.__all__)
    with pytest.raises(AttributeError, match="no_such"):
        sequential.no_such  # noqa: B018
