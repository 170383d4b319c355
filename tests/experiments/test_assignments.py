"""An arm that is slower is not one that was given less."""

from __future__ import annotations

import random

from understudy.monitor.routing.assignments import Assignments


def test_a_slow_arm_is_counted_with_requests_that_started_with_it() -> None:
    chance = random.Random(1)
    requests = []
    for number in range(20_000):
        started = number * 0.005
        arm = int(chance.random() < 0.5)
        # The champion is overloaded: each of its requests waits longer than the one before.
        requests.append((started + (0.02 if arm else 0.02 + started * 0.4), arm, started))
    seen, given = [0, 0], [0, 0]
    counted = Assignments(2)
    for number, (ended, arm, started) in enumerate(sorted(requests)):
        if ended > 100.0:
            break
        seen[arm] += 1
        counted.add(arm, started, ended - started)
        if number % 50 == 0:
            given = [a + b for a, b in zip(given, counted.settled(), strict=True)]
            # Seven standard errors.
            total = sum(given)
            assert abs(given[0] - total / 2) <= 3.5 * total**0.5
    assert sum(given) > 5000
    assert seen[0] < 0.45 * sum(seen), "counted when they end, it would look like a broken split"


def test_every_request_counts_once_and_epochs_are_separate() -> None:
    counted = Assignments(3)
    for number in range(100):
        counted.add(number % 3, number * 1.0, 0.5)
    first = counted.settled()
    assert sum(first) == 99, "the last one may have company"
    assert counted.settled() == [0, 0, 0]
    counted.clear()
    counted.add(1, 1000.0, 0.1)
    assert counted.settled() == [0, 0, 0]
