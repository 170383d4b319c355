"""The open loop: arrivals as they should be, and latencies that count from when they were due."""

from __future__ import annotations

import json
import os
import signal
import threading
import time

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.stats import kstest

from loadtest.engine.arrivals import Piece, Profile, arrivals
from loadtest.engine.histogram import Histogram
from loadtest.engine.outcome import Outcome, percentiles
from loadtest.engine.pool import Loop, Open, Target, drive
from loadtest.errors import LoadTestError, TargetError
from loadtest.payloads.checks import Checks
from loadtest.payloads.request import Payload
from loadtest.scenarios.shapes import steady
from tests.loadtest.world import Server


def moments(profile: Profile, processes: int = 1, kind: str = "poisson") -> np.ndarray:
    parts = [
        np.concatenate([np.zeros(0), *arrivals(profile, kind, (5, index), 1.0 / processes)])
        for index in range(processes)
    ]
    return np.sort(np.concatenate(parts))


@pytest.mark.parametrize("processes", [1, 3])
def test_arrivals_are_poisson_whatever_the_number_of_processes(processes: int) -> None:
    found = moments(steady(500.0, 40.0), processes)
    # Poisson of 20,000: six standard deviations.
    assert abs(len(found) - 20_000) < 6.0 * 20_000**0.5
    # A true one fails with probability 1e-7.
    assert kstest(np.diff(found) * 500.0, "expon").pvalue > 1e-7


@settings(max_examples=40, deadline=None)
@given(
    st.lists(
        st.tuples(st.floats(0.5, 20), st.floats(0, 200), st.floats(0, 200)), min_size=1, max_size=5
    )
)
def test_profiles_are_inverted_exactly(parts: list[tuple[float, float, float]]) -> None:
    profile = Profile(tuple(Piece(*part) for part in parts))
    assume(profile.count > 1.0)
    inside = np.linspace(0.0, profile.count, 50, endpoint=False)
    at = profile.moments(inside)
    assert np.isfinite(at).all()
    assert profile.passed(at) == pytest.approx(inside, rel=1e-6, abs=1e-5)
    assert (np.diff(at) >= -1e-6).all()


def test_even_arrivals_of_processes_interleave() -> None:
    found = moments(steady(10.0, 3.0), 3, "even")
    assert found == pytest.approx((np.arange(30) + 0.5) / 10.0)


@given(st.lists(st.floats(1e-6, 100.0), min_size=1, max_size=300), st.floats(0.01, 1.0))
def test_histograms_merge_and_hold_one_per_cent(values: list[float], p: float) -> None:
    x = np.array(values)
    whole, left, right = Histogram(), Histogram(), Histogram()
    whole.add(x)
    left.add(x[::2])
    right.add(x[1::2])
    left.merge(right)
    assert (left.counts == whole.counts).all()
    exact = np.sort(x)[max(1, int(np.ceil(p * len(x)))) - 1]
    assert whole.quantile(p) == pytest.approx(exact, rel=0.012)
    again = Histogram.from_dict(json.loads(json.dumps(whole.to_dict())))
    assert again.quantile(p) == whole.quantile(p)


def requests(path: str = "/", body: bytes = b"{}") -> list[bytes]:
    return [Payload(body, path=path).to_bytes("test")]


def test_a_steady_server_is_measured_as_it_is() -> None:
    with Server(slots=64, seconds=0.02) as server:
        target = Target("127.0.0.1", server.port)
        found = drive(target, requests(), Open(steady(100.0, 4.0), seed=3), processes=2)
    assert abs(found.count - 400) < 6 * 20
    assert found.failed == 0
    assert found.statuses == {"200": found.count}
    median = found.quantile(0.5)
    assert median is not None
    assert 0.02 <= median < 0.2
    assert found.lag_p99 is not None
    assert (np.diff(found.due) >= 0.0).all()
    assert [p for p, _ in percentiles(found)] == sorted(p for p, _ in percentiles(found))


def test_a_stall_cannot_hide() -> None:
    """The server is stopped for a second: everything that was due meanwhile waited for it."""
    with Server(slots=512) as server:
        assert server.process is not None
        pid = server.process.pid

        def stall() -> None:
            time.sleep(2.0)
            os.kill(pid, signal.SIGSTOP)
            time.sleep(1.0)
            os.kill(pid, signal.SIGCONT)

        thread = threading.Thread(target=stall)
        thread.start()
        target = Target("127.0.0.1", server.port, connections=1024)
        found = drive(target, requests(), Open(steady(200.0, 5.0), seed=4))
        thread.join()
    assert found.failed == 0
    waited = found.latency > 0.1
    # 0.9 s of 200 per second are due early enough to wait for that long: 180 on average.
    assert 100 <= waited.sum() <= 300
    assert 0.9 < found.latency.max() < 3.0
    # Latencies fall along a line while the stall lasts, as they do when nothing is left out.
    slow_due, slow = found.due[waited], found.latency[waited]
    assert np.corrcoef(slow_due, slow)[0, 1] < -0.9


def test_closed_loops_send_as_soon_as_they_may() -> None:
    with Server(slots=64, seconds=0.05) as server:
        target = Target("127.0.0.1", server.port)
        single = drive(target, requests(), Loop(1, 1, 20, 30.0))
        many = drive(target, requests(), Loop(1, 8, 10, 30.0))
        timed = drive(target, requests(), Loop(4, 1, None, 1.0))
    assert (single.count, many.count) == (20, 80)
    assert single.seconds >= 1.0
    assert many.seconds < 4.0, "eight at the same time"
    assert len(np.unique(many.due)) == 10
    assert timed.count >= 8
    assert single.failed == many.failed == timed.failed == 0


def test_answers_are_checked() -> None:
    checks = Checks(
        schema={"type": "object", "required": ["predictions"]},
        expected=[{"/predictions/0": 0.5}, {"/predictions/0": 0.7}],
        tolerance=0.01,
    )
    with Server() as server:
        target = Target("127.0.0.1", server.port)
        both = [*requests(), *requests()]
        found = drive(target, both, Open(steady(100.0, 1.0), seed=5), checks)
        text = drive(target, requests("/text"), Open(steady(50.0, 0.5), seed=6), checks)
        broken = drive(target, requests("/broken"), Open(steady(50.0, 0.5), seed=7))
    assert found.errors == {"unexpected prediction": found.failed}
    assert abs(found.failed - found.count / 2) <= 1
    assert text.errors == {"answer is no JSON": text.count}
    assert broken.failed == broken.count > 0
    assert broken.statuses == {"503": broken.count}


def test_a_target_that_is_away_is_said_and_one_that_dies_is_measured() -> None:
    with pytest.raises(TargetError, match="nobody listens"):
        drive(Target("127.0.0.1", 1), requests(), Open(steady(50.0, 0.5)))
    with pytest.raises(LoadTestError, match="nothing to send"):
        drive(Target("127.0.0.1", 1), [], Open(steady(50.0, 0.5)))
    with Server() as server:
        assert server.process is not None
        threading.Timer(1.5, server.process.kill).start()
        target = Target("127.0.0.1", server.port)
        found = drive(target, requests(), Open(steady(100.0, 3.0), seed=8))
    assert 0 < found.failed < found.count
    assert found.ok[found.due < 0.5].all()
    assert not found.ok[found.due > 2.5].any()
    assert set(found.errors) <= {"refused", "reset", "closed early"}


def test_a_timeout_ends_what_hangs() -> None:
    with Server(slots=1, seconds=30.0) as server:
        target = Target("127.0.0.1", server.port, timeout=0.5)
        begun = time.monotonic()
        found = drive(target, requests(), Open(steady(20.0, 0.5), seed=9))
        closed = drive(target, requests(), Loop(2, 1, 4, 10.0))
    assert found.errors == {"timeout": found.count}
    assert closed.errors == {"timeout": 4}
    assert time.monotonic() - begun < 15.0


def test_looks_see_only_what_is_complete() -> None:
    """The quick ones end first: a look in the middle must not take them for all."""
    found = []

    def look(outcome: Outcome) -> bool:
        part = outcome.so_far()
        found.append((part.count, float(part.latency.max()) if part.count else 0.0))
        return False

    with Server(slots=512, seconds=0.3) as server:
        target = Target("127.0.0.1", server.port)
        whole = drive(target, requests(), Open(steady(100.0, 2.0), seed=10), watch=look)
    counts = [count for count, _ in found]
    assert counts == sorted(counts)
    assert 0 < max(counts) <= whole.count
