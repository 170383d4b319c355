"""Rates and means: records until a difference is found."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from scipy import stats

from benchmarks.sequential import streams
from benchmarks.sequential.report import (
    ALPHA,
    SEED,
    STEP,
    Array,
    Report,
    Z,
    stop,
)
from understudy.shadow import sequential as sq


def binary(report: Report) -> None:
    """An error rate of 10 % against 8 % and 6 %, on split traffic at 50 % and 5 %."""
    base, smallest = 0.1, 0.02
    effect = sq.log_odds_effect(base, -smallest)
    for share in (0.5, 0.05):
        fixed = _fixed_rates(base, base - smallest, share)
        for times in (1, 2, 0):
            rate = base - times * smallest
            name = f"error rate {base:.0%} to {rate:.0%}, {share:.0%} split"
            limit = int((8 if times else 1) * fixed)
            if not times:
                name += ", decisions are errors"
            ours, ys, arms = [], [], []
            for i in report.streams(60, 1_000):
                rng = np.random.default_rng([SEED, 1, i])
                arm = streams.arms(rng, limit, share)
                y = (rng.random(limit) < np.where(arm == 1.0, rate, base)).astype(np.float64)
                test = sq.LabelBetting(effect, "two-sided")
                feed = _feed_labels(test, arm, y, share)
                ours.append(stop(test, limit, feed))
                if i < (10 if report.quick else 100) * (1 if times else 3):
                    ys.append(y)
                    arms.append(arm)
            figures = report.ours(name, "label betting", ours, fixed)
            if share == 0.5 and times == 1:
                for what, value, target in zip(
                    ("median", "80th percentile", "mean"), figures, (0.95, 1.75, 1.12), strict=False
                ):
                    report.claim(
                        f"{what} / fixed n: {name}",
                        None if value is None else value / fixed,
                        target,
                    )
            elif share == 0.5 and times:
                ratio = None if figures[0] is None else figures[0] / fixed
                report.claim(f"median / fixed n of the smallest effect: {name}", ratio, 0.30)
            for peer in ("ville", "gbstats", "savvi"):
                report.theirs(
                    name,
                    peer,
                    "binary",
                    fixed,
                    np.array(ys),
                    np.array(arms),
                    ours=ours,
                    claimed=times > 0,
                    share=share,
                    planned=fixed,
                )
            report.note(name)


def _feed_labels(
    test: sq.LabelBetting, arm: Array, y: Array, share: float
) -> Callable[[slice], None]:
    return lambda s: test.update(arm[s], y[s], share)


def _fixed_rates(p0: float, p1: float, share: float) -> float:
    """Both arms together; two-sided z test."""
    spread = p1 * (1 - p1) / share + p0 * (1 - p0) / (1 - share)
    return Z**2 * spread / (p1 - p0) ** 2


def paired(report: Report) -> None:
    """Accuracy 90 % against 91 % in shadow mode: 2 % of pairs favour the challenger, 1 % not."""
    name, wins, losses = "accuracy +1 point, 3 % discordant, in shadow", 0.02, 0.01
    gap, discordant = wins - losses, wins + losses
    z1, z2 = float(stats.norm.isf(ALPHA / 2)), float(stats.norm.isf(0.2))
    fixed = (z1 * math.sqrt(discordant) + z2 * math.sqrt(discordant - gap**2)) ** 2 / gap**2
    limit, concentration = int(8 * fixed), sq.tune_concentration(gap / (2 * discordant), sided=2)
    ours, unpaired, kept = [], [], []
    split = int(6 * _fixed_rates(0.90, 0.91, 0.5))
    for i in report.streams(100, 1_000):
        rng = np.random.default_rng([SEED, 2, i])
        d = rng.choice([-1.0, 0.0, 1.0], limit, p=[losses, 1 - discordant, wins])
        test = sq.PairedTest(concentration)
        ours.append(stop(test, limit, lambda s, test=test, d=d: test.update(d[s])))
        if i < (10 if report.quick else 200):
            kept.append(d)
            arm = streams.arms(rng, split, 0.5)
            y = (rng.random(split) < np.where(arm == 1.0, 0.91, 0.90)).astype(np.float64)
            labels = sq.LabelBetting(sq.log_odds_effect(0.90, 0.01))
            unpaired.append(stop(labels, split, _feed_labels(labels, arm, y, 0.5), 500))
    figures = report.ours(name, "paired", ours, fixed)
    apart = report.ours(
        "accuracy +1 point, 50 % split", "label betting", unpaired, _fixed_rates(0.90, 0.91, 0.5)
    )
    report.claim(f"median / fixed n of McNemar: {name}", figures[0] / fixed, 1.0)
    ratio = apart[0] / figures[0] if apart[0] and figures[0] else None
    report.claim("requests of the split test / of the paired one, medians", ratio, 6.0, ">=")
    for peer in ("ville", "confseq"):
        report.theirs(name, peer, "paired", fixed, np.array(kept), ours=ours)
    report.note(name)


def means(report: Report) -> None:
    """A difference of 0.1 standard deviations between normal arms."""
    name, gap = "mean +0.1 sd, normal, 50% split", 0.1
    fixed = 4.0 * Z**2 / gap**2
    limit = int(6 * fixed)
    ours, known, ys, arms = [], [], [], []
    for i in report.streams(60, 1_000):
        rng = np.random.default_rng([SEED, 3, i])
        arm = streams.arms(rng, limit, 0.5)
        y = rng.standard_normal(limit) + gap * arm
        process = sq.MeanDifference(fixed)
        shared = i < (6 if report.quick else 60)  # to the record, as the peers' are
        step = 1 if shared else STEP
        ours.append(
            stop(process, limit, lambda s, p=process, a=arm, y=y: p.update(a[s], y[s]), step)
        )
        test = sq.MixtureSPRT(1.0, sq.tune_tau(1.0, fixed / 2))
        known.append(stop(test, limit, lambda s, p=test, a=arm, y=y: p.update(a[s], y[s])))
        if shared:
            ys.append(y)
            arms.append(arm)
    report.ours(name, "asymptotic mean", ours, fixed)
    report.ours(name, "mSPRT", known, fixed)
    for peer in ("ville", "gbstats", "savvi"):
        report.theirs(
            name,
            peer,
            "mean",
            fixed,
            np.array(ys),
            np.array(arms),
            ours=ours,
            share=0.5,
            planned=fixed,
        )
    report.note(name)
