"""What the comparisons of times to decision share: rows, claims, peers on the same streams."""

from __future__ import annotations

import math
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from benchmarks.harness import Claim, Result, environment
from benchmarks.sequential import peers
from benchmarks.sequential.peers import ask

ALPHA = 0.05
SEED = 77
STEP = 10
ONE_SIDED = float(stats.norm.isf(ALPHA) + stats.norm.isf(0.2))
Z = float(stats.norm.isf(ALPHA / 2) + stats.norm.isf(0.2))
Array = npt.NDArray[np.float64]


def stop(process: Any, n: int, feed: Callable[[slice], None], step: int = STEP) -> float:
    """Records until the process rejects, to the next multiple of ``step``; infinity for never."""
    for a in range(0, n, step):
        feed(slice(a, min(a + step, n)))
        if process.rejects(ALPHA):
            return float(min(a + step, n))
    return math.inf


def summary(stops: list[float]) -> list[float | None]:
    """Median, 80th percentile, mean of those decided, share decided."""
    x = np.array(stops)
    done = x[np.isfinite(x)]
    quantiles = [float(np.quantile(x, q, method="higher")) for q in (0.5, 0.8)]
    return [
        *(q if math.isfinite(q) else None for q in quantiles),
        float(done.mean()) if done.size else None,
        float(done.size / x.size),
    ]


class Report:
    """Collects rows, claims and measurements of one run."""

    def __init__(self, quick: bool) -> None:
        self.quick = quick
        self.known = peers.prepare()
        self.result = Result(
            "sequential-decisions",
            environment(quick=quick, alpha=ALPHA, seed=SEED, power=0.8),
        )
        self.result.measurements["missing peers"] = self.known["missing"]
        self.rows: list[list[Any]] = []
        self.widths: list[list[Any]] = []
        self.begin = time.perf_counter()

    def streams(self, quick: int, full: int) -> range:
        return range(quick if self.quick else full)

    def note(self, text: str) -> None:
        print(f"  [{time.perf_counter() - self.begin:5.0f} s] {text}", file=sys.stderr, flush=True)

    def ours(self, question: str, method: str, stops: list[float], fixed: float | None) -> Any:
        """A row of ours (or of any list of stops); returns its summary."""
        figures = summary(stops)
        ratio = figures[0] / fixed if fixed and figures[0] is not None else None
        self.rows.append([question, method, len(stops), *figures, fixed, ratio, None, None])
        return figures

    def theirs(
        self,
        question: str,
        peer: str,
        task: str,
        fixed: float | None,
        y: Array,
        arm: Array | None = None,
        *,
        ours: list[float],
        claimed: bool = True,
        also: tuple[str, list[float]] | None = None,
        **settings: Any,
    ) -> None:
        """A row of a peer on our first streams, or why there is none.

        ``claimed``: whether ours shall be at least as fast; ``also``: a second form of ours, with
        its name.
        """
        arrays = {"y": y} | ({} if arm is None else {"arm": arm})
        answer = ask(self.known, peer, task, arrays, **settings)
        if answer is None or "failed" in answer:
            reason = (
                self.known["missing"].get(peer, "not here") if answer is None else answer["failed"]
            )
            self.rows.append([question, f"{peer}: {reason}", 0, *[None] * 8])
            return
        stops = [math.inf if n is None else float(n) for n in answer["stops"]]
        figures = summary(stops)
        ratio = figures[0] / fixed if fixed and figures[0] is not None else None
        against = _ratio(ours[: len(stops)], figures[0])
        row = [question, peer, len(stops), *figures, fixed, ratio, answer["us"], against]
        self.rows.append(row)
        if claimed:
            self.claim(f"median records / {peer}'s, same streams: {question}", against, 1.0)
        if also is not None:
            value = _ratio(also[1][: len(stops)], figures[0])
            text = f"median records / {peer}'s, same streams, {also[0]}: {question}"
            self.claim(text, value, 1.0)

    def width(
        self, question: str, method: str, widths: list[float], us: float | None = None
    ) -> Any:
        """A row of interval widths; infinite ones count as such in the median."""
        median = float(np.median(widths)) if widths else math.inf
        finite = float(np.isfinite(widths).mean()) if widths else None
        shown = median if math.isfinite(median) else None
        self.widths.append([question, method, len(widths), shown, finite, us])
        return median

    def their_width(
        self, question: str, peer: str, task: str, y: Array, **settings: Any
    ) -> float | None:
        answer = ask(self.known, peer, task, {"y": y}, **settings)
        if answer is None or "failed" in answer:
            reason = (
                self.known["missing"].get(peer, "not here") if answer is None else answer["failed"]
            )
            self.widths.append([question, f"{peer}: {reason}", 0, None, None, None])
            return None
        values = [math.inf if w is None else float(w) for w in answer["widths"]]
        return float(self.width(question, peer, values, answer["us"]))

    def claim(self, text: str, value: float | None, target: float, op: str = "<=") -> None:
        self.result.claims.append(Claim(text, value, target, op))

    def finish(self) -> Result:
        self.result.tables += [
            (
                "Records until a decision",
                [
                    "question",
                    "method",
                    "streams",
                    "median",
                    "80th percentile",
                    "mean of decided",
                    "share decided",
                    "fixed-horizon n",
                    "median / fixed",
                    "peer's µs per record",
                    "ours / peer",
                ],
                self.rows,
            ),
            (
                "Widths of 95 % intervals",
                ["question", "method", "streams", "median width", "share finite", "µs per record"],
                self.widths,
            ),
        ]
        self.result.measurements["decisions"] = self.rows
        self.result.measurements["widths"] = self.widths
        return self.result


def _ratio(ours: list[float], theirs: float | None) -> float | None:
    """Our median over theirs; 0 when only we decide, None when we do not."""
    mine = float(np.quantile(ours, 0.5, method="higher"))
    if not math.isfinite(mine):
        return None
    return 0.0 if theirs is None else mine / theirs


def feed_split(process: Any, arm: Array, x: Array) -> Callable[[slice], None]:
    return lambda s: process.update(arm[s], x[s])
