"""How long a challenger has had traffic."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.support.live_experiment import (
    NOW,
    SPLIT,
    answer,
    assigned,
    division,
    live,
    record,
)
from understudy.monitor.experiments.traffic import PAUSE, TrafficTime
from understudy.monitor.records import record as records

GUARD = [{"metric": "error_rate", "margin": "2 pp"}]


def test_pauses_do_not_count_and_batches_add_up() -> None:
    times = np.cumsum(np.random.default_rng(1).exponential(2.0, 500)) + NOW
    whole, cut = TrafficTime(), TrafficTime()
    whole.add(times)
    for start in range(0, 500, 7):
        cut.add(times[start : start + 7])
        cut.load_state(json.loads(json.dumps(cut.dump_state())))
    assert whole.seconds == pytest.approx(times[-1] - times[0])
    assert cut.seconds == pytest.approx(whole.seconds)
    whole.add(np.array([times[-1] + 3600.0]))
    assert whole.seconds == pytest.approx(times[-1] - times[0] + PAUSE)
    before = whole.seconds
    whole.add(np.array([]))
    whole.add(times[:10])
    assert whole.seconds == before, "late records are no new time"


@pytest.mark.parametrize("mode", ["shadow", "split"])
def test_a_burst_of_requests_and_silence_promote_nothing(mode: str) -> None:
    """3,000 requests within half a minute; then no traffic for an hour."""
    one = live(**(SPLIT if mode == "split" else {}), metrics=GUARD, minimum_duration="300s")
    rng = np.random.default_rng(2)

    def serve(first: int, last: int, begin: float) -> None:
        for i in range(first, last):
            started = begin + 0.01 * (i - first)
            if mode == "split":
                served, arm = assigned(i, int(rng.random() < 0.4), started=started)
                one.take(served, arm, division(), answer(1), answer(0.5))
            else:
                one.take(record(i, started=started), "champion", None, answer(1), answer(0.5))
                copy = record(i, records.ROLE_MIRROR, started=started)
                one.take(copy, "candidate", None, None, answer(0.5))

    serve(0, 3000, NOW + 10.0)
    one.flush()
    silent = one.look(mode, NOW + 3600.0)["candidate"]
    assert silent.verdict == "continue"
    assert any("traffic for 30 s of at least 300 s" in reason for reason in silent.reasons)
    for minute in range(1, 8):
        serve(3000 + 30 * minute, 3030 + 30 * minute, NOW + 3600.0 + 50.0 * minute)
    one.flush()
    assert one.look(mode, NOW + 4000.0)["candidate"].verdict == "promote"
