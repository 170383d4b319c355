"""What the benchmark of hostile peers makes of its figures."""

from __future__ import annotations

import pytest

from benchmarks.proxy.hostile import CASES, CONTENDERS, NONE, claims, tables
from tests.support.hostile import ANSWERS, REQUESTS

OURS = {role: kinds[0].name for role, kinds in CONTENDERS.items()}


def entry(p99: float, failed: float = 0.0) -> dict[str, float]:
    return {"p50": p99 / 2, "p99": p99, "failed": failed}


def test_claims_compare_a_proxy_with_itself_without_the_peer() -> None:
    seen = {
        case.name: {OURS[case.role]: [entry(0.001 if case.kind == NONE else 0.0015)] * 3}
        for case in CASES
    }
    found = claims(seen)
    assert len(found) == 1 + sum(case.kind != NONE for case in CASES)
    assert all(claim.met for claim in found)
    slow = next(case for case in CASES if case.kind == "interim")
    seen[slow.name][OURS[slow.role]] = [entry(0.0021, failed=1.0)] * 3
    missed = [claim for claim in claims(seen) if not claim.met]
    assert [claim.value for claim in missed] == pytest.approx([3.0, 2.1])


def test_what_was_not_measured_is_not_met() -> None:
    seen: dict[str, dict[str, list[dict[str, float]]]] = {case.name: {} for case in CASES}
    assert [claim.met for claim in claims(seen)][1:] == [False] * (len(claims(seen)) - 1)
    for _, header, rows in tables(seen):
        assert all(len(row) == len(header) for row in rows)


def test_every_kind_of_peer_exists() -> None:
    for case in CASES:
        kinds = ANSWERS if case.role == "challenger" else REQUESTS
        assert case.kind == NONE or case.kind in kinds
