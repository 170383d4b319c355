"""Identical arms are never judged worse or better; what is worse is never promoted, and what is
better is never rolled back.

    python -m benchmarks verdicts [--quick]

Each case is a simulated service (see ``service.py``) whose records go through the evaluation as in
production, with all its looks and guards, in shadow, split and canary. Identical arms are judged
twice: with guardrails, where a roll-back or an invalid verdict is wrong, and with metrics that must
improve, where a promotion is wrong as well.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from multiprocessing import get_context

from scipy import stats

from benchmarks.harness import Claim, Result, environment
from benchmarks.verdicts.cases import BETTER, IDENTICAL, QUICK, SUCCESS, WORSE, Case
from benchmarks.verdicts.service import SimulatedService

SEED = 20_261_130
ALPHA = 0.05
REQUESTS = 6000
VERDICTS = ("promote", "rollback", "invalid", "continue")
_MARGIN_ONLY = ("accuracy", "disagreement")


def verdict_of(case: Case, mode: str, seed: int, requests: int = REQUESTS) -> str:
    """The verdict on one stream of a case."""
    service = SimulatedService(
        case.experiment(mode), case.champion, case.challenger, case.traffic, seed, **case.config
    )
    try:
        return service.run(requests)
    finally:
        service.close()


def must_improve(case: Case) -> Case | None:
    """The case with metrics that must improve; None where there is nothing to improve."""
    if any(metric["metric"] in _MARGIN_ONLY for metric in case.metrics):
        return None
    return replace(case, metrics=tuple(SUCCESS))


def lower_bound(hits: int, n: int) -> float:
    """One-sided 99 % lower bound of a share (Clopper-Pearson)."""
    return float(stats.beta.ppf(0.01, hits, n - hits + 1)) if hits else 0.0


def _plan(quick: bool) -> Iterator[tuple[str, Case, str, tuple[str, ...]]]:
    """Title, case, mode and the verdicts that are wrong."""
    for case in IDENTICAL:
        if quick and case.name not in QUICK:
            continue
        for mode in case.modes:
            yield "identical, guardrails", case, mode, ("rollback", "invalid")
            improved = must_improve(case)
            if improved is not None:
                yield "identical, must improve", improved, mode, ("promote", "rollback", "invalid")
    for case in WORSE:
        if not quick or case.name in QUICK:
            for mode in case.modes:
                yield "worse", case, mode, ("promote",)
    for case in BETTER:
        if not quick or case.name in QUICK:
            for mode in case.modes:
                yield "better", case, mode, ("rollback", "invalid")


def _one(task: tuple[Case, str, int]) -> str:
    return verdict_of(*task)


def run(quick: bool = False) -> Result:
    """Run all cases on all cores."""
    streams = 4 if quick else 20
    result = Result(
        "verdicts",
        environment(quick=quick, streams=streams, requests=REQUESTS, seed=SEED, alpha=ALPHA),
    )
    rows = []
    totals: dict[str, list[int]] = {}
    plan = list(_plan(quick))
    context = get_context("forkserver")
    with ProcessPoolExecutor(os.cpu_count(), mp_context=context) as pool:
        tasks = [(case, mode, SEED + n) for _, case, mode, _ in plan for n in range(streams)]
        verdicts = pool.map(_one, tasks, chunksize=1)
        for number, (title, case, mode, wrong) in enumerate(plan, start=1):
            found = [next(verdicts) for _ in range(streams)]
            hits = sum(verdict in wrong for verdict in found)
            row = f"{number}/{len(plan)} {title}: {case.name}, {mode}"
            print(f"{row}: {hits} of {streams} wrong", flush=True)
            counts = [found.count(verdict) for verdict in VERDICTS]
            rows.append([title, case.name, mode, *counts, hits])
            total = totals.setdefault(title, [0, 0])
            total[0] += hits
            total[1] += streams
            claim = f"99 % lower bound of wrong verdicts, {title}: {case.name}, {mode}"
            result.claims.append(Claim(claim, lower_bound(hits, streams), ALPHA, "<="))
    for title, (hits, total_streams) in totals.items():
        result.claims.append(
            Claim(f"share of wrong verdicts, {title}", hits / total_streams, ALPHA, "<=")
        )
    header = ["kind", "case", "mode", *VERDICTS, "wrong"]
    result.tables.append(("Verdicts", header, rows))
    result.measurements["rows"] = [dict(zip(header, row, strict=True)) for row in rows]
    return result
