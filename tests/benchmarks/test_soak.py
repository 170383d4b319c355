"""A short soak: each fault once, against the real service."""

from __future__ import annotations

from benchmarks.soak.run import run


def test_a_short_soak_harms_no_client_and_loses_no_record() -> None:
    result = run(quick=True)
    assert [claim.claim for claim in result.claims if not claim.met] == [], result.markdown()
    seen = result.measurements["by_fault"]
    assert len(seen) == result.measurements["faults"] + 1
    assert min(one["requests"] for one in seen.values()) > 0
    # What a fault must cause, it does cause: the clients look.
    assert seen["kill the champion"]["errors"].get("502", 0) > 0
