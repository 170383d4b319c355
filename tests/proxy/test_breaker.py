"""The circuit breaker, a pure state machine."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from understudy.monitor.proxy.breaker import CLOSED, HALF_OPEN, OPEN, Breaker
from understudy.monitor.routing.plan import Breaker as Settings


def breaker(failures: int = 2) -> Breaker:
    return Breaker(Settings(failures=failures, open_seconds=1, max_open_seconds=3, probes=2))


def failed(subject: Breaker, now: float) -> None:
    """A request is let pass and fails at once."""
    epoch = subject.allow(now)
    assert epoch
    subject.report(False, now, epoch)


def test_the_states_in_order() -> None:
    subject = breaker()
    failed(subject, 0)
    subject.report(True, 0, subject.allow(0))
    for _ in range(2):
        assert subject.state == CLOSED, "a success in between resets the count"
        failed(subject, 0)
    assert subject.state == OPEN
    assert not subject.allow(0.9)
    for opened, pause in ((1.0, 2.0), (3.0, 3.0), (6.0, 3.0)):
        # Each failed probe doubles the pause, up to the longest.
        failed(subject, opened)
        assert subject.state == OPEN
        assert not subject.allow(opened + pause - 0.01)
    first, second = subject.allow(9.0), subject.allow(9.0)
    assert first
    assert second
    assert subject.state == HALF_OPEN
    assert not subject.allow(9.0), "only as many probes as needed are under way"
    subject.report(True, 9.0, first)
    assert not subject.allow(9.0)
    subject.report(True, 9.0, second)
    assert subject.state == CLOSED
    assert subject.allow(9.0)


def test_unknown_results_neither_open_nor_close() -> None:
    subject = breaker()
    failed(subject, 0)
    for _ in range(10):
        # Copies that a full queue turned away come between those that a hung challenger fails.
        subject.report(None, 0, subject.allow(0))
    failed(subject, 0)
    assert subject.state == OPEN
    for _ in range(10):
        subject.report(None, 1.0, subject.allow(1.0))
    assert subject.state == HALF_OPEN
    for _ in range(2):
        subject.report(True, 1.0, subject.allow(1.0))
    assert subject.state == CLOSED


def test_requests_sent_before_it_opened_do_not_count_as_probes() -> None:
    subject = breaker()
    old = [subject.allow(0) for _ in range(6)]
    for epoch in old[:2]:
        subject.report(False, 0, epoch)
    assert subject.state == OPEN
    probe = subject.allow(1.0)
    for epoch, success in zip(old[2:], (False, True, True, False), strict=True):
        subject.report(success, 1.0, epoch)
        assert subject.state == HALF_OPEN
    subject.report(True, 1.0, probe)
    subject.report(True, 1.0, subject.allow(1.0))
    assert subject.state == CLOSED


@given(st.lists(st.tuples(st.sampled_from([True, False, None]), st.floats(0, 5)), max_size=60))
def test_it_always_recovers(steps: list[tuple[bool | None, float]]) -> None:
    subject = Breaker(Settings(2, 1, 4, 2))
    now = 0.0
    for success, wait in steps:
        now += wait
        epoch = subject.allow(now)
        if epoch:
            subject.report(success, now, epoch)
    for _ in range(4):
        now += 5
        epoch = subject.allow(now)
        if epoch:
            subject.report(True, now, epoch)
    assert subject.state == CLOSED
