"""Whole experiments: what a record costs, how often verdicts are wrong, how well plans predict.

    python -m benchmarks sequential-experiment [--quick]

Traffic comes in batches of 256, and the verdict is read after each; so it is in the service, where
it is read every second. "Measured" latencies are those of a loopback server on this machine, heavy
in the tail and correlated; both arms draw from the same trace, record by record.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
from scipy import stats

from benchmarks.harness import Claim, Result, environment
from benchmarks.sequential.streams import measured_latencies
from understudy.shadow.experiment import Experiment, Hypothesis, Pairs, Rules, Split
from understudy.shadow.experiment.planning import Traffic, plan

SEED = 20_261_123
BATCH = 256
ALPHA = 0.05
ERRORS = {"metric": "error_rate", "margin": "1 pp"}


def split(
    rng: np.random.Generator, share: float, errors: tuple[float, float], latencies: Any = None
) -> Split:
    arms = (rng.random(BATCH) < share).astype(float)
    error = (rng.random(BATCH) < np.where(arms == 1.0, errors[1], errors[0])).astype(float)
    latency = rng.lognormal(-3.5, 0.5, BATCH) if latencies is None else latencies
    columns = {"error": error, "timeout": np.zeros(BATCH), "latency": latency}
    return Split(arms, np.full(BATCH, share), columns)


def lower_bound(hits: int, n: int) -> float:
    """One-sided 99 % lower bound of a share (Clopper-Pearson)."""
    return float(stats.beta.ppf(0.01, hits, n - hits + 1)) if hits else 0.0


def cost(records: int) -> dict[str, float]:
    """µs per record of all default metrics, and ms to read the verdict, split and in pairs."""
    found: dict[str, float] = {}
    for mode in ("split", "shadow"):
        rng = np.random.default_rng(SEED)
        experiment = Experiment("x", ["c"], Rules.parse(None))
        contest = experiment.contests["c"]
        batches: list[Any] = []
        for _ in range(records // BATCH):
            one = split(rng, 0.5, (0.01, 0.01))
            if mode == "shadow":
                other = split(rng, 0.5, (0.01, 0.01))
                pairs = {k: (v, other.columns[k]) for k, v in one.columns.items()}
                batches.append(Pairs(pairs, BATCH))
            else:
                batches.append(one)
        update = contest.update_pairs if mode == "shadow" else contest.update_split
        for batch in batches[:20]:
            update(batch)  # tables that are made once
        before = time.process_time()
        for batch in batches[20:]:
            update(batch)
        spent = time.process_time() - before
        found[f"{mode}_us_per_record"] = spent / ((len(batches) - 20) * BATCH) * 1e6
        before = time.process_time()
        for _ in range(20):
            experiment.decide(mode, 1.0)
        found[f"{mode}_decision_ms"] = (time.process_time() - before) / 20 * 1e3
        found[f"{mode}_state_bytes"] = max(
            len(str(m.dump_state())) for m in contest.measures[mode] if m is not None
        )
    return found


def verdicts(
    metrics: list[dict[str, Any]] | None,
    wanted: str,
    streams: int,
    batches: int,
    share: float,
    errors: tuple[float, float],
    trace: Any = None,
) -> int:
    """How many of the streams came to the verdict ``wanted``."""
    hits = 0
    for number in range(streams):
        rng = np.random.default_rng((SEED, number))
        experiment = Experiment("x", ["c"], Rules.parse(metrics, minimum=0))
        contest = experiment.contests["c"]
        start = int(rng.integers(0, len(trace))) if trace is not None else 0
        for i in range(batches):
            latency = None
            if trace is not None:
                at = (start + i * BATCH + np.arange(BATCH)) % len(trace)
                latency = trace[at]
            contest.update_split(split(rng, share, errors, latency))
            verdict = experiment.decide("split", 1.0)["c"].verdict
            hits += verdict == wanted
            if verdict != "continue":
                break
    return hits


def off_stage(streams: int) -> list[int]:
    """Own requests of a challenger with 10 % errors, the champion has 1 %, at a share of 5 %; the
    verdict is read after every 20 requests."""
    ends: list[int] = []
    for number in range(streams):
        rng = np.random.default_rng((SEED, 7, number))
        experiment = Experiment("x", ["c"], Rules.parse([ERRORS]))
        contest = experiment.contests["c"]
        while experiment.decide("split", 1.0)["c"].verdict != "rollback":
            arms = (rng.random(20) < 0.05).astype(float)
            error = (rng.random(20) < np.where(arms == 1.0, 0.1, 0.01)).astype(float)
            contest.update_split(Split(arms, np.full(20, 0.05), {"error": error}))
        ends.append(contest.served[1])
    return ends


PLANNED = (
    ({"metric": "accuracy", "role": "success", "effect": "2 pp", "base_rate": 0.85}, Traffic()),
    ({"metric": "accuracy", "role": "success", "effect": "3 pp", "base_rate": 0.85}, Traffic(0.5)),
    ({"metric": "error_rate", "margin": "1 pp"}, Traffic(0.05)),
    ({"metric": "latency_mean", "margin": "10 %"}, Traffic(0.5)),
    ({"metric": "latency_p90", "margin": "20 %"}, Traffic(0.5)),
)


def run(quick: bool = False) -> Result:
    # A verdict on all default metrics takes some 9 ms, so these cases get fewer streams.
    streams, few, batches = (40, 20, 40) if quick else (300, 40, 40)
    result = Result(
        "sequential-experiment",
        environment(quick=quick, streams=streams, records=batches * BATCH, seed=SEED),
    )
    costs = cost(20_000 if quick else 200_000)
    result.measurements["cost"] = costs
    for mode in ("split", "shadow"):
        claim = f"µs per record in batches of {BATCH}, default metrics of one experiment, {mode}"
        result.claims.append(Claim(claim, costs[f"{mode}_us_per_record"], 5.0, "<="))
    result.tables.append(("Cost", ["what", "value"], [[k, v] for k, v in costs.items()]))
    rows = []
    trace = np.asarray(measured_latencies(60_000))
    for title, metrics, wanted, share, errors, values in (
        ("wrong promotion, exactly at the margin", [ERRORS], "promote", 0.5, (0.05, 0.06), None),
        ("wrong promotion, exactly at the margin", [ERRORS], "promote", 0.05, (0.05, 0.06), None),
        ("wrong roll-back, equal arms, default metrics", None, "rollback", 0.5, (0.01, 0.01), None),
        ("wrong roll-back, equal arms, default metrics", None, "rollback", 0.1, (0.01, 0.01), None),
        ("wrong roll-back, measured latencies", None, "rollback", 0.5, (0.01, 0.01), trace),
        ("wrong roll-back, measured latencies", None, "rollback", 0.1, (0.01, 0.01), trace),
    ):
        total = streams if metrics is not None else few
        hits = verdicts(metrics, wanted, total, batches, share, errors, values)
        bound = lower_bound(hits, total)
        name = f"{title}, {share:.0%} split"
        rows.append([name, hits, total, hits / total, bound])
        result.claims.append(Claim(f"99 % lower bound: {name}", bound, ALPHA, "<="))
    result.tables.append(("Wrong verdicts", ["case", "hits", "streams", "share", "bound"], rows))
    ends = off_stage(50 if quick else 300)
    for q in (0.5, 0.95):
        claim = f"own requests until roll-back, ten times the errors, quantile {q:g}"
        result.claims.append(Claim(claim, float(np.quantile(ends, q)), 200.0, "<="))
    rows = []
    for spec, traffic in PLANNED:
        hypothesis = Hypothesis.parse(spec, "metric", ALPHA)
        predicted = plan(hypothesis, traffic, streams=2000, seed=1)
        simulated = plan(hypothesis, traffic, streams=100 if quick else 1200, seed=2, exact=True)
        mode = "shadow" if traffic.share is None else f"{traffic.share:.0%} split"
        name = f"{hypothesis.name}, {mode}"
        for what in ("median", "p80"):
            ratio = getattr(predicted, what) / getattr(simulated, what)
            result.claims.append(
                Claim(
                    f"plan off by, against every record, {what}: {name}", abs(ratio - 1), 0.1, "<="
                )
            )
        rows.append(
            [
                name,
                predicted.median,
                simulated.median,
                predicted.p80,
                simulated.p80,
                simulated.fixed,
            ]
        )
    header = ["metric", "median planned", "simulated", "p80 planned", "simulated", "fixed horizon"]
    result.tables.append(("Plans, in the challenger's requests", header, rows))
    return result
