"""Capped, adjusted and ratio metrics, and those of labels: false alarms, power, and definitions.

Each stream is looked at after every batch. With 100 streams of identical arms and alpha 0.05, more
than 19 that are ever called better (or worse) have probability below 1e-6.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from scipy import stats

from understudy.shadow.experiment import Hypothesis
from understudy.shadow.experiment.batches import Units
from understudy.shadow.experiment.hypothesis import uncapped
from understudy.shadow.experiment.measures import ByUnit, Measure, measure_for

ALPHA = 0.05
STREAMS = 100
MOST = 19
LOOKS, BATCH, SHARE = 20, 250, 0.4
Rng = np.random.Generator
Rows = np.ndarray[Any, np.dtype[np.float64]]
Make = Callable[[Rng, int, float, Rows], tuple[Rows, Rows]]
"""Values of both arms for the same requests, the challenger's improved by a gap; the last argument
is what the requests have in common, uniform."""


def revenue(rng: Rng, n: int, gap: float, shared: Rows) -> tuple[Rows, Rows]:
    """Lognormal with sd 2 of the logarithm: the largest of 1000 is a tenth of the sum."""
    found = [np.minimum(np.exp(2.0 * rng.standard_normal(n)) * s, 20.0) for s in (1.0, 1.0 + gap)]
    return found[0], found[1]


def clicks(rng: Rng, n: int, gap: float, shared: Rows) -> tuple[Rows, Rows]:
    """Views vary, and so does the chance of a click: clicks of a request belong together."""
    views = 1.0 + rng.poisson(8.0 * shared)
    taste = rng.beta(0.5, 1.0, n)
    found = [
        np.stack((rng.binomial(views.astype(int), np.minimum(taste * s, 1.0)), views), axis=1)
        for s in (1.0, 1.0 + gap)
    ]
    return found[0].astype(float), found[1].astype(float)


def precision(rng: Rng, n: int, gap: float, shared: Rows) -> tuple[Rows, Rows]:
    """The challenger predicts twice as many positives; without a gap as precisely."""
    found = []
    for positives, right in ((0.1, 0.6), (0.2, 0.6 + gap)):
        predicted = rng.random(n) < positives
        found.append(np.stack((predicted & (rng.random(n) < right), predicted), axis=1))
    return found[0].astype(float), found[1].astype(float)


def scores(rng: Rng, n: int, gap: float, shared: Rows) -> tuple[Rows, Rows]:
    """A calibrated challenger, and a champion that is noisier and overconfident by the gap."""
    logit = 4.0 * (shared - 0.7)
    label = rng.random(n) < 1.0 / (1.0 + np.exp(-logit))
    blurred = logit * (1.0 + 2.0 * gap) + 4.0 * gap * rng.standard_normal(n)
    noise = 0.3 * rng.standard_normal((2, n))
    found = [1.0 / (1.0 + np.exp(-(x + e))) for x, e in zip((blurred, logit), noise, strict=True)]
    return np.stack((found[0], label), axis=1), np.stack((found[1], label), axis=1)


def brier(rng: Rng, n: int, gap: float, shared: Rows) -> tuple[Rows, Rows]:
    first, second = scores(rng, n, gap, shared)
    return (first[:, 0] - first[:, 1]) ** 2, (second[:, 0] - second[:, 1]) ** 2


def explained(rng: Rng, n: int, gap: float, shared: Rows) -> tuple[Rows, Rows]:
    """A field of the request explains three quarters of the variance; some requests lack it."""
    x = stats.norm.ppf(shared)
    known = np.where(rng.random(n) < 0.1, np.nan, x)
    found = [
        np.stack((x * math.sqrt(3.0) + rng.standard_normal(n) + g, known), axis=1)
        for g in (0.0, gap)
    ]
    return found[0], found[1]


CAPPED = {"metric": "reward", "cap": "20 units"}
CUPED = {"metric": "reward", "covariate": "x"}
RATIO = {"metric": "ratio", "field": "clicks", "per": "views"}
CASES: dict[str, tuple[dict[str, Any], Make, float, bool]] = {
    "capped revenue, split": (CAPPED, revenue, 0.6, False),
    "capped revenue, pairs": (CAPPED, revenue, 0.6, True),
    "ratio, split": (RATIO, clicks, 0.4, False),
    "ratio, pairs": (RATIO, clicks, 0.4, True),
    "precision, split": ({"metric": "precision"}, precision, 0.2, False),
    "precision, pairs": ({"metric": "precision"}, precision, 0.2, True),
    "auc, split": ({"metric": "auc"}, scores, 0.6, False),
    "auc, pairs": ({"metric": "auc"}, scores, 0.6, True),
    "calibration error, split": ({"metric": "calibration_error"}, scores, 0.8, False),
    "calibration error, pairs": ({"metric": "calibration_error"}, scores, 0.8, True),
    "brier, split": ({"metric": "brier"}, brier, 0.6, False),
    "brier, pairs": ({"metric": "brier"}, brier, 0.6, True),
    "adjusted, split": (CUPED, explained, 0.2, False),
    "adjusted, pairs": (CUPED, explained, 0.2, True),
}


def stream(
    spec: dict[str, Any], make: Make, gap: float, paired: bool, rng: Rng, looks: int = LOOKS
) -> tuple[bool, bool, Measure]:
    """Whether the challenger was ever called better, and worse; and the measure."""
    hypothesis = Hypothesis.parse({"role": "success", **spec}, "m", ALPHA)
    measure = measure_for(hypothesis, paired=paired)
    better = worse = False
    for _ in range(looks):
        first, second = make(rng, BATCH, gap, rng.random(BATCH))
        if paired:
            measure.update_pairs(first, second)
        else:
            arms = (rng.random(BATCH) < SHARE).astype(float)
            chosen = arms if first.ndim == 1 else arms[:, None]
            values = np.where(chosen == 1.0, second, first)
            measure.update_split(arms, values, np.full(BATCH, SHARE))
        better |= measure.log_pass >= -math.log(ALPHA)
        worse |= measure.log_harm >= -math.log(ALPHA)
    return better, worse, measure


@pytest.mark.simulation
@pytest.mark.parametrize("case", CASES)
def test_identical_arms_are_rarely_called_better_or_worse(case: str) -> None:
    assert stats.binom.sf(MOST, STREAMS, ALPHA) < 1e-6
    spec, make, _, paired = CASES[case]
    rng = np.random.default_rng(17)
    found = [stream(spec, make, 0.0, paired, rng)[:2] for _ in range(STREAMS)]
    assert sum(better for better, _ in found) <= MOST
    assert sum(worse for _, worse in found) <= MOST


@pytest.mark.simulation
@pytest.mark.parametrize("case", CASES)
def test_an_improvement_is_proven_and_never_called_harm(case: str) -> None:
    """The gaps are so large that each stream proves them; one in ten may fail to."""
    spec, make, gap, paired = CASES[case]
    rng = np.random.default_rng(23)
    found = [stream(spec, make, gap, paired, rng, looks=120)[:2] for _ in range(10)]
    assert sum(better for better, _ in found) >= 9
    assert not any(worse for _, worse in found)


@pytest.mark.simulation
@pytest.mark.parametrize("paired", [False, True])
def test_an_interval_covers_the_ratio(paired: bool) -> None:
    """Of 100 streams, at most 19 intervals may miss the true difference at their last look."""
    rng = np.random.default_rng(5)
    missed = 0
    views = 1.0 + 8.0 * 0.5
    for _ in range(STREAMS):
        measure = stream(RATIO, clicks, 0.0, paired, rng)[2]
        interval = measure.difference(ALPHA)
        missed += not interval.lower <= 0.0 <= interval.upper
    assert missed <= MOST
    champion, challenger = measure.estimates()
    assert champion == pytest.approx(1.0 / 3.0, abs=0.05), views
    assert challenger == pytest.approx(1.0 / 3.0, abs=0.05)


def test_a_covariate_saves_records() -> None:
    """Three quarters of the variance are explained: a quarter of the records, about."""
    rng = np.random.default_rng(3)
    ends: dict[str, list[float]] = {"plain": [], "adjusted": []}
    for _ in range(12):
        for name, spec in (("plain", {"metric": "reward"}), ("adjusted", CUPED)):
            measure = measure_for(
                Hypothesis.parse({"role": "success", **spec}, "m", ALPHA), paired=False
            )
            while measure.log_pass < -math.log(ALPHA):
                first, second = explained(rng, 100, 0.2, rng.random(100))
                arms = (rng.random(100) < 0.5).astype(float)
                rows = np.where(arms[:, None] == 1.0, second, first)
                values = rows if name == "adjusted" else rows[:, 0]
                measure.update_split(arms, values, np.full(100, 0.5))
            ends[name].append(sum(measure.n))
    assert np.median(ends["adjusted"]) < 0.55 * np.median(ends["plain"])
    assert "adjusted for x, which explains 7" in measure.note


def test_the_adjustment_leaves_the_difference_where_it_is() -> None:
    rng = np.random.default_rng(4)
    measure = stream(CUPED, explained, 0.3, False, rng, looks=200)[2]
    interval = measure.difference(ALPHA)
    assert interval.lower < 0.3 < interval.upper
    assert interval.upper - interval.lower < 0.2


def test_totals_of_units_are_capped_per_unit() -> None:
    spec = {"metric": "total_per_unit", "field": "revenue", "cap": "50 units", "role": "success"}
    hypothesis = Hypothesis.parse(spec, "m", ALPHA)
    assert hypothesis.name == "total_per_unit(revenue, capped at 50 units)"
    assert hypothesis.columns == ("field:revenue",), "single values are not capped"
    rng = np.random.default_rng(9)

    def ever(gap: float) -> tuple[bool, Measure]:
        measure = measure_for(hypothesis, paired=False, by_unit=True)
        assert isinstance(measure, ByUnit)
        found = False
        for _ in range(40):
            arms = (rng.random(200) < 0.5).astype(float)
            visits = 1.0 + rng.poisson(3.0, 200)
            sums = visits * np.exp(1.5 * rng.standard_normal(200)) * (1.0 + gap * arms)
            units = Units(arms, np.full(200, 0.5), {"field:revenue": (sums, visits)})
            column = units.column(*hypothesis.columns)
            assert column is not None
            measure.update_at(0, *column)
            found |= measure.log_pass >= -math.log(ALPHA)
        return found, measure

    assert sum(ever(0.0)[0] for _ in range(STREAMS)) <= MOST
    found, measure = ever(0.5)
    assert found
    mean = measure.estimates()[0]
    assert mean is not None
    assert 6.0 < mean < 16.0, "visits times lognormal is 12.3 on average, less with a cap"


def test_a_cap_is_part_of_the_name_and_of_the_column() -> None:
    one = Hypothesis.parse({"metric": "latency_mean", "margin": "10 %", "cap": "2 s"}, "m", ALPHA)
    assert one.name == "latency_mean(capped at 2000 ms)"
    assert one.column == "latency"
    assert uncapped(one.columns[0]) == ("latency", (-math.inf, 2.0))
    both = {"metric": "reward", "margin": "1 units", "cap": ["-5 units", "100 units"]}
    assert Hypothesis.parse(both, "m", ALPHA).name == "reward(capped at -5 units and 100 units)"
    assert uncapped("field:a capped b") == ("field:a capped b", None)


def test_calibration_and_auc_agree_with_their_definitions() -> None:
    rng = np.random.default_rng(2)
    first, second = scores(rng, 250, 0.5, rng.random(250))
    measure = measure_for(
        Hypothesis.parse({"metric": "calibration_error", "margin": "1 pp"}, "m", ALPHA), paired=True
    )
    measure.update_pairs(first, second)
    for rows, found in zip((first, second), measure.estimates(), strict=True):
        band = np.minimum((rows[:, 0] * 10).astype(int), 9)
        gaps = [abs((rows[band == b, 1] - rows[band == b, 0]).sum()) for b in range(10)]
        assert found == pytest.approx(sum(gaps) / 250)
    auc = measure_for(
        Hypothesis.parse({"metric": "auc", "margin": "1 pp"}, "m", ALPHA), paired=True
    )
    rows = np.stack(
        (np.repeat((0.1, 0.4, 0.4, 0.8), 5), np.repeat((0.0, 0.0, 1.0, 1.0), 5)), axis=1
    )
    auc.update_pairs(rows, rows)
    assert auc.estimates()[0] == pytest.approx((10 * 10 - 0.5 * 5 * 5) / 100)
