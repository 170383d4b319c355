"""What differences are held against: margins, targets and thresholds, for the API and metrics."""

from __future__ import annotations

from typing import Any

from understudy.shadow.experiment.challenger import Evidence
from understudy.shadow.experiment.hypothesis import Hypothesis


def limit_of(h: Hypothesis) -> dict[str, Any]:
    """What a metric's difference is held against, challenger minus champion: ``margin``, beyond
    which it is harm, and ``effect``, the improvement that is wanted (None without one), each
    absolute or, if ``relative`` or ``effect_relative``, a share of the champion's value."""
    worse = 1.0 if h.lower_is_better else -1.0
    effect = h.effect if h.effect is not None and h.effect.value else None
    return {
        # Not -0.
        "margin": h.margin.value * worse + 0.0,
        "relative": h.margin.relative,
        "effect": -effect.value * worse if effect is not None else None,
        "effect_relative": effect.relative if effect is not None else False,
    }


def absolute(value: float | None, relative: bool | None, champion: float | None) -> float | None:
    """A margin or target as a difference; None while it is a share of a value that is not known."""
    if value is None or not relative:
        return value
    return None if champion is None else value * abs(champion)


def limits_now(item: Evidence) -> dict[str, float | None]:
    """``margin`` and ``effect`` as differences of the champion's present value, and the logs of the
    e-values from which on the claim (``log_threshold``) and harm (``log_threshold_harm``) are
    concluded. None where there is none, or it is not known."""
    limit, champion = limit_of(item.hypothesis), item.estimates[0]
    needed = item.needed or (None, None)
    return {
        "margin": absolute(limit["margin"], limit["relative"], champion),
        "effect": absolute(limit["effect"], limit["effect_relative"], champion),
        "log_threshold": needed[0],
        "log_threshold_harm": needed[1],
    }
