"""The matrix of verdicts, a small and seeded form: whole experiments on simulated services."""

from __future__ import annotations

from dataclasses import replace

import pytest

from benchmarks.verdicts.cases import BETTER, IDENTICAL, SUCCESS, WORSE, Case
from benchmarks.verdicts.run import verdict_of

CASES = {case.name: case for case in (*IDENTICAL, *WORSE)}
SEED = 7


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("plain", "canary"),
        ("10 s", "split"),
        ("AR .9", "split"),
        ("clients give up", "split"),
        ("failures in bursts", "shadow"),
        ("failures in bursts", "split"),
        ("a stall of 8 s of the challenger", "split"),
        ("a cold start of 20 s", "split"),
        ("users who return", "split"),
        ("users who differ", "split"),
        ("answers that are never read", "shadow"),
        ("answers that are never read", "split"),
        ("labels of one arm are late", "split"),
    ],
)
def test_identical_arms_are_not_rolled_back_and_their_split_is_honoured(
    name: str, mode: str
) -> None:
    assert verdict_of(CASES[name], mode, SEED, 3000) in ("promote", "continue")


@pytest.mark.parametrize("name", ["plain", "heavy tail", "AR .9"])
def test_identical_arms_are_not_promoted_as_better(name: str) -> None:
    case = replace(CASES[name], metrics=tuple(SUCCESS))
    assert verdict_of(case, "split", SEED, 3000) == "continue"


@pytest.mark.parametrize(
    ("case", "mode"),
    [(case, mode) for case in WORSE for mode in case.modes if mode != "canary"],
    ids=lambda value: value.name if isinstance(value, Case) else value,
)
def test_a_challenger_that_is_worse_is_never_promoted(case: Case, mode: str) -> None:
    assert verdict_of(case, mode, SEED, 5000) != "promote"


@pytest.mark.parametrize(
    ("case", "mode"),
    [(case, mode) for case in BETTER for mode in case.modes if mode != "canary"],
    ids=lambda value: value.name if isinstance(value, Case) else value,
)
def test_a_challenger_that_is_better_is_never_rolled_back(case: Case, mode: str) -> None:
    assert verdict_of(case, mode, SEED, 5000) not in ("rollback", "invalid")


def test_a_challenger_that_is_as_good_is_promoted() -> None:
    assert verdict_of(CASES["plain"], "shadow", SEED, 3000) == "promote"
