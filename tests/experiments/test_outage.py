"""A challenger that answers nothing any more, while the champion does."""

from __future__ import annotations

import numpy as np

from understudy.monitor.experiments.outage import LEAST, Outage
from understudy.shadow.experiment.fates import ANSWERED, DIVERTED, FAILED, OVERLOAD


def fed(*rows: tuple[int, int, float], batch: int = 7) -> Outage:
    """After rows of side (1: challenger), fate and start, in batches."""
    outage = Outage(30.0)
    for begin in range(0, len(rows), batch):
        sides, fates, started = zip(*rows[begin : begin + batch], strict=True)
        outage.add(np.array(sides) > 0, np.array(fates), np.array(started, float))
    return outage


def rows(fate: int, begin: float, seconds: float, champion: int = ANSWERED) -> list:  # type: ignore[type-arg]
    """Two requests per second for each arm."""
    times = begin + np.arange(0.0, seconds, 0.5)
    return [row for t in times.tolist() for row in ((1, fate, t), (0, champion, t + 0.1))]


def test_it_is_down_once_nothing_was_answered_for_long_enough() -> None:
    good = rows(ANSWERED, 0.0, 10.0)
    assert not fed(*good, *rows(DIVERTED, 10.0, 30.0)).describe("c")
    text = fed(*good, *rows(FAILED, 10.0, 5.0), *rows(DIVERTED, 15.0, 26.0)).describe("c")
    assert text == (
        "c is down: none of its last 62 requests was answered, for 30 s, while the champion answered"
    )


def test_one_answer_ends_it() -> None:
    dead = rows(DIVERTED, 0.0, 40.0)
    assert fed(*dead).describe("c")
    assert not fed(*dead, (1, ANSWERED, 41.0)).describe("c")
    assert not fed(*dead, (1, ANSWERED, 41.0), *rows(DIVERTED, 42.0, 20.0)).describe("c")


def test_an_outage_of_both_arms_is_not_the_challengers() -> None:
    assert not fed(*rows(FAILED, 0.0, 60.0, champion=FAILED)).describe("c")


def test_few_requests_and_our_own_limits_say_nothing() -> None:
    few = [(1, FAILED, float(t)) for t in range(0, 2 * LEAST - 2, 2)]
    assert not fed(*few, (0, ANSWERED, 39.0)).describe("c")
    assert not fed(*rows(OVERLOAD, 0.0, 60.0)).describe("c")


def test_the_state_survives() -> None:
    outage = fed(*rows(DIVERTED, 0.0, 20.0))
    copy = Outage(30.0)
    copy.load_state(outage.dump_state())
    later = rows(DIVERTED, 20.0, 15.0)
    copy.add(*(np.array(c) for c in zip(*((s > 0, f, t) for s, f, t in later), strict=True)))
    assert "70 requests" in copy.describe("c")
