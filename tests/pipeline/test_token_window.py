"""What language models did in the last minute: quantiles, sums, reasons, and what is forgotten."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from understudy.monitor.pipeline.token_window import SECONDS, TokenWindow

KEY = ("chat", "1", "champion")
NAMES = ("finish_reason", "tokens_source", "ttft_seconds", "tpot_seconds", "output_tokens",
         "is_good", "token_cost")  # fmt: skip
NOW = 1_790_000_000.0


class Clock:
    def __init__(self) -> None:
        self.now = NOW

    def __call__(self) -> float:
        return self.now


def window(clock: Clock) -> TokenWindow:
    found = TokenWindow(clock)
    clock.now += SECONDS  # it has been there for as long as the window
    return found


def add(
    one: TokenWindow, at: Sequence[float], ttft: Sequence[float | None], **more: object
) -> None:
    rows = len(at)
    reason = more.get("reason", "stop")
    columns: list[list[object]] = [
        [reason] * rows, ["usage"] * rows, list(ttft), [0.02] * rows,
        [more.get("tokens", 10.0)] * rows, [more.get("good", 1.0)] * rows,
        [more.get("cost")] * rows,
    ]  # fmt: skip
    one.add(KEY, NAMES, columns, np.array(at))


def test_quantiles_are_those_of_the_window() -> None:
    clock = Clock()
    one = window(clock)
    values = [0.001 * (n + 1) for n in range(1000)]
    add(one, [clock.now - 0.05 * n for n in range(1000)], values)
    found = one.figures()[KEY]
    assert found.answers == 1000
    assert found.ttft is not None
    assert found.ttft == pytest.approx((0.5, 0.99), rel=0.006)
    assert found.output_tokens == 10_000
    assert found.good == 1000
    assert found.cost is None
    assert found.finish_reasons == {"stop": 1000}


def test_what_is_not_told_is_missing_and_not_zero() -> None:
    clock = Clock()
    one = window(clock)
    add(one, [clock.now] * 2, [None, 0.1], tokens=None, good=None)
    found = one.figures()[KEY]
    assert found.output_tokens is None
    assert found.prompt_tokens is None
    assert found.good is None
    add(one, [clock.now] * 4, [None] * 4, cost=0.25)
    assert one.figures()[KEY].cost == 1.0
    assert found.ttft == pytest.approx((0.1, 0.1), rel=0.006)


def test_old_rows_leave_the_window_and_their_memory() -> None:
    clock = Clock()
    one = window(clock)
    for second in range(300):
        clock.now = NOW + SECONDS + second
        add(one, [clock.now], [0.1], reason=f"r{second // 100}")
    found = one.figures()[KEY]
    assert SECONDS - 5 <= found.answers <= SECONDS
    assert found.finish_reasons == {"r2": found.answers}
    assert sum(map(len, one._slots.values())) <= 13
    clock.now += SECONDS + 10
    assert one.figures() == {}
    assert not one._slots


def test_rows_of_another_time_and_of_other_models_do_not_count() -> None:
    clock = Clock()
    one = window(clock)
    add(one, [clock.now - SECONDS - 1, clock.now + 3600], [0.1, 0.1])
    one.add(KEY, ("finish_reason",), [["a"]], np.array([clock.now]))
    one.add(KEY, ("score",), [np.array([0.5])], np.array([clock.now]))
    assert one.figures() == {}


def test_reasons_that_a_server_invents_are_bounded() -> None:
    clock = Clock()
    one = window(clock)
    for number in range(100):
        add(one, [clock.now], [0.1], reason=f"because {number}")
    found = one.figures()[KEY].finish_reasons
    assert len(found) == 21
    assert found["other"] == 80
