"""Evidence by unit of assignment: bounded means without a gate, ages and weights averaged."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest

from understudy.shadow.experiment import Hypothesis
from understudy.shadow.experiment.cutoffs import CUTOFFS
from understudy.shadow.experiment.measures import ByUnit, measure_for

RATE = {"metric": "error_rate", "role": "success", "base_rate": 0.1}


def by_unit(spec: dict[str, object]) -> ByUnit:
    measure = measure_for(Hypothesis.parse(spec, "m", 0.05), paired=False, by_unit=True)
    assert isinstance(measure, ByUnit)
    return measure


def feed(
    measure: ByUnit,
    rng: np.random.Generator,
    n: int,
    rates: tuple[float, float] = (0.1, 0.1),
    share: float = 0.5,
    cutoff: int = 0,
) -> None:
    arms = (rng.random(n) < share).astype(np.float64)
    requests = rng.integers(1, 40, n)
    own = rng.beta(0.5, 0.5 / 0.1 - 0.5, n)  # each unit has a rate of its own, 0.1 in the mean
    rate = own * np.where(arms == 1, rates[1], rates[0]) / 0.1
    sums = rng.binomial(requests, np.minimum(rate, 1.0)).astype(np.float64)
    measure.update_at(cutoff, arms, sums, requests.astype(np.float64), np.full(n, share))


@pytest.mark.simulation
@pytest.mark.parametrize(
    "spec",
    [
        RATE,
        {**RATE, "role": "guardrail", "margin": "2 pp"},
        {**RATE, "role": "guardrail", "margin": "20 %"},
    ],
)
@pytest.mark.parametrize("share", [0.5, 0.1])
def test_equal_units_rarely_differ(spec: dict[str, object], share: float) -> None:
    """A look after every 20 units: of 300 runs at most 15 + 5 standard errors are wrong."""
    wrong = 0
    for seed in range(300):
        rng = np.random.default_rng(seed)
        measure = by_unit(spec)
        peak = 0.0
        for _ in range(15):
            feed(measure, rng, 20, share=share)
            peak = max(peak, measure.log_harm)
        wrong += peak >= math.log(20.0)
    assert wrong <= 15 + 5 * (300 * 0.05 * 0.95) ** 0.5


def test_a_clear_difference_of_few_units_is_found() -> None:
    """The asymptotic comparison needs hundreds of units before it says anything."""
    measure = by_unit({**RATE, "role": "guardrail", "margin": "2 pp"})
    feed(measure, np.random.default_rng(1), 200, (0.02, 0.5))
    assert measure.log_harm > math.log(20.0)
    assert measure.note == "units 1 minute after their first request"
    champion, challenger = measure.estimates()
    assert champion == pytest.approx(0.02, abs=0.03)
    assert challenger is not None
    assert champion is not None
    interval = measure.difference(0.05)
    assert 0.02 < interval.lower < challenger - champion < interval.upper


def test_ages_and_weights_are_averaged_and_not_multiplied() -> None:
    """The same units, seen again at every age and under three weights, are evidence once."""
    once, again = by_unit(RATE), by_unit(RATE)
    feed(once, np.random.default_rng(3), 400, (0.1, 0.02))
    for epoch in range(3):
        if epoch:
            again.begin_epoch()
        for cutoff in range(len(CUTOFFS)):
            feed(again, np.random.default_rng(3), 400, (0.1, 0.02), cutoff=cutoff)
    part = once.parts[0].log_pass
    assert part > 5.0
    assert once.log_pass < part
    assert again.log_pass < part + 1e-9
    assert again.epoch == 3


def test_without_units_there_is_no_evidence() -> None:
    measure = by_unit(RATE)
    for _ in range(4):
        assert measure.log_pass == pytest.approx(0.0, abs=1e-12)
        assert measure.log_harm == pytest.approx(0.0, abs=1e-12)
        assert not math.isfinite(measure.difference(0.05).upper)
        measure.begin_epoch()


def test_state_and_merge() -> None:
    for spec in (RATE, {"metric": "latency_mean", "margin": "10 %"}):
        measure, other = by_unit(spec), by_unit(spec)
        feed(measure, np.random.default_rng(4), 100)
        measure.begin_epoch()
        feed(measure, np.random.default_rng(5), 100, cutoff=2)
        feed(measure, np.random.default_rng(5), 120)
        other.load_state(json.loads(json.dumps(measure.dump_state())))
        assert other.log_pass == measure.log_pass
        assert other.dump_state() == measure.dump_state()
        both = measure.merge(other)
        assert both.n == [2 * n for n in measure.n]
        with pytest.raises(ValueError, match="weights"):
            measure.merge(by_unit(spec))
