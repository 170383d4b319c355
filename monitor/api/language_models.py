"""What the language models of each arm did in the last minute, for the API and the pages."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Any

from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.pipeline.token_window import TokenFigures
from understudy.monitor.routing.serving import MINUTE, NOT_ERRORS

_OF = ("model", "version", "arm")
_STREAM_ERRORS = ("stream_error", "truncated")


def language_models(plane: EvaluationPlane) -> dict[str, list[dict[str, Any]]]:
    """By arm, a row for each of its language models: times in seconds, tokens per second of all
    answers together, goodput where limits are declared, finish reasons, and broken streams."""
    outcomes: dict[tuple[str, ...], Counter[str]] = {}
    for labels, count in plane.windows.counters("requests", MINUTE).items():
        have = dict(labels)
        key = tuple(have.get(name, "") for name in _OF)
        outcomes.setdefault(key, Counter())[have.get("outcome", "")] += count
    # A model whose streams all fail has no answers that could be read.
    figures = plane.pipeline.token_window.figures()
    limited = {model.name for model in plane.settings.models if model.limits}
    found: dict[str, list[dict[str, Any]]] = {}
    for key in sorted({*figures, *_broken(outcomes)}):
        row = _row(key, figures.get(key), outcomes.get(key, Counter()), key[0] in limited)
        found.setdefault(key[2], []).append(row)
    return found


def _broken(
    outcomes: Mapping[tuple[str, ...], Mapping[str, int]],
) -> set[tuple[str, str, str]]:
    """Those with streams that broke, whether or not others could be read."""
    return {
        (key[0], key[1], key[2])
        for key, of in outcomes.items()
        if any(of.get(outcome) for outcome in _STREAM_ERRORS)
    }


def _row(
    key: tuple[str, str, str],
    figures: TokenFigures | None,
    outcomes: Mapping[str, int],
    limited: bool,
) -> dict[str, Any]:
    answers = figures.answers if figures else 0
    seconds = figures.seconds if figures else MINUTE
    failed = sum(count for name, count in outcomes.items() if name not in NOT_ERRORS)
    told = figures.good if figures else None
    good = told or 0
    row: dict[str, Any] = dict(zip(_OF, key, strict=True))
    for name in ("ttft", "tpot"):
        pair = getattr(figures, name, None) or (None, None)
        row[name] = dict(zip(("p50", "p99"), pair, strict=True))
    for name in ("prompt", "output"):
        tokens = getattr(figures, f"{name}_tokens", None)
        row[f"{name}_tokens_per_second"] = None if tokens is None else tokens / seconds
    cost = getattr(figures, "cost", None)
    return {
        **row,
        "cost_per_hour": None if cost is None else 3600.0 * cost / seconds,
        "window_seconds": seconds,
        "answers": answers,
        # Answers that failed are not good: they count in the share.
        "goodput": {"rate": good / seconds, "share": good / (answers + failed)}
        if (limited or told is not None) and answers + failed
        else None,
        "finish_reasons": figures.finish_reasons if figures else {},
        **{name: outcomes.get(name, 0) for name in _STREAM_ERRORS},
    }
