"""The test of an arm's objectives: how often it is wrong, and how soon it is right."""

from __future__ import annotations

import json
import math

import numpy as np
import pytest
from numpy.typing import NDArray

from understudy.monitor.config.objective import Objective
from understudy.monitor.health.objectives.arm import (
    BLOCK,
    FEWEST,
    WINDOW,
    ArmObjectives,
    is_tested,
)

P99 = Objective.parse("latency_p99", "<= 50ms")
ERRORS = Objective.parse("error_rate", "<= 1 %")
MEAN = Objective.parse("latency_mean", "<= 20ms")
RUN_LENGTH = 1_000_000.0
"""The default of ``monitoring.run_length``."""
Floats = NDArray[np.float64]


class Traffic:
    """Requests of one arm, in blocks of ten seconds."""

    def __init__(self, objectives: list[Objective], run_length: float, seed: int = 0) -> None:
        self.arm = ArmObjectives(objectives, run_length)
        self.random = np.random.default_rng(seed)
        self.now = 1000.0

    def send(self, slow: Floats, failed: Floats | None = None) -> None:
        """A block of requests; the slow ones take 400 ms, the others 10 ms."""
        count = len(slow)
        at = np.sort(self.now + self.random.random(count) * BLOCK)
        seconds = np.where(slow > 0.0, 0.4, 0.01)
        self.arm.add(at, seconds, np.zeros(count) if failed is None else failed)
        self.now += BLOCK

    def share(self, share: float, requests: int = 200) -> None:
        self.send((self.random.random(requests) < share).astype(float))

    def blocks_until_alarm(self, share: float, most: int, requests: int = 200) -> float:
        for number in range(most):
            self.share(share, requests)
            if self.arm.alarmed[0]:
                return number
        return math.inf


@pytest.mark.parametrize("bursts", [False, True])
def test_false_alarms_keep_their_bound_on_the_edge_of_the_objective(bursts: bool) -> None:
    # Within N blocks at most N / run length of all runs alarm: Doob's inequality for the
    # submartingale of the detector. A binomial count of 150 runs at 0.1 exceeds 40 with
    # probability 4e-9.
    run_length, blocks, runs = 1500.0, 150, 150
    alarms = 0
    for seed in range(runs):
        traffic = Traffic([P99], run_length, seed)
        for _ in range(blocks):
            if bursts:
                # Pauses of a second: a tenth of the requests of a block, all slow together.
                slow = np.zeros(100)
                slow[:10] = traffic.random.random() < 0.1
                traffic.send(slow)
            else:
                traffic.share(0.01, 100)
        alarms += traffic.arm.alarmed[0]
    assert alarms <= 40


@pytest.mark.parametrize(
    ("share", "requests", "blocks"),
    [(1.0, 200, 5), (0.2, 200, 8), (0.05, 200, 18), (0.02, 1000, 32)],
)
def test_a_clear_miss_is_found_within_minutes(share: float, requests: int, blocks: int) -> None:
    for seed in range(5):
        traffic = Traffic([P99], RUN_LENGTH, seed)
        for _ in range(60):
            traffic.share(0.002, requests)  # an hour that meets it delays nothing
        assert not traffic.arm.alarmed[0]
        assert traffic.blocks_until_alarm(share, blocks, requests) < blocks


def test_one_pause_is_not_a_missed_objective() -> None:
    traffic = Traffic([P99], RUN_LENGTH)
    for number in range(100):
        slow = np.zeros(10_000)
        if number == 50:
            slow[:1000] = 1.0  # a second in which every request is slow
        traffic.send(slow)
    assert not traffic.arm.alarmed[0]


def test_few_requests_make_longer_blocks() -> None:
    traffic = Traffic([P99], RUN_LENGTH)
    # One request each ten seconds, all slow: five blocks of twenty.
    for _ in range(5 * FEWEST + 1):
        traffic.send(np.ones(1))
    assert traffic.arm.alarmed[0]


def test_a_missed_objective_has_its_value_with_an_interval_and_recovers() -> None:
    traffic = Traffic([P99, ERRORS, MEAN], RUN_LENGTH)
    for _ in range(60):
        traffic.share(0.001)
    began = traffic.now
    for _ in range(40):
        slow = (traffic.random.random(200) < 0.5).astype(float)
        traffic.send(slow, (traffic.random.random(200) < 0.1).astype(float))
    found = {one.objective.metric: one for one in traffic.arm.missed()}
    assert found.keys() == {"latency_p99", "error_rate", "latency_mean"}
    p99, errors, mean = (found[one.metric] for one in (P99, ERRORS, MEAN))
    assert p99.value == pytest.approx(0.4, rel=0.011)
    assert p99.low is not None
    assert p99.low <= 0.4 <= (p99.high or 0.0)
    assert p99.share == pytest.approx(0.5, abs=0.05)
    assert errors.low is not None
    assert errors.low < 0.1 < (errors.high or 0.0)
    assert mean.low is not None
    assert mean.low < 0.205 < (mean.high or 0.0)
    for one in found.values():
        assert abs(one.since - began) <= 2 * BLOCK
        assert one.requests == pytest.approx(WINDOW * 200, rel=0.05)
    for _ in range(WINDOW + 5):
        traffic.share(0.001)
    assert list(traffic.arm.missed()) == []
    assert traffic.blocks_until_alarm(1.0, 6) < 6  # and it can be missed again


def test_a_mean_is_missed_by_a_few_very_slow_requests() -> None:
    # 1 % of 4 s and 10 ms: the mean is 50 ms. Cut at ten times the limit it is 12 ms: that proves
    # nothing. 10 % are found.
    for share, missed in ((0.01, False), (0.1, True)):
        arm = ArmObjectives([MEAN], RUN_LENGTH)
        random = np.random.default_rng(3)
        for block in range(60):
            seconds = np.where(random.random(500) < share, 4.0, 0.01)
            arm.add(block * BLOCK + np.linspace(0.0, 9.9, 500), seconds, np.zeros(500))
        assert arm.alarmed == [missed]


def test_no_error_is_allowed_by_an_objective_of_zero() -> None:
    none = Objective.parse("error_rate", "<= 0 %")
    traffic = Traffic([none], RUN_LENGTH)
    for _ in range(50):
        traffic.send(np.zeros(1000), np.zeros(1000))
    assert not traffic.arm.alarmed[0]
    failed = np.zeros(1000)
    failed[7] = 1.0
    traffic.send(np.zeros(1000), failed)
    traffic.share(0.0)
    assert traffic.arm.alarmed[0]


def test_the_state_survives_a_restart() -> None:
    traffic = Traffic([P99, ERRORS], RUN_LENGTH)
    for share in (0.0, 0.3):
        for _ in range(8):
            traffic.share(share)
    other = ArmObjectives([P99, ERRORS], RUN_LENGTH)
    other.load_state(json.loads(json.dumps(traffic.arm.dump_state())))
    assert list(other.missed()) == list(traffic.arm.missed())
    assert other.alarmed == [True, False]


@pytest.mark.parametrize(
    ("metric", "text", "tested"),
    [
        ("latency_p99.9", "<= 50ms", True),
        ("latency_p50", ">= 1ms", False),
        ("error_rate", "<= 100 %", False),
        ("throughput", ">= 100/s", False),
        ("accuracy", ">= 0.9", False),
    ],
)
def test_only_what_requests_tell_is_tested(metric: str, text: str, tested: bool) -> None:
    assert is_tested(Objective.parse(metric, text)) is tested
