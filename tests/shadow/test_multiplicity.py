"""Closed procedures against brute force over all subsets."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from understudy.shadow.sequential import (
    SequentialError,
    average,
    closed_e_bh,
    e_bh,
    familywise,
    required,
)

log_es = st.lists(st.floats(-6.0, 9.0), min_size=1, max_size=7)


def _subsets(k: int) -> list[list[int]]:
    return [list(s) for r in range(1, k + 1) for s in itertools.combinations(range(k), r)]


@settings(max_examples=60)
@given(log_es, st.data())
def test_familywise_is_the_worst_mean_over_sets(values: list[float], data: st.DataObject) -> None:
    k = len(values)
    weights = data.draw(
        st.none() | st.lists(st.floats(0.1, 5.0), min_size=k, max_size=k), label="weights"
    )
    w, e = np.array(weights or [1.0] * k), np.exp(values)
    worst = [min(float(w[s] @ e[s] / w[s].sum()) for s in _subsets(k) if j in s) for j in range(k)]
    assert np.exp(familywise(values, weights)) == pytest.approx(worst, rel=1e-9)


@settings(max_examples=60)
@given(log_es, st.sampled_from([0.001, 0.05, 0.5]), st.data())
def test_required_is_where_the_closed_procedure_rejects(
    values: list[float], alpha: float, data: st.DataObject
) -> None:
    k, goal = len(values), -math.log(alpha)
    weights = data.draw(
        st.none() | st.lists(st.floats(0.1, 5.0), min_size=k, max_size=k), label="weights"
    )
    for j, needed in enumerate(required(values, goal, weights)):
        for shift, rejected in ((1e-6, True), (-1e-6, False)):
            shifted = [*values[:j], needed + shift, *values[j + 1 :]]
            assert (familywise(shifted, weights)[j] >= goal) == rejected


def test_required_lies_between_the_level_and_that_of_bonferroni() -> None:
    goal = math.log(20.0)
    assert required([2.5], goal).tolist() == [goal]
    assert np.exp(required([-800.0, -800.0, -800.0, -800.0], goal)) == pytest.approx([80.0] * 4)
    assert np.exp(required([-800.0, 50.0], goal)) == pytest.approx([20.0, 40.0])
    shares = [0.5, 1.5]
    assert np.exp(required([-800.0, -800.0], goal, shares)) == pytest.approx([80.0, 80.0 / 3])
    assert required([], goal).tolist() == []


@settings(max_examples=60)
@given(log_es, st.sampled_from([0.05, 0.2, 0.5]))
def test_closed_e_bh_rejects_the_largest_admissible_set(values: list[float], alpha: float) -> None:
    e, k = np.exp(values), len(values)
    sets = _subsets(k)

    def admissible(r: tuple[int, ...]) -> bool:
        return all(
            e[s].mean() >= len(set(r) & set(s)) / (alpha * len(r)) * (1 - 1e-12) for s in sets
        )

    largest = max(
        (
            len(r)
            for n in range(k, 0, -1)
            for r in itertools.combinations(range(k), n)
            if admissible(r)
        ),
        default=0,
    )
    rejected = closed_e_bh(values, alpha)
    assert len(rejected) == largest
    assert not rejected or admissible(tuple(rejected))
    assert set(e_bh(values, alpha)) <= set(rejected)


def test_closed_e_bh_beats_the_base_procedure() -> None:
    # e-BH asks 2/.05 = 40 of the best; closure asks 20 of it and of the mean of both.
    values = np.log([39.0, 5.0])
    assert e_bh(values, 0.05) == []
    assert closed_e_bh(values, 0.05) == [0]


def test_strong_evidence_does_not_overflow() -> None:
    adjusted = familywise([5000.0, 0.0, -5000.0, -math.inf])
    assert adjusted[0] == pytest.approx(5000.0 - math.log(4.0))
    assert adjusted[3] == -math.inf
    assert np.isfinite(adjusted[:3]).all()
    assert closed_e_bh([5000.0, -5000.0], 0.05) == [0]
    assert average([1000.0, 1000.0]) == pytest.approx(1000.0)
    assert average([0.0, math.log(3.0)], [3.0, 1.0]) == pytest.approx(math.log(1.5))


def test_one_hypothesis_is_its_own_family() -> None:
    assert familywise([2.5]).tolist() == [2.5]
    assert familywise([]).tolist() == []
    assert closed_e_bh([], 0.1) == e_bh([], 0.1) == []
    assert closed_e_bh([math.log(10.0)], 0.1) == [0]


def test_a_hundred_hypotheses() -> None:
    rng = np.random.default_rng(0)
    values = np.concatenate((rng.normal(6, 1, 40), rng.normal(-1, 1, 60)))
    rejected = closed_e_bh(values, 0.05)
    assert set(rejected) >= set(e_bh(values, 0.05))
    assert len(rejected) >= 35
    assert (familywise(values) <= values + 1e-12).all()


def test_false_discoveries_stay_below_alpha_whatever_the_dependence() -> None:
    # e-values sharing one heavy-tailed factor: E = exp(N - 1/2), 5 true nulls of 8.
    rng = np.random.default_rng(1)
    alpha, repeats, share = 0.2, 3000, []
    for _ in range(repeats):
        common = rng.normal()
        null = np.exp(1.5 * common - 1.125) * np.ones(5)
        values = np.log(np.concatenate((null, np.exp(rng.normal(4, 1, 3)))))
        rejected = closed_e_bh(values, alpha)
        share.append(sum(i < 5 for i in rejected) / max(1, len(rejected)))
    # Hoeffding: a true rate of alpha exceeds this with probability below 1e-6.
    assert np.mean(share) <= alpha + math.sqrt(math.log(1e6) / (2 * repeats))


@pytest.mark.parametrize(
    ("make", "name"),
    [
        (lambda: familywise([math.nan]), "log_es"),
        (lambda: familywise([math.inf]), "log_es"),
        (lambda: familywise([[1.0]]), "log_es"),
        (lambda: familywise([1.0, 2.0], [1.0]), "weights"),
        (lambda: familywise([1.0], [0.0]), "weights"),
        (lambda: average([]), "log_es"),
        (lambda: closed_e_bh([1.0], 1.0), "alpha"),
        (lambda: closed_e_bh([1.0] * 401, 0.1), "log_es"),
    ],
)
def test_errors_name_the_argument(make: object, name: str) -> None:
    with pytest.raises(SequentialError, match=rf"^{name} "):
        make()  # type: ignore[operator]
