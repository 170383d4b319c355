"""Clients choose x-request-id: what they choose must not steer what is compared with what."""

from __future__ import annotations

from tests.support.live_experiment import NOW, Fed, answer, assigned, division, live, record, status
from understudy.monitor.records import record as records
from understudy.monitor.records.record import Record
from understudy.shadow.assignment import point, threshold

METRIC = {"metrics": [{"metric": "disagreement", "margin": "10 pp"}]}


def proxied(number: int, role: int = records.ROLE_PRIMARY, **more: float) -> Record:
    """A record of the proxy, of a client that uses one id for everything."""
    one = record(0, role, **more)
    one.request_id, one.proxy_id = b"always-the-same", number + 1
    return one


def disagreements(one: Fed) -> float:
    return float(status(one)["disagreement"].estimates[1])


def test_answers_are_paired_by_ids_of_the_proxy() -> None:
    one = live(**METRIC)
    # Each pair agrees. By the client's id, answers to different requests would be compared.
    for begin in range(0, 200, 10):
        for number in range(begin, begin + 10):
            one.take(proxied(number), "champion", None, None, answer(number))
        for number in reversed(range(begin, begin + 10)):
            copy = proxied(number, records.ROLE_MIRROR)
            one.take(copy, "candidate", None, None, answer(number))
    assert disagreements(one) == 0.0
    one.flush()
    assert one.experiment.contests["candidate"].pairs == 200


def test_records_from_elsewhere_are_paired_by_their_request_id() -> None:
    one = live(**METRIC)
    for number in range(50):
        one.take(record(number), "champion", None, None, answer(number))
        copy = record(number, records.ROLE_MIRROR)
        one.take(copy, "candidate", None, None, answer(number))
    assert disagreements(one) == 0.0


def test_the_evidence_takes_the_sample_that_the_workers_took() -> None:
    one = live(**METRIC)
    one.collector.mirrored._arms.mirror_rate["candidate"] = 0.5
    mirrored = {n for n in range(400) if point(b"salt", _key(n)) < threshold(0.5)}
    # Binomial(400, 0.5): 200 with a standard deviation of 10; six of those on each side.
    assert 140 < len(mirrored) < 260
    for number in range(400):
        one.take(proxied(number), "champion", None, None, answer(1))
        if number in mirrored:
            copy = proxied(number, records.ROLE_MIRROR)
            one.take(copy, "candidate", None, None, answer(1))
    one.collector.mirrored.expire(NOW + 10_000.0)
    status(one)
    assert one.experiment.contests["candidate"].pairs == len(mirrored)


def _key(number: int) -> bytes:
    return (number + 1).to_bytes(8, "little")


def test_open_requests_with_the_same_id_are_counted_each() -> None:
    one = live(mode="split", weights={"candidate": 0.4})
    for number in range(100):
        report, arm = assigned(number, int(number % 5 < 2), outcome=records.OPEN, seconds=2.0)
        report.request_id, report.proxy_id = b"always-the-same", number + 1
        one.take(report, arm, division(), None, None)
    one.flush()
    assert one._assigned.unfinished() == [60, 40]
