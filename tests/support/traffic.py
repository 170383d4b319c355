"""Traffic written into shared statistics as a worker writes it."""

from __future__ import annotations

from tests.support.plane_process import LABELS
from understudy.monitor.stats.shared import SharedStats
from understudy.monitor.stats.sketch import observe

TRACE = "0123456789abcdef" * 2


CANDIDATE = {**LABELS, "arm": "candidate", "role": "mirror"}


def count_traffic(stats: SharedStats) -> None:
    """What a worker would have written about ten requests and their copies."""
    words = stats.words
    for labels in (LABELS, CANDIDATE, {**LABELS, "outcome": "timeout"}):
        words[stats.counter("requests", labels)] = 10
        words[stats.counter("request_bytes", labels)] = 1000
        words[stats.counter("response_bytes", labels)] = 500
        for name in ("duration", "first_byte", "queue"):
            sketch = stats.sketch(name, labels)
            for number in range(10):
                observe(words, sketch, (number + 1) * 10_000_000)
    words[stats.gauge("in_flight", {"arm": "champion", "role": "primary"})] = 3
    for outcome, count in (("ok", 8), ("queue_full", 2), ("breaker_open", 5)):
        words[stats.counter("mirror", {"arm": "candidate", "outcome": outcome})] = count
    words[stats.gauge("breaker", {"arm": "candidate"})] = 2
    words[stats.counter("rejected", {"reason": "header_too_large"})] = 4
    words[stats.counter("records_eligible")] = 20
    words[stats.counter("records_sent")] = 17
    words[stats.counter("records_dropped", {"reason": "queue_full"})] = 3
    words[stats.counter("records_lost")] = 1
    words[stats.gauge("cold_start_us", {"arm": "champion"})] = 2_500_000
    words[stats.counter("cold_starts", {"arm": "champion"})] = 1
