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
from understudy.shadow.experiment.measures.rate import SMALL_SHARE, WIDE


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
                # As in experiments, which bet on fewer events more widely at small shares.
                bets = WIDE if share < SMALL_SHARE else (1.1, 0.5)
                test = sq.LabelBetting(effect, "two-sided", centre=bets[0], width=bets[1])
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
            if times:
                _against_bound(report, name, figures[2], base, rate, share)
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


def _against_bound(
    report: Report, name: str, mean: float | None, p0: float, p1: float, share: float
) -> None:
    """The mean beside the least that any two-sided test which keeps its level can reach.

    ln(2/alpha)/I records (Wald), I = share KL(p1, q) + (1 - share) KL(p0, q) with q the pooled
    rate. A test without knowledge of the rates needs more; a peer below it does not keep its level.
    """
    q = share * p1 + (1.0 - share) * p0
    information = sum(
        part * (p * math.log(p / q) + (1.0 - p) * math.log((1.0 - p) / (1.0 - q)))
        for part, p in ((share, p1), (1.0 - share, p0))
    )
    least = math.log(2.0 / ALPHA) / information
    report.rows.append(
        [name, "the least mean of any exact test", 0, None, None, least, *[None] * 5]
    )
    ratio = None if mean is None else mean / least
    report.claim(f"mean records / the least mean of any exact test: {name}", ratio, BOUND)


def rare(report: Report) -> None:
    """Rare errors at small shares: 0.1 % against 0.2 % and 0.4 %, at 5 % and 1 %; and 1 % against
    1 %, where asymptotic peers decide."""
    for share, base, rate in (
        (0.05, 0.001, 0.002),
        (0.05, 0.001, 0.004),
        (0.01, 0.001, 0.004),
        (0.05, 0.01, 0.01),
    ):
        effect = sq.log_odds_effect(base, base)
        fixed = _fixed_rates(base, 2.0 * base, share)
        alike = rate == base
        limit, step = int((3 if rate == 2.0 * base or alike else 1) * fixed), 500
        name = f"error rate {base:.1%} to {rate:.1%}, {share:.0%} split"
        if alike:
            name += ", decisions are errors"
        ours, ys, arms = [], [], []
        for i in report.streams(20, 300):
            rng = np.random.default_rng([SEED, 8, i])
            arm = streams.arms(rng, limit, share)
            y = (rng.random(limit) < np.where(arm == 1.0, rate, base)).astype(np.float64)
            test = sq.LabelBetting(effect, "two-sided")
            ours.append(stop(test, limit, _feed_labels(test, arm, y, share), step))
            if i < (5 if report.quick else 40) * (4 if alike else 1):
                ys.append(y)
                arms.append(arm)
        figures = report.ours(name, "label betting", ours, fixed)
        if not alike:
            _against_bound(report, name, figures[2], base, rate, share)
        for peer in ("ville", "gbstats"):
            report.theirs(
                name,
                peer,
                "binary",
                fixed,
                np.array(ys),
                np.array(arms),
                ours=ours,
                claimed=not alike,
                share=share,
                planned=fixed,
            )
        report.note(name)


BOUND = 1.5
"""Times of the least mean that a mixture over unknown effects may need."""
PAIRS = ((0.90, 0.02, 0.01), (0.95, 0.012, 0.004), (0.99, 0.0028, 0.0008))
"""Accuracy of the champion, and the shares of pairs in which the challenger alone, or the champion
alone, is right."""


def paired(report: Report) -> None:
    """Accuracy in shadow mode, beside a split at 50 %.

    With p the accuracy and d the share of discordant pairs, a split carries the information gap^2 /
    (4 p (1 - p)) per request, a pair gap^2 / d. So pairing saves a factor of about 4 p (1 - p) / d:
    12, 11 and 10 here, and fewer than 6 where models disagree on more than 2 p (1 - p) / 3 of the
    requests (6 % at an accuracy of 90 %). No test can change that.
    """
    for accuracy, wins, losses in PAIRS:
        _paired(report, accuracy, wins, losses)


def _paired(report: Report, accuracy: float, wins: float, losses: float) -> None:
    gap, discordant = wins - losses, wins + losses
    name = (
        f"accuracy {accuracy:.0%} +{100 * gap:.1g} points, {discordant:.1%} discordant, in shadow"
    )
    z1, z2 = float(stats.norm.isf(ALPHA / 2)), float(stats.norm.isf(0.2))
    fixed = (z1 * math.sqrt(discordant) + z2 * math.sqrt(discordant - gap**2)) ** 2 / gap**2
    limit, concentration = int(8 * fixed), sq.tune_concentration(gap / (2 * discordant), sided=2)
    ours, unpaired, kept = [], [], []
    better = accuracy + gap
    split = int(6 * _fixed_rates(accuracy, better, 0.5))
    for i in report.streams(100, 1_000):
        rng = np.random.default_rng([SEED, 2, i])
        d = rng.choice([-1.0, 0.0, 1.0], limit, p=[losses, 1 - discordant, wins])
        test = sq.PairedTest(concentration)
        ours.append(stop(test, limit, lambda s, test=test, d=d: test.update(d[s])))
        if i < (10 if report.quick else 200):
            kept.append(d)
            arm = streams.arms(rng, split, 0.5)
            y = (rng.random(split) < np.where(arm == 1.0, better, accuracy)).astype(np.float64)
            labels = sq.LabelBetting(sq.log_odds_effect(accuracy, gap))
            unpaired.append(stop(labels, split, _feed_labels(labels, arm, y, 0.5), 500))
    figures = report.ours(name, "paired", ours, fixed)
    apart = report.ours(
        name.replace("in shadow", "50% split"),
        "label betting",
        unpaired,
        _fixed_rates(accuracy, better, 0.5),
    )
    report.claim(f"median / fixed n of McNemar: {name}", figures[0] / fixed, 1.0)
    ratio = apart[0] / figures[0] if apart[0] and figures[0] else None
    report.claim(
        f"requests of the split test / of the paired one, medians: {name}", ratio, 6.0, ">="
    )
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
