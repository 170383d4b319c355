"""Runs one task of one peer; started by ``peers.py`` with the peer's own interpreter.

Reads a job from standard input and arrays from the npz file it is given; prints one JSON line:
``stops`` (records until a decision per stream, null for none) or ``widths``, and ``us`` (processor
microseconds per record). Imports numpy and the one peer, nothing of this project.
"""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import numpy as np

ALPHA = 0.05


def growing(n: int, factor: float) -> list[int]:
    """Sizes at which a peer without a cheap update is asked."""
    ends, at = [], 20
    while at < n:
        ends.append(at)
        at = max(at + 1, int(at * factor))
    return [*ends, n]


def ville_binary(y: Any, arm: Any, settings: dict[str, Any]) -> dict[str, Any]:
    import ville

    def stop(i: int) -> int | None:
        test = ville.AsymptoticABTest(
            alpha=ALPHA, propensity=settings["share"], t_opt=settings["planned"]
        )
        return test.fit(y[i], arm[i]).stopping_time()

    return stops(stop, y)


def gbstats_mean(y: Any, arm: Any, settings: dict[str, Any]) -> dict[str, Any]:
    from gbstats.frequentist.tests import SequentialConfig, SequentialTwoSidedTTest
    from gbstats.models.statistics import SampleMeanStatistic

    config = SequentialConfig(
        difference_type="absolute", sequential_tuning_parameter=settings["planned"], alpha=ALPHA
    )

    def stop(i: int) -> int | None:
        n1 = np.cumsum(arm[i])
        sums = [np.cumsum(y[i] * (arm[i] == side)) for side in (0, 1)]
        squares = [np.cumsum(y[i] ** 2 * (arm[i] == side)) for side in (0, 1)]
        for n in growing(y.shape[1], 1.01):
            counts = (n - n1[n - 1], n1[n - 1])
            if min(counts) < 2:
                continue
            parts = [
                SampleMeanStatistic(
                    n=int(counts[side]),
                    sum=float(sums[side][n - 1]),
                    sum_squares=float(squares[side][n - 1]),
                )
                for side in (0, 1)
            ]
            low, high = SequentialTwoSidedTTest(parts[0], parts[1], config).confidence_interval
            if low > 0 or high < 0:
                return n
        return None

    return stops(stop, y)


def savvi_counts(y: Any, arm: Any, settings: dict[str, Any]) -> dict[str, Any]:
    from savvi.multinomial import Multinomial

    share = settings["share"]

    def stop(i: int) -> int | None:
        test = Multinomial(ALPHA, np.array([1.0 - share, share]))
        for at in np.nonzero(y[i])[0]:
            a = int(arm[i, at])
            test.update(np.array([1 - a, a]))
            if test.odds >= 1.0 / ALPHA:
                return int(at) + 1
        return None

    return stops(stop, y)


def savvi_mean(y: Any, arm: Any, settings: dict[str, Any]) -> dict[str, Any]:
    from savvi.linear_regression import LinearRegression

    def stop(i: int) -> int | None:
        test = LinearRegression(ALPHA, 2)
        for n, (value, a) in enumerate(zip(y[i], arm[i], strict=True), 1):
            test.update(np.array([value, 1.0, a]))
            if n > 20 and np.asarray(test.calculate_p_value())[1] <= ALPHA:
                return n
        return None

    return stops(stop, y)


def ville_paired(y: Any, arm: Any, settings: dict[str, Any]) -> dict[str, Any]:
    import ville

    def stop(i: int) -> int | None:
        return ville.BettingTest(0.0, bounds=(-1.0, 1.0), alpha=ALPHA).fit(y[i]).stopping_time()

    return stops(stop, y)


def confseq_paired(y: Any, arm: Any, settings: dict[str, Any]) -> dict[str, Any]:
    from confseq.betting import betting_mart

    def stop(i: int) -> int | None:
        over = np.nonzero(betting_mart((y[i] + 1.0) / 2.0, 0.5, alpha=ALPHA) >= 1.0 / ALPHA)[0]
        return int(over[0]) + 1 if over.size else None

    return stops(stop, y)


def confseq_two_quantiles(y: Any, arm: Any, settings: dict[str, Any]) -> dict[str, Any]:
    from confseq.quantiles import quantile_ab_p_value

    def stop(i: int) -> int | None:
        for n in growing(y.shape[1], 1.02):
            first, second = y[i, :n][arm[i, :n] == 0], y[i, :n][arm[i, :n] == 1]
            if min(first.size, second.size) < 20:
                continue
            if quantile_ab_p_value(first, second, settings["p"], settings["planned"]) <= ALPHA:
                return n
        return None

    return stops(stop, y)


def ville_quantile(y: Any, arm: Any, settings: dict[str, Any]) -> dict[str, Any]:
    import ville

    def width(i: int) -> float:
        cs = ville.QuantileCS(settings["p"], alpha=ALPHA, t_opt=settings["planned"]).fit(y[i])
        low, high = cs.interval()
        return float(high - low)

    return widths(width, y)


def confseq_quantile(y: Any, arm: Any, settings: dict[str, Any]) -> dict[str, Any]:
    from confseq.quantiles import double_stitching_bound

    p = settings["p"]

    def width(i: int) -> float:
        x = np.sort(y[i])
        n = x.size
        above = double_stitching_bound(p, n, ALPHA, settings["planned"])
        below = double_stitching_bound(1.0 - p, n, ALPHA, settings["planned"])
        low, high = int(np.floor(n * p - below)), int(np.ceil(n * p + above))
        return float((x[high] if high < n else np.inf) - (x[low - 1] if low >= 1 else -np.inf))

    return widths(width, y)


def ville_bounded(y: Any, arm: Any, settings: dict[str, Any]) -> dict[str, Any]:
    import ville

    def width(i: int) -> float:
        low, high = ville.BettingCS(bounds=(0.0, 1.0), alpha=ALPHA, grid=1_000).fit(y[i]).interval()
        return float(high - low)

    return widths(width, y)


def confseq_bounded(y: Any, arm: Any, settings: dict[str, Any]) -> dict[str, Any]:
    from confseq.betting import betting_cs

    def width(i: int) -> float:
        low, high = betting_cs(y[i], alpha=ALPHA, running_intersection=True)
        return float(high[-1] - low[-1])

    return widths(width, y)


def ville_variance(y: Any, arm: Any, settings: dict[str, Any]) -> dict[str, Any]:
    import ville

    def width(i: int) -> float:
        low, high = ville.VarianceCS(alpha=ALPHA).fit(y[i]).interval()
        return float(high - low)

    return widths(width, y)


def stops(stop: Any, y: Any) -> dict[str, Any]:
    """Records until a decision on each stream."""
    begin = time.process_time()
    found = [stop(i) for i in range(len(y))]
    spent = time.process_time() - begin
    used = sum(n if n is not None else y.shape[1] for n in found)
    return {"stops": found, "us": spent / used * 1e6}


def widths(width: Any, y: Any) -> dict[str, Any]:
    """Width of the last interval on each stream; null when infinite."""
    begin = time.process_time()
    found = [width(i) for i in range(len(y))]
    spent = time.process_time() - begin
    return {
        "widths": [w if np.isfinite(w) else None for w in found],
        "us": spent / y.size * 1e6,
    }


TASKS = {
    ("ville", "binary"): ville_binary,
    ("gbstats", "binary"): gbstats_mean,
    ("savvi", "binary"): savvi_counts,
    ("ville", "mean"): ville_binary,
    ("gbstats", "mean"): gbstats_mean,
    ("savvi", "mean"): savvi_mean,
    ("ville", "paired"): ville_paired,
    ("confseq", "paired"): confseq_paired,
    ("confseq", "two quantiles"): confseq_two_quantiles,
    ("ville", "quantile"): ville_quantile,
    ("confseq", "quantile"): confseq_quantile,
    ("ville", "bounded"): ville_bounded,
    ("confseq", "bounded"): confseq_bounded,
    ("ville", "variance"): ville_variance,
}


def main() -> None:
    """Run the job that standard input describes."""
    job = json.load(sys.stdin)
    data = np.load(sys.argv[1], allow_pickle=False)
    y = data["y"]
    arm = data["arm"] if "arm" in data.files else None
    np.seterr(all="ignore")
    answer = TASKS[job["peer"], job["task"]](y, arm, job["settings"])
    print(json.dumps(answer, allow_nan=False))


if __name__ == "__main__":
    main()
