"""A short soak: each fault once, against the real service; and what counts as harm."""

from __future__ import annotations

from array import array
from collections import Counter
from collections.abc import Callable

import pytest

from benchmarks.soak.faults import NOTHING, Fault
from benchmarks.soak.run import CLIENTS, Happened, by_fault, run


def begin() -> Callable[[], None]:
    raise AssertionError("not begun here")


@pytest.mark.parametrize(
    ("costs", "each", "errors", "unexpected"),
    [
        (NOTHING, 0, {}, 0),
        (NOTHING, 0, {"cut": 1}, 1),
        (frozenset({"cut"}), 1, {"cut": CLIENTS}, 0),
        (frozenset({"cut"}), 1, {"cut": CLIENTS + 2, "503": 1}, 3),
        (frozenset({"502", "cut"}), None, {"502": 10_000, "cut": 1, "504": 4}, 4),
    ],
)
def test_only_what_a_fault_must_cause_is_expected(
    costs: frozenset[str], each: int | None, errors: dict[str, int], unexpected: int
) -> None:
    one = Happened(Fault("f", begin, costs, each), array("d", [0.1, 0.3]), Counter(errors))
    assert one.unexpected() == unexpected
    found = by_fault([one, one])["f"]
    assert (found["times"], found["requests"], found["unexpected"]) == (2, 4, 2 * unexpected)
    assert found["errors"] == {what: 2 * count for what, count in errors.items()}
    assert found["max_ms"] == pytest.approx(300.0)


@pytest.mark.slow  # each of its faults has tests of its own in tests/failures
def test_a_short_soak_harms_no_client_and_loses_no_record() -> None:
    result = run(quick=True)
    assert [claim.claim for claim in result.claims if not claim.met] == [], result.markdown()
    seen = result.measurements["by_fault"]
    assert len(seen) == result.measurements["faults"] + 1
    assert min(one["requests"] for one in seen.values()) > 0
    # What a fault must cause, it does cause: the clients look.
    assert seen["kill the champion"]["errors"].get("502", 0) > 0
