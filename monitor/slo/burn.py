"""Burn rates: when an alert fires, and which alerts can fire at all.

A burn rate of 1 spends the error budget exactly within the period. An alert compares two windows:
the long one shows that enough was spent, the short one that it is still being spent (Beyer et al.,
"The Site Reliability Workbook", chapter 5, "Multiwindow, Multi-Burn-Rate Alerts"). Its factor
follows is ``share of the budget x period / long window``. Times are in seconds.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal

from understudy.common.units import DAY, HOUR, MINUTE, duration, percent, spoken, times

Severity = Literal["page", "ticket"]
SEVERITIES: tuple[Severity, ...] = ("page", "ticket")
HIGHEST_THRESHOLD = 0.8
"""An alert that needs a larger share of bad events than this practically cannot fire."""
LEAST_BAD = 5.0
"""Minimum number of bad events in the long window for a page."""
_SLACK = 1e-9


@dataclass(frozen=True, slots=True)
class Window:
    """A pair of windows: the alert detects ``share`` of the budget spent within ``long``
    seconds."""

    severity: Severity
    share: float
    long: float
    short: float


WORKBOOK = (
    Window("page", 0.02, HOUR, 5 * MINUTE),
    Window("page", 0.05, 6 * HOUR, 30 * MINUTE),
    Window("ticket", 0.10, DAY, 2 * HOUR),
    Window("ticket", 0.10, 3 * DAY, 6 * HOUR),
)
"""The windows of the workbook: over 30 days their factors are 14.4, 6, 3 and 1."""

_WORKBOOK_PERIOD = 30 * DAY
_SHORTEST_LONG = 12 * MINUTE
"""Shortest long window: its twelfth is a minute, which has some scrapes."""


class PeriodError(ValueError):
    """A period that is too short for its windows; the message says what is long enough."""


def windows_of(period: float, declared: Sequence[Window] | None = None) -> Sequence[Window]:
    """The windows for a period in seconds: those ``declared``, or the workbook's.

    For a period of less than twice its longest window, the workbook's windows are shortened as the
    period is, so that their factors stay the same; those below 12 minutes are left out. Raises
    PeriodError where nothing is left, and for a declared window as long as the period.
    """
    if declared is not None:
        for window in declared:
            if window.long >= period:
                raise PeriodError(
                    f"{spoken(period)} is not longer than the long window of "
                    f"{duration(window.long)}: use a longer period or shorter windows"
                )
        return declared
    longest = max(window.long for window in WORKBOOK)
    if period >= 2 * longest:
        return WORKBOOK
    scale = period / _WORKBOOK_PERIOD
    minutes = [(window, round(window.long * scale / MINUTE)) for window in WORKBOOK]
    found = tuple(
        Window(window.severity, window.share, MINUTE * long, MINUTE * max(1, round(long / 12)))
        for window, long in minutes
        if MINUTE * long >= _SHORTEST_LONG
    )
    if not found:
        least = _SHORTEST_LONG * _WORKBOOK_PERIOD / longest
        raise PeriodError(
            f"{spoken(period)} is too short: its windows would be below "
            f"{duration(_SHORTEST_LONG)}; use {duration(least)} or more, or declare `windows`"
        )
    return found


@dataclass(frozen=True, slots=True)
class Burn:
    """One pair of windows of one objective: bad events above ``factor x budget`` in both.

    ``reason`` explains a factor that differs from the one computed from the share of the budget.
    """

    window: Window
    factor: float
    budget: float
    reason: str = ""

    @property
    def threshold(self) -> float:
        """The share of bad events above which the alert fires."""
        return self.factor * self.budget

    def to_fire(self, bad: float, before: float = 0.0) -> float:
        """Seconds until the alert fires after the share of bad events steps from ``before`` to
        ``bad``, at a constant rate of events for longer than the long window; infinite when it
        never fires."""
        if bad <= self.threshold + _SLACK or bad <= before:
            return math.inf
        if before > self.threshold:
            return 0.0
        return self.window.long * (self.threshold - before) / (bad - before)

    def to_end(self, bad: float) -> float:
        """Seconds until the alert ends after a fault with a share ``bad`` of bad events is over;
        the short window drops below the threshold first."""
        return self.window.short * max(0.0, 1.0 - self.threshold / bad)


class UnreachableError(ValueError):
    """An alert that cannot fire; the message gives the reason and an alternative."""


def burns(
    objective: float,
    period: float,
    windows: Sequence[Window] = WORKBOOK,
    *,
    highest: float = HIGHEST_THRESHOLD,
    refuse: bool = False,
) -> tuple[Burn, ...]:
    """The alerts of an objective in (0, 1) over ``period`` seconds.

    A factor whose threshold exceeds ``highest`` is lowered to it, or rejected (``refuse``). A
    factor below 1 is raised to 1: at a burn rate below 1 the budget lasts. Raises UnreachableError.
    """
    budget = 1.0 - objective
    return tuple(_burn(window, budget, period, highest, refuse) for window in windows)


def _burn(window: Window, budget: float, period: float, highest: float, refuse: bool) -> Burn:
    factor = window.share * period / window.long
    wanted = (
        f"{percent(window.share)} of the budget in {duration(window.long)} is a burn rate of "
        f"{times(factor)}"
    )
    if factor < 1.0 - _SLACK:
        reason = (
            f"{wanted}, at which the budget lasts longer than the period of {spoken(period)}; "
            "raised to 1 x"
        )
        factor = 1.0
    else:
        reason = ""
    threshold = factor * budget
    if threshold <= highest + _SLACK:
        return Burn(window, factor, budget, reason)
    cannot = "can never fire" if threshold >= 1.0 - _SLACK else "hardly ever fires"
    fault = f"{wanted}, and that needs {percent(threshold)} bad events: it {cannot}"
    lowered = highest / budget
    if refuse or lowered < 1.0:
        longest = max(window.long, window.share * period * budget / highest)
        hint = (
            f"a long window of {spoken(longest)} or more can notice this share"
            if longest < period
            else f"an objective above {percent(1.0 - highest)} can"
        )
        raise UnreachableError(f"{fault}; {hint}")
    spent = lowered * window.long / period
    return Burn(
        window,
        lowered,
        budget,
        f"{fault}; lowered to {times(lowered)} ({percent(highest)} bad events), which is reached "
        f"after {percent(spent)} of the budget",
    )


@dataclass(frozen=True, slots=True)
class Firing:
    """When an alert fires after the start of a fault; ``spent`` is the share of the whole budget
    that is spent by then."""

    burn: Burn
    seconds: float
    spent: float
    guarded: bool
    """Whether the minimum number of bad events determines the time."""


def first(
    found: Iterable[Burn],
    severity: Severity,
    bad: float,
    period: float,
    *,
    before: float = 0.0,
    rate: float | None = None,
    least: float = LEAST_BAD,
) -> Firing | None:
    """The first alert of a severity that fires at a share of ``bad`` events; None when none does.

    ``rate`` is in events per second; None assumes enough events. ``least`` is the minimum number of
    bad events in the long window.
    """
    best: Firing | None = None
    for burn in found:
        if burn.window.severity != severity:
            continue
        seconds = burn.to_fire(bad, before)
        guarded = False
        if rate is not None and math.isfinite(seconds):
            needed = least / (rate * bad)
            if needed > burn.window.long:
                continue  # the window forgets the first one before the last one comes
            guarded = needed > seconds
            seconds = max(seconds, needed)
        if not math.isfinite(seconds) or (best is not None and seconds >= best.seconds):
            continue
        best = Firing(burn, seconds, bad * seconds / (burn.budget * period), guarded)
    return best


def false_pages(factor: float, least: float) -> float:
    """The largest probability, over all rates of traffic, of a false alarm in one window while
    exactly the budget is spent: bad events are Poisson, at least ``least`` of them and more than
    ``factor`` times the expected number."""
    worst = 0.0
    for expected in (step / 50 for step in range(1, 50 * 40)):
        # The smallest count above factor x expected and not below least.
        count = max(math.ceil(least), math.floor(factor * expected) + 1)
        below, term = 0.0, math.exp(-expected)
        for k in range(count):
            below += term
            term *= expected / (k + 1)
        worst = max(worst, 1.0 - below)
    return worst
