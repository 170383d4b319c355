"""Evidence where some values are only known to lie in an interval: three copies of one measure."""

from __future__ import annotations

import json
import math
from typing import Any

import numpy as np
import pytest

from understudy.shadow.experiment import Hypothesis, Pairs, Split
from understudy.shadow.experiment.fates import UNBOUNDED
from understudy.shadow.experiment.measures import BoundedMeasure, bounded_measure_for
from understudy.shadow.state import FieldError

Floats = np.ndarray[Any, np.dtype[np.float64]]
ERRORS = {"metric": "error_rate", "margin": "1 pp"}
OUTPUT = {"metric": "prediction", "field": "p", "margin": "0.1 units"}
N = 2000


def measure(spec: dict[str, Any] = ERRORS, *, paired: bool = False) -> BoundedMeasure:
    return bounded_measure_for(Hypothesis.parse(spec, "m", 0.05), paired=paired)


def arms() -> Floats:
    return (np.random.default_rng(1).random(N) < 0.5).astype(np.float64)


def split(
    values: Floats, unknown: Floats, skipped: Any = None, *, column: str = "error", ends: Any = None
) -> Split:
    """Values of both arms; those that are ``unknown`` lie between the ends (0 and 1)."""
    least, most = ends or (0.0, 1.0)
    return Split(
        arms(),
        np.full(N, 0.5),
        {column: np.where(unknown, np.nan, values)},
        low={column: np.where(unknown, least, values)},
        high={column: np.where(unknown, most, values)},
        skipped=skipped,
    )


def pairs(champion: Floats, challenger: Floats, unknown: Floats, skipped: Any = None) -> Pairs:
    return Pairs(
        {"error": (champion, np.where(unknown, np.nan, challenger))},
        N,
        {"error": (champion, np.where(unknown, 0.0, challenger))},
        {"error": (champion, np.where(unknown, 1.0, challenger))},
        skipped=skipped,
    )


def rare(seed: int, rate: float = 0.02) -> Floats:
    return (np.random.default_rng(seed).random(N) < rate).astype(np.float64)


def test_evidence_is_that_of_the_worst_values_for_a_claim_and_of_the_best_for_harm() -> None:
    unknown = rare(3, 0.05) * arms()
    found = measure()
    found.update_split(split(rare(2), unknown))
    for value, log_e in ((1.0, found.log_pass), (0.0, found.log_harm)):
        as_if = measure()
        as_if.update_split(split(np.where(unknown, value, rare(2)), np.zeros(N)))
        assert log_e == (as_if.log_pass if value else as_if.log_harm)
        own = as_if.difference(0.05)
        shown = found.difference(0.05)
        assert shown.lower <= own.lower < own.upper <= shown.upper
    assert found.unknown == [0, int(unknown.sum())]


def test_a_state_without_unknown_values_replaces_one_with_them() -> None:
    clean, dirty = measure(), measure()
    clean.update_split(split(rare(2), np.zeros(N)))
    dirty.update_split(split(rare(2), rare(3, 0.05)))
    state = json.loads(json.dumps(clean.dump_state()))
    assert state["worst"] is None
    dirty.load_state(state)
    assert dirty.worst is None
    assert dirty.best is None
    assert (dirty.log_pass, dirty.log_harm) == (clean.log_pass, clean.log_harm)
    assert dirty.difference(0.05) == clean.difference(0.05)
    assert dirty.dump_state() == clean.dump_state()


def test_a_state_with_unknown_values_replaces_one_without() -> None:
    clean, dirty = measure(), measure()
    dirty.update_split(split(rare(2), rare(3, 0.05)))
    clean.load_state(json.loads(json.dumps(dirty.dump_state())))
    assert (clean.log_pass, clean.log_harm) == (dirty.log_pass, dirty.log_harm)
    assert clean.unknown == dirty.unknown


@pytest.mark.parametrize("lost", ["worst", "best"])
def test_a_state_with_one_end_only_is_refused(lost: str) -> None:
    one = measure()
    one.update_split(split(rare(2), rare(3, 0.05)))
    state = {**one.dump_state(), lost: None}
    with pytest.raises(FieldError):
        measure().load_state(state)


# While a breaker is open ----------------------------------------------------------------------


def breaker() -> tuple[Floats, Any]:
    """Requests 500 to 1,500, of which one in ten reached the challenger; those were errors."""
    inside = (np.arange(N) >= 500) & (np.arange(N) < 1500)
    return np.where(inside, 1.0, 0.0), inside & (np.arange(N) % 10 > 0)


@pytest.mark.parametrize("paired", [True, False])
def test_harm_is_judged_by_the_sample_and_a_claim_by_all(paired: bool) -> None:
    inside, skipped = breaker()
    found, of_sample, as_worst = (measure(paired=paired) for _ in range(3))
    champion = rare(2)
    if paired:
        failed = np.where(inside, 1.0, champion)
        found.update_pairs(pairs(champion, failed, skipped, skipped))
        here = ~skipped
        of_sample.update_pairs(Pairs({"error": (champion[here], failed[here])}))
        as_worst.update_pairs(Pairs({"error": (champion, np.where(skipped, 1.0, failed))}))
        missing = int(skipped.sum())
    else:
        theirs = arms() == 1.0
        values = np.where(theirs & (inside > 0.0), 1.0, champion)
        unknown = (skipped & theirs).astype(np.float64)
        found.update_split(split(values, unknown, skipped))
        here = ~skipped
        of_sample.update_split(Split(arms()[here], np.full(N, 0.5)[here], {"error": values[here]}))
        as_worst.update_split(
            Split(arms(), np.full(N, 0.5), {"error": np.where(unknown > 0.0, 1.0, values)})
        )
        missing = int(unknown.sum())
    assert found.log_harm == of_sample.log_harm
    assert found.log_pass == as_worst.log_pass
    assert found.unknown == [0, missing], "each value counts once"
    shown = found.difference(0.05)
    for part in (of_sample, as_worst):
        assert shown.lower <= part.difference(0.05).lower
        assert shown.upper >= part.difference(0.05).upper


def test_without_a_sample_there_is_no_evidence_of_harm() -> None:
    """Every request of the challenger was skipped, so that nothing shows what it would have done."""
    found = measure()
    everything = np.ones(N, np.bool_)
    found.update_split(split(rare(2), arms(), everything))
    assert found.log_harm <= 0.0
    assert found.log_pass <= 0.0


def test_a_sample_holds_no_value_that_may_be_anything() -> None:
    """An answer of an open breaker that could not be read, of an output without bounds."""
    inside, skipped = breaker()
    values = np.random.default_rng(4).normal(0.5, 0.1, N)
    unread = (inside > 0.0) & (arms() == 1.0)
    found = measure(OUTPUT)
    ends = (-UNBOUNDED, UNBOUNDED)
    found.update_split(split(values, unread.astype(float), skipped, column="field:p", ends=ends))
    for part in (found.worst, found.best):
        if part is not None:
            for estimate in part.estimates():
                assert estimate is not None
                assert abs(estimate) < 10.0


def test_the_parts_of_pairs_and_split_that_were_skipped_are_left_out_of_samples() -> None:
    _, skipped = breaker()
    one = split(rare(2), rare(3, 0.05), skipped)
    both = pairs(rare(2), rare(4), rare(3, 0.05), skipped)
    for batch in (one, both):
        ends, sample = batch.ends("error"), batch.ends("error", sampled=True)
        assert ends is not None
        assert sample is not None
        for whole, fair in zip(ends, sample, strict=True):
            for column, kept in zip(whole, fair, strict=True):
                np.testing.assert_array_equal(column[~skipped], kept)
    unmarked = split(rare(2), rare(3, 0.05))
    plain, fair_too = unmarked.ends("error"), unmarked.ends("error", sampled=True)
    assert plain is not None
    assert fair_too is not None
    np.testing.assert_array_equal(plain[0][1], fair_too[0][1])
    assert one.ends("latency") is None, "all values are known"
    assert one.ends("error", "latency") is None, "a column is not there"


# Intervals ------------------------------------------------------------------------------------


def clustered(seed: int) -> tuple[BoundedMeasure, Floats]:
    """Failures of one arm in groups of three: less than what blocks call dependent."""
    rng = np.random.default_rng(seed)
    starts = rng.random(N) < 0.007
    values = np.convolve(starts, np.ones(3))[:N].clip(0.0, 1.0) * arms()
    values = np.maximum(values, rare(seed + 100, 0.004))
    found = measure()
    found.update_split(split(values, np.zeros(N)))
    return found, values


def test_an_interval_is_as_wide_as_the_evidence_is_discounted() -> None:
    """Evidence that may be of dependent requests is divided by V; the interval excludes no more."""
    discounted = 0
    for seed in range(40):
        found, _ = clustered(seed)
        judged = [j for side in (0, 1) for _, j in found.observed.judged(side)]
        plain = found.observed.difference(0.05)
        shown = found.difference(0.05)
        v = max(j.discount for j in judged)
        if found.observed.dependent or v == 1.0:
            continue
        discounted += 1
        wider = (shown.upper - shown.lower) / (plain.upper - plain.lower)
        assert wider > 1.0
        assert wider == pytest.approx(math.sqrt(v), rel=0.25)
    assert discounted >= 3


# Values outside the bounds ----------------------------------------------------------------------

SCORE = {"metric": "prediction", "field": "p", "margin": "0.02 units", "bounds": [0, 1]}


@pytest.mark.parametrize("paired", [True, False])
@pytest.mark.parametrize("broken", [1e9, -3.0])
def test_values_outside_the_bounds_do_not_leave_the_evidence(paired: bool, broken: float) -> None:
    """One answer in twenty of the challenger's is no score at all; the others are alike."""
    rng = np.random.default_rng(6)
    good = rng.random(40_000)
    bad = rng.random(good.size) < 0.05
    found = measure(SCORE, paired=paired)
    if paired:
        found.update_pairs(Pairs({"field:p": (good, np.where(bad, broken, good))}))
    else:
        side = (rng.random(good.size) < 0.5).astype(float)
        bad &= side == 1.0
        values = np.where(bad, broken, good)
        found.update_split(Split(side, np.full(good.size, 0.5), {"field:p": values}))
    assert found.outside == found.unknown[1] == int(bad.sum())
    assert found.incomplete
    assert found.log_pass < math.log(20.0), "they may all be 0"
    assert found.log_harm < math.log(20.0), "or 1"
    shown = found.difference(0.05)
    assert shown.lower <= -0.02 < 0.0 < shown.upper
    again = measure(SCORE, paired=paired)
    again.load_state(json.loads(json.dumps(found.dump_state())))
    assert again.merge(measure(SCORE, paired=paired)).outside == found.outside
