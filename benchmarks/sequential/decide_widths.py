"""Widths of intervals at one size."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from benchmarks.sequential import streams
from benchmarks.sequential.report import (
    ALPHA,
    SEED,
    Array,
    Report,
)
from understudy.shadow import sequential as sq


def widths(report: Report) -> None:
    """Quantiles, bounded means and variances: width of the interval at one n."""
    for p, n in ((0.5, 10_000), (0.99, 1_500), (0.99, 10_000)):
        name = f"p{100 * p:g} of {n:,} lognormal latencies (s)"
        xs, ours, cost = [], [], 0.0
        for i in report.streams(30, 200):
            x = streams.latencies(np.random.default_rng([SEED, 4, i]), n)
            xs.append(x)
            begin = time.process_time()
            ours.append(_running_width(x, p, sq.edges_around(0.03, doublings=4.0)))
            cost += time.process_time() - begin
        mine = report.width(name, "ours, buckets of 1.1 %", ours, cost / len(ours) / n * 1e6)
        fine = [_running_width(x, p, sq.edges_around(0.03, per_doubling=1024)) for x in xs]
        report.width(name, "ours, buckets of 0.07 %", fine)
        for peer in ("ville", "confseq"):
            theirs = report.their_width(
                name,
                peer,
                "quantile",
                np.array(xs),
                p=p,
                planned=10_000 if peer == "ville" else 100,
            )
            if theirs is not None:
                report.claim(f"width / {peer}'s: {name}", mine / theirs, 1.0)
        if n == 1_500:
            report.claim(f"share finite: {name}", float(np.isfinite(ours).mean()), 1.0, ">=")
        report.note(name)
    for task, n, make in (
        ("bounded", 1_000, sq.BettingInterval),
        ("variance", 4_000, sq.BoundedVariance),
    ):
        name = f"{task} Beta(2, 5), n = {n:,}"
        xs, ours, cost = [], [], 0.0
        for i in report.streams(4, 50):
            x = np.random.default_rng([SEED, 5, i]).beta(2.0, 5.0, n)
            xs.append(x)
            begin = time.process_time()
            process: Any = make()
            process.update(x)
            ours.append(process.interval().width)
            cost += time.process_time() - begin
        mine = report.width(name, "ours", ours, cost / len(ours) / n * 1e6)
        for peer in ("confseq", "ville") if task == "bounded" else ("ville",):
            theirs = report.their_width(name, peer, task, np.array(xs))
            if theirs is not None:
                report.claim(f"width / {peer}'s: {name}", mine / theirs, 1.0)
        report.note(name)


def _running_width(x: Array, p: float, edges: Array) -> float:
    """Of the running intersection, looked at every 100 records (ville's is of every record)."""
    q, running = sq.QuantileSequence(edges, p, planned=10_000), sq.Interval()
    for a in range(0, x.size, 100):
        q.update(x[a : a + 100])
        running = running.intersect(q.interval(ALPHA))
    return running.width
