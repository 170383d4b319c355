"""Draws the pictures of ``docs/promises.md`` with the project's own tests, on simulated models.

The random numbers are seeded, so the same code draws the same pictures. Colours suit a light and a
dark page.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

from understudy.common.svg import Axes
from understudy.shadow.sequential import PairedMargin, PairedTest, tune_concentration

FOLDER = Path(__file__).resolve().parent.parent / "docs" / "images" / "promises"
STYLE = """<style>
text{font:13px system-ui,sans-serif;fill:#808a94}
.grid{stroke:#808a94;stroke-opacity:.25}
.rule{stroke:#808a94;stroke-dasharray:5 4}
.ours,.wrong{fill:none;stroke-width:2.5}
.ours{stroke:#2196a8}.wrong{stroke:#d9822b}
text.ours{fill:#2196a8;stroke:none}text.wrong{fill:#d9822b;stroke:none}text.rule{stroke:none}
.band{fill:#2196a8;fill-opacity:.22;stroke:#2196a8;stroke-width:1.5}
.done{stroke:#4a9d5b;stroke-width:2}text.done{fill:#4a9d5b;stroke:none}
</style>"""
LEVEL = 0.05
STREAMS, LOOKS, PAIRS = 400, 120, 100
"""Experiments, looks of each, and requests between two looks."""


def _drawing(axes: Axes) -> str:
    """The picture as a file of its own."""
    head, _, rest = axes.svg().partition(">")
    return f'{head} xmlns="http://www.w3.org/2000/svg">{STYLE}{rest}\n'


@cache
def _claims() -> tuple[list[float], list[float]]:
    """The share of experiments that have claimed a difference by each look: an ordinary sign test,
    and the sequential one. Both models are right equally often, and differ in 10 % of the answers."""
    rng = np.random.default_rng(18)
    wins = rng.binomial(PAIRS, 0.05, (STREAMS, LOOKS))
    losses = rng.binomial(PAIRS - wins, 0.05 / 0.95)
    total_wins, total_losses = wins.cumsum(axis=1), losses.cumsum(axis=1)
    ordinary = np.abs(total_wins - total_losses) > 1.96 * np.sqrt(total_wins + total_losses)
    concentration = tune_concentration(0.1, LEVEL, sided=2)
    sequential = np.zeros((STREAMS, LOOKS), bool)
    for stream in range(STREAMS):
        test = PairedTest(concentration, alternative="two-sided")
        for look in range(LOOKS):
            won, lost = int(wins[stream, look]), int(losses[stream, look])
            test.update_counts(won, lost, PAIRS - won - lost)
            sequential[stream, look] = test.p_value <= LEVEL
    ever = [np.maximum.accumulate(one, axis=1).mean(axis=0) for one in (ordinary, sequential)]
    return ever[0].tolist(), ever[1].tolist()


def peeking() -> str:
    """How many experiments with identical models claim a difference when one looks often."""
    ordinary, sequential = _claims()
    most = PAIRS * LOOKS
    axes = Axes(
        (720, 320), (60, 150, 16, 46), (0, most), (0, 0.4),
        "Share of experiments with identical models that have claimed a difference",
    )  # fmt: skip
    axes.grid((0, 0.1, 0.2, 0.3, 0.4), lambda value: f"{value:.0%}")
    axes.x_labels(range(0, most + 1, 3000), lambda value: f"{value:,.0f}")
    axes.x_name("requests, with a look after every hundred")
    axes.rule(LEVEL, "rule")
    numbers = [PAIRS * (look + 1) for look in range(LOOKS)]
    for shares, cls, text in (
        (ordinary, "wrong", "ordinary test"),
        (sequential, "ours", "sequential test"),
    ):
        axes.curve(zip(numbers, shares, strict=True), cls)
        axes.text(axes.right + 8, axes.y(shares[-1]) + 4, text, cls=cls)
    axes.text(axes.right + 8, axes.y(LEVEL) - 4, "promised: 5 %")
    return _drawing(axes)


def interval() -> str:
    """An interval that narrows until its lower end passes minus the margin."""
    margin, truth = 0.01, 0.004
    rng = np.random.default_rng(7)
    test = PairedMargin(-margin, alternative="greater")
    rows: list[tuple[int, float, float]] = []
    for look in range(1, 161):
        won = int(rng.binomial(PAIRS, 0.04 + truth))
        lost = int(rng.binomial(PAIRS - won, 0.04 / (1 - 0.04 - truth)))
        test.update_counts(won, lost, PAIRS - won - lost)
        found = test.interval(LEVEL)
        rows.append((look * PAIRS, found.lower, found.upper))
    most = rows[-1][0]
    axes = Axes(
        (720, 320), (60, 150, 16, 46), (0, most), (-0.03, 0.04),
        "Interval of the difference in accuracy, by number of requests",
    )  # fmt: skip
    axes.grid((-0.02, 0.0, 0.02, 0.04), lambda value: f"{100 * value:+.0f} pp" if value else "0")
    axes.x_labels(range(0, most + 1, 4000), lambda value: f"{value:,.0f}")
    axes.x_name("requests")
    shown = [row for row in rows if row[0] >= 500]
    edge = [(n, high) for n, _, high in shown] + [(n, low) for n, low, _ in reversed(shown)]
    axes.add("polygon", cls="band", points=" ".join(f"{x:.1f},{y:.1f}" for x, y in axes.at(edge)))
    axes.rule(-margin, "rule")
    axes.text(axes.right + 8, axes.y(-margin) + 4, "minus the margin")
    axes.rule(truth, "rule")
    axes.text(axes.right + 8, axes.y(truth) + 4, "true difference")
    decided = next(n for n, low, _ in rows if low > -margin)
    at = axes.x(decided)
    axes.add("line", cls="done", x1=at, x2=at, y1=axes.top, y2=axes.bottom)
    axes.text(at + 6, axes.top + 12, f"not worse: proven after {decided:,}", cls="done")
    return _drawing(axes)


PICTURES: dict[Path, Callable[[], str]] = {
    FOLDER / "peeking.svg": peeking,
    FOLDER / "interval.svg": interval,
}
