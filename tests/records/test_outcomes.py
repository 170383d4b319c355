"""The numbers of outcomes are those of their names: records in logs and topics hold the numbers."""

from __future__ import annotations

from understudy.monitor.records import record


def test_each_outcome_has_the_number_of_its_name() -> None:
    numbers = [getattr(record, name.upper()) for name in record.OUTCOMES]
    assert numbers == list(range(len(record.OUTCOMES)))
