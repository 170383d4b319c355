"""Group-sequential tests with alpha spending, for when a fixed horizon is wanted.

A statistic that is normal with independent increments (a z-value at information time t in (0, 1])
is looked at a few times; a spending function says how much of alpha may be gone by each. The
boundaries follow by numerical integration over the continuation region (Armitage, McPherson & Rowe
1969; Lan & DeMets, Biometrika 1983; Jennison & Turnbull 2000, ch. 19). Looks need not be planned,
but their times may not depend on the results, and nothing is promised after t = 1. Unlike the
e-processes of this library it is valid only at the looks, and only as far as normality is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from scipy import optimize, special

from understudy.shadow.sequential.common import (
    Array,
    SequentialError,
    choice,
    positive,
    probability,
    real,
    reals,
)

Spending = Callable[[float], float]

_NODES = 256
_ROOT_2_PI = math.sqrt(2.0 * math.pi)
_FAR = 10.0  # standard deviations beyond which a density is nothing
_LEAST = 1e-16  # a smaller amount cannot be resolved: no boundary at that look
MAX_LOOKS = 200


def obrien_fleming(alpha: float, convention: str = "ldbounds") -> Spending:
    """O'Brien-Fleming-like spending of a two-sided total ``alpha``; two conventions exist.

    * "ldbounds": 4 (1 - Phi(z_{alpha/4}/sqrt t)), i.e. each side spends alpha/2 by the one-sided
      formula; reproduces the tables of ld98 and R's ldbounds, for two-sided tests.
    * "one-sided": 2 (1 - Phi(z_{alpha/2}/sqrt t)), the formula printed in Lan & DeMets 1983, which
      is that of a one-sided test at ``alpha``.
    """
    level = probability("alpha", alpha)
    choice("convention", convention, "ldbounds", "one-sided")
    parts = 2.0 if convention == "ldbounds" else 1.0
    z = -float(special.ndtri(level / (2.0 * parts)))
    return lambda t: parts * 2.0 * float(special.ndtr(-z / math.sqrt(t))) if t > 0.0 else 0.0


def pocock(alpha: float) -> Spending:
    """Pocock-like spending alpha ln(1 + (e - 1) t)."""
    level = probability("alpha", alpha)
    return lambda t: level * math.log1p((math.e - 1.0) * t)


def power_family(alpha: float, exponent: float) -> Spending:
    """Power-family spending alpha t^exponent (Kim & DeMets 1987)."""
    level, rho = probability("alpha", alpha), positive("exponent", exponent)
    return lambda t: level * t**rho


@dataclass(frozen=True, slots=True)
class Boundaries:
    """z-values at which to stop, one per look, and the alpha spent by then.

    ``upper`` is inf where too little may be spent to stop at all; ``lower`` is ``-upper`` for a
    two-sided test and -inf for a one-sided one. ``nominal`` is the p-value that reaches the
    boundary.
    """

    times: tuple[float, ...]
    upper: tuple[float, ...]
    spent: tuple[float, ...]
    sided: int

    @property
    def lower(self) -> tuple[float, ...]:
        """Lower boundaries."""
        return tuple(-z if self.sided == 2 else -math.inf for z in self.upper)

    @property
    def nominal(self) -> tuple[float, ...]:
        """p-values, of the test's sidedness, at the boundaries."""
        return tuple(self.sided * float(special.ndtr(-z)) for z in self.upper)

    def crossed(self, z: Sequence[float]) -> int | None:
        """The first look (from 0) whose z-value lies on or beyond its boundary, or None."""
        values = reals("z", np.asarray(z, dtype=np.float64))
        if values.size > len(self.times):
            raise SequentialError("z", f"must be at most {len(self.times)} values")
        for look, value in enumerate(values):
            if value >= self.upper[look] or value <= self.lower[look]:
                return look
        return None


def boundaries(times: Sequence[float], spending: Spending, *, sided: int = 2) -> Boundaries:
    """The boundaries at information ``times`` (increasing, in (0, 1]) for a spending function.

    ``sided=2``: symmetric, ``spending`` is for both sides together. Adding a later look does not
    change the earlier boundaries. Accuracy about 1e-8 in z (the tables print 4 digits).
    """
    t = _checked(times)
    if sided not in (1, 2):
        raise SequentialError("sided", f"must be 1 or 2, not {sided!r}")
    spent = [real("spending", spending(float(x))) for x in t]
    if any(b < a - 1e-15 for a, b in zip([0.0, *spent], spent, strict=False)) or spent[-1] >= 1.0:
        raise SequentialError("spending", "must increase from 0 and stay below 1")
    upper: list[float] = []
    walk = _Walk()
    before = 0.0
    for time, total in zip(t, spent, strict=True):
        share = (total - before) / sided  # per side
        step = walk.step(float(time))
        if share < _LEAST:
            bound = math.inf
        else:
            bound = _solve(step, share, sided)
            before = total
        upper.append(bound)
        walk.stop(step, -bound if sided == 2 else -math.inf, bound)
    return Boundaries(tuple(float(x) for x in t), tuple(upper), tuple(spent), sided)


def exit_probabilities(
    times: Sequence[float],
    lower: Sequence[float],
    upper: Sequence[float],
    drift: float = 0.0,
) -> tuple[Array, Array]:
    """Probabilities of leaving at each look (below, above), shape (looks,) each.

    ``drift`` is the mean of the z-value at t = 1, so z_{alpha/2} + z_{power} for a fixed-sample
    test's power; at 0 the sums are the type-I error.
    """
    t = _checked(times)
    if len(lower) != t.size or len(upper) != t.size:
        raise SequentialError("upper", f"and lower must have one value per look ({t.size})")
    theta = real("drift", drift)
    below, above = np.zeros(t.size), np.zeros(t.size)
    walk = _Walk(theta)
    for i, time in enumerate(t):
        step = walk.step(float(time))
        below[i], above[i] = step.below(lower[i]), step.above(upper[i])
        walk.stop(step, lower[i], upper[i])
    return below, above


def _checked(times: Sequence[float]) -> Array:
    t = reals("times", np.asarray(times, dtype=np.float64))
    if not 1 <= t.size <= MAX_LOOKS:
        raise SequentialError("times", f"must be 1 to {MAX_LOOKS} looks, not {t.size}")
    if t[0] <= 0.0 or t[-1] > 1.0 or not (np.diff(t) > 0.0).all():
        raise SequentialError("times", "must increase and lie in (0, 1]")
    return t


def _solve(step: _Step, share: float, sided: int) -> float:
    """The boundary beyond which (on one side) the walk goes with probability ``share``."""

    def excess(z: float) -> float:
        beyond = step.above(z) if sided == 1 else 0.5 * (step.above(z) + step.below(-z))
        return math.log(max(beyond, 1e-300)) - math.log(share)

    return float(optimize.brentq(excess, -_FAR if sided == 1 else 0.0, _FAR, xtol=1e-10))


class _Step:
    """The score S (Brownian motion, S = z sqrt t) one increment after the last look."""

    def __init__(self, points: Array, mass: Array, mean: float, spread: float, root: float) -> None:
        self._points, self._mass = points + mean, mass
        self._spread, self._root = spread, root

    def above(self, z: float) -> float:
        """P(not stopped before, and this look's z-value at or above ``z``)."""
        at = (z * self._root - self._points) / self._spread
        return float(np.dot(self._mass, special.ndtr(-np.asarray(at))))

    def below(self, z: float) -> float:
        """The same at or below ``z``."""
        at = (z * self._root - self._points) / self._spread
        return float(np.dot(self._mass, special.ndtr(at)))

    def onto(self, lower: float, upper: float) -> tuple[Array, Array]:
        """Quadrature points of S between two z-values, and the mass at each."""
        reach = _FAR * self._spread
        low = max(lower * self._root, float(self._points.min()) - reach)
        high = min(upper * self._root, float(self._points.max()) + reach)
        if low >= high:
            return np.zeros(1), np.zeros(1)
        # Panels no wider than the increment, so that the density is smooth within each.
        panels = max(1, min(_NODES // 8, math.ceil((high - low) / (4.0 * self._spread))))
        nodes, weights = np.polynomial.legendre.leggauss(max(24, 96 // panels))
        edges = np.linspace(low, high, panels + 1)
        half = 0.5 * np.diff(edges)[:, None]
        s = (edges[:-1, None] + half * (nodes + 1.0)).ravel()
        w = (half * weights).ravel()
        z = (s[:, None] - self._points) / self._spread
        density = np.exp(-0.5 * z * z) @ self._mass / (_ROOT_2_PI * self._spread)
        return s, w * density


class _Walk:
    """Sub-distribution of the score among the walks that were not stopped yet."""

    def __init__(self, drift: float = 0.0) -> None:
        self._drift = drift
        self._time = 0.0
        self._points, self._mass = np.zeros(1), np.ones(1)

    def step(self, time: float) -> _Step:
        """Go on to information ``time``."""
        gone = time - self._time
        self._time = time
        mean, spread = self._drift * gone, math.sqrt(gone)
        return _Step(self._points, self._mass, mean, spread, math.sqrt(time))

    def stop(self, step: _Step, lower: float, upper: float) -> None:
        """Keep what lies between two z-values."""
        self._points, self._mass = step.onto(lower, upper)
