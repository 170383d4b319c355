"""Calls from other threads are made by the consumer's thread, or refused when it has ended."""

from __future__ import annotations

import threading

import pytest

from understudy.monitor.errors import LostError
from understudy.monitor.kafka.commands import CommandQueue


def test_calls_are_made_in_order_by_the_thread_that_runs_them() -> None:
    commands = CommandQueue()
    found: list[tuple[int, int]] = []

    def call(number: int) -> int:
        found.append((number, threading.get_ident()))
        return number

    futures = [commands.submit(lambda n=n: call(n)) for n in range(5)]  # type: ignore[misc]
    runner = threading.Thread(target=commands.run)
    runner.start()
    assert [future.result(10) for future in futures] == list(range(5))
    runner.join()
    assert found == [(number, runner.ident) for number in range(5)]


def test_an_exception_reaches_the_caller_and_does_not_stop_other_calls() -> None:
    commands = CommandQueue()

    def broken() -> None:
        raise ValueError("no")

    first, second = commands.submit(broken), commands.submit(lambda: 2)
    commands.run()
    with pytest.raises(ValueError, match="no"):
        first.result(0)
    assert second.result(0) == 2


def test_while_partitions_are_taken_over_only_reading_is_done() -> None:
    commands = CommandQueue()
    changing, reading = commands.submit(lambda: 1), commands.submit(lambda: 2, reads=True)
    commands.run(only_reading=True)
    assert reading.result(0) == 2
    assert not changing.done()
    commands.run()
    assert changing.result(0) == 1


def test_a_cancelled_call_is_not_made() -> None:
    commands = CommandQueue()
    made: list[int] = []
    assert commands.submit(lambda: made.append(1)).cancel()
    commands.run()
    assert not made


def test_closing_fails_waiting_and_later_calls() -> None:
    commands = CommandQueue()
    before = commands.submit(lambda: 1)
    commands.close()
    after = commands.submit(lambda: 2)
    for future in (before, after):
        with pytest.raises(LostError):
            future.result(0)
