"""Assignments are counted when they are drawn: how long an arm takes to answer changes nothing."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from understudy.monitor.records.record import OPEN_AFTER_NS
from understudy.monitor.routing.assignments import SETTLED_SECONDS, Assignments
from understudy.shadow.experiment.split import ALPHA_SPLIT, Unanswered, honoured
from understudy.shadow.sequential import SplitCheck

FIRST = OPEN_AFTER_NS * 1e-9
Delay = Callable[[int, float, np.random.Generator], float]
Event = tuple[float, int, float, float, bool, bytes]
"""(time, arm, started, seconds, unfinished, id)"""


def events(
    rate: float, until: float, share: float, delay: Delay, seed: int, dies: float = np.inf
) -> Iterator[Event]:
    """What a worker hands over, in order; one that dies at ``dies`` sends nothing after that about
    the requests it had."""
    rng = np.random.default_rng(seed)
    at, number = 0.0, 0
    queue: list[Event] = []
    while at < until:
        at += float(rng.exponential(1.0 / rate))
        number += 1
        arm = int(rng.random() < share)
        seconds = delay(arm, at, rng)
        ended = at + seconds
        last = dies if at < dies <= ended else np.inf
        age = FIRST
        while age < min(seconds, until):
            if at + age < last:
                heapq.heappush(queue, (at + age, arm, at, age, True, b"%d" % number))
            age *= 2.0
        if ended < last:
            heapq.heappush(queue, (ended, arm, at, seconds, False, b"%d" % number))
        while queue and queue[0][0] <= min(at, until):
            yield heapq.heappop(queue)


def take(counted: Assignments, batch: list[Event]) -> None:
    _, arms, started, seconds, unfinished, ids = zip(*batch, strict=True)
    counted.add(
        np.array(arms, np.int16),
        np.array(started),
        np.array(seconds),
        np.array(unfinished),
        list(ids),
    )


def run(
    rate: float, until: float, share: float, delay: Delay, seed: int
) -> tuple[Assignments, SplitCheck, bool]:
    """Feeds everything in batches of half a second; True when the split ever seemed broken."""
    counted, check, broken = Assignments(2), SplitCheck([1.0 - share, share]), False
    batch: list[Event] = []
    for event in events(rate, until, share, delay, seed):
        if batch and event[0] - batch[0][0] > 0.5:
            take(counted, batch)
            check.update_counts(counted.settled())
            broken |= not honoured(check)
            batch = []
        batch.append(event)
    take(counted, batch)
    return counted, check, broken


def quick(rng: np.random.Generator) -> float:
    return 0.02 * float(rng.lognormal(0.0, 0.3))


def cold(seconds: float) -> Delay:
    """The challenger answers nothing before ``seconds``, then everything at once."""
    return lambda arm, at, rng: quick(rng) + (max(0.0, seconds - at) if arm else 0.0)


def stalled(begin: float, seconds: float) -> Delay:
    """The champion answers nothing for a while."""

    def delay(arm: int, at: float, rng: np.random.Generator) -> float:
        waits = max(0.0, begin + seconds - at) if at >= begin and not arm else 0.0
        return quick(rng) + waits

    return delay


@pytest.mark.parametrize("share", [0.01, 0.05, 0.25, 0.5])
@pytest.mark.parametrize("seconds", [1.0, 3.0, 10.0])
def test_a_cold_start_is_not_a_broken_split(share: float, seconds: float) -> None:
    for seed in range(2):
        _, check, broken = run(200.0, 30.0, share, cold(seconds), seed)
        assert not broken
        assert sum(check.counts) > 4_500


@pytest.mark.parametrize("rate", [50.0, 200.0])
def test_a_stall_of_eight_seconds_is_not_a_broken_split(rate: float) -> None:
    for seed in range(3):
        _, _, broken = run(rate, 90.0, 0.5, stalled(60.0, 8.0), seed)
        assert not broken


def test_a_slower_and_slower_arm_is_not_a_broken_split() -> None:
    def delay(arm: int, at: float, rng: np.random.Generator) -> float:
        return 0.02 if arm else 0.02 + 0.4 * at

    assert not run(200.0, 100.0, 0.5, delay, 1)[2]


def test_a_broken_split_is_found_whether_or_not_requests_finish() -> None:
    """A tenth of the challenger's requests is never assigned to it."""
    for delay in (cold(0.0), cold(1e9)):
        counted, check = Assignments(2), SplitCheck([0.5, 0.5])
        rng = np.random.default_rng(3)
        kept = [e for e in events(200.0, 120.0, 0.5, delay, 3) if not e[1] or rng.random() < 0.9]
        if delay(1, 0.0, rng) > 1.0:
            # The same request is kept or left out as a whole.
            lost = {e[5] for e in kept if e[1] and int(e[5]) % 10 == 0}
            kept = [e for e in kept if e[5] not in lost]
        take(counted, kept)
        check.update_counts(counted.settled())
        assert not honoured(check)


def test_a_request_counts_once_however_often_it_is_reported() -> None:
    counted = Assignments(2)
    take(counted, [(1.0, 0, 0.0, 1.0, True, b"a"), (2.0, 0, 0.0, 2.0, True, b"a")])
    assert counted.unfinished() == [1, 0]
    take(counted, [(3.0, 0, 0.0, 3.0, False, b"a"), (3.0, 1, 2.9, 0.1, False, b"b")])
    assert counted.unfinished() == [0, 0]
    # A client used the id again: another start is another request.
    take(counted, [(20.0, 1, 5.0, 15.0, False, b"a"), (30.0, 0, 29.9, 0.1, False, b"c")])
    assert counted.settled() == [1, 2]
    assert counted.settled() == [0, 0]


def test_only_requests_whose_start_is_settled_count() -> None:
    counted = Assignments(2)
    take(counted, [(10.0, 0, 9.9, 0.1, False, b"a")])
    assert counted.settled() == [0, 0]
    at = 10.1 + SETTLED_SECONDS
    take(counted, [(at, 1, at - 0.01, 0.01, False, b"b")])
    assert counted.settled() == [1, 0]


def test_a_full_table_counts_requests_when_they_finish() -> None:
    counted = Assignments(2, limit=2)
    take(counted, [(1.0, 0, 0.0, 1.0, True, b"%d" % n) for n in range(5)])
    assert counted.unfinished() == [2, 0]
    assert counted.not_tracked == 3
    take(counted, [(2.0, 0, 0.0, 2.0, False, b"%d" % n) for n in range(5)])
    take(counted, [(60.0, 1, 59.0, 1.0, False, b"late")])
    assert counted.settled() == [5, 0]


def test_requests_of_a_dead_worker_are_lost_and_not_missing() -> None:
    counted = Assignments(2)
    batch = [*events(100.0, 60.0, 0.5, lambda arm, at, rng: 30.0 if arm else 0.02, 5, dies=20.0)]
    take(counted, [e for e in batch if e[0] <= 22.0])
    assert sum(counted.lost()) == 0
    before = counted.unfinished()
    assert before[1] > 800
    assert before[0] == 0
    take(counted, batch)
    lost = counted.lost()
    assert lost[1] > 800
    assert lost[0] == 0
    reported = {e[5] for e in batch if e[4] and e[2] > 20.0}
    assert counted.unfinished() == [0, len(reported - {e[5] for e in batch if not e[4]})]


def test_state_survives_and_is_bounded() -> None:
    counted, _, _ = run(200.0, 10.0, 0.5, cold(1e9), 2)
    again = Assignments(2)
    again.load_state(counted.dump_state())
    assert again.unfinished() == counted.unfinished()
    assert again.dump_state() == counted.dump_state()
    small = Assignments(2, limit=3)
    with pytest.raises(ValueError, match="3 requests"):
        small.load_state(counted.dump_state())


def test_missing_answers_are_told_from_chance() -> None:
    alike = Unanswered((212, 198), (0.5, 0.5), 10.0)
    assert not alike.differs(1)
    one_arm = Unanswered((212, 3), (0.5, 0.5), 10.0)
    assert one_arm.differs(1)
    assert one_arm.describe(("the champion", "b")) == (
        "requests that have no answer yet after 10 s: 212 of the champion, 3 of b"
    )
    assert not Unanswered((2, 0), (0.5, 0.5), 10.0).differs(1)
    # By the shares: nine of ten missing are the champion's.
    assert not Unanswered((900, 103), (0.9, 0.1), 10.0).differs(1)
    assert Unanswered((900, 300), (0.9, 0.1), 10.0).differs(1)
    assert not Unanswered((500, 0), (1.0, 0.0), 10.0).differs(1)


def test_alike_missing_answers_rarely_differ() -> None:
    """Simulated: the check is at its level at any one moment."""
    rng = np.random.default_rng(8)
    draws = rng.binomial(400, 0.3, 20_000)
    values, counts = np.unique(draws, return_counts=True)
    wrong = sum(
        int(count)
        for value, count in zip(values.tolist(), counts.tolist(), strict=True)
        if Unanswered((400 - value, value), (0.7, 0.3), 10.0).differs(1)
    )
    assert wrong <= 20_000 * ALPHA_SPLIT + 5 * (20_000 * ALPHA_SPLIT) ** 0.5
