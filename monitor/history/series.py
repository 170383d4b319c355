"""Series of the history for charts: one value for each step of time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any

from understudy.monitor.history.span import DIVERTED, Key, Span, Traffic, merged
from understudy.monitor.history.store import GAUGES_FROM, RESOLUTIONS, History
from understudy.monitor.routing.serving import NOT_ERRORS, NOT_SENT
from understudy.monitor.stats.windows import total_of

MOST_POINTS = 1000
_SHORTEST = 60.0
"""Seconds that a chart shows at least, however little there is."""
USUAL_POINTS = 180
"""About as many points as a chart without a declared step gets at most."""
_STEPS = (10, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14_400)
QUANTILES = {"p50": 0.5, "p90": 0.9, "p95": 0.95, "p99": 0.99, "p99_9": 0.999}

_Count = Callable[[Traffic], int]


def _all(traffic: Traffic) -> int:
    return sum(n for name, n in traffic.counts.items() if name not in (DIVERTED, *NOT_SENT))


def _errors(traffic: Traffic) -> int:
    not_errors = (DIVERTED, *NOT_SENT, *NOT_ERRORS)
    return sum(n for name, n in traffic.counts.items() if name not in not_errors)


COUNTS: dict[str, _Count] = {
    "requests": _all,
    "errors": _errors,
    "not_sent": lambda one: sum(one.counts.get(name, 0) for name in NOT_SENT),
    "diverted": lambda one: one.counts.get(DIVERTED, 0),
}
UNITS = {
    **dict.fromkeys(COUNTS, "requests"),
    "rate": "requests/second",
    "error_rate": "ratio",
    **dict.fromkeys((*QUANTILES, "mean", "max"), "seconds"),
}
"""What can be asked for by arm and role, and its unit."""


@dataclass(frozen=True, slots=True)
class Course:
    """Series on one axis of time: ``times`` are the starts of the steps, in unix seconds, each
    ``step`` seconds long. A value is None where nothing was observed, or nothing came."""

    since: float
    until: float
    step: int
    resolution: str
    times: list[int]
    series: list[dict[str, Any]]
    oldest: float | None
    """Since when anything is kept."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "from": self.since,
            "to": self.until,
            "step": self.step,
            "resolution": self.resolution,
            "oldest": self.oldest,
            "times": self.times,
            "series": self.series,
        }


def step_of(seconds: float, wanted: float | None, points: int = USUAL_POINTS) -> int:
    """The step of a chart over so many seconds: ``wanted``, or a usual one that gives about
    ``points``; larger where that were more than :data:`MOST_POINTS`."""
    least = seconds / MOST_POINTS if wanted is not None else seconds / points
    needed = max(least, wanted or 0.0)
    usual = next((step for step in _STEPS if step >= needed), None)
    if wanted is not None or usual is None:
        finest = RESOLUTIONS[0].step
        usual = ceil(needed / finest) * finest
    return usual


def course(
    history: History,
    names: Sequence[str],
    since: float,
    until: float,
    step: float | None = None,
    *,
    model: str | None = None,
    arm: str | None = None,
    role: str | None = None,
    column: str | None = None,
    points: int = USUAL_POINTS,
    fit: bool = False,
) -> Course:
    """The series ``names`` (keys of :data:`UNITS`, or names of gauges) from ``since`` to ``until``,
    by model, arm and role; only those that are given. With ``fit`` it begins no earlier than what
    is kept, in finer steps where that is short. Reads files."""
    if fit:
        since = _first(history, names, since, until, step, points)
    gauges = [name for name in names if name not in UNITS]
    wanted = max(RESOLUTIONS[0].step, step_of(until - since, step, points))
    if gauges:
        wanted = max(wanted, RESOLUTIONS[GAUGES_FROM].step)
    index = _resolution(history, since, wanted)
    resolution = RESOLUTIONS[index]
    width = ceil(wanted / resolution.step) * resolution.step
    bins: dict[int, list[Span]] = {}
    for span in history.spans(index, since, until):
        bins.setdefault(floor(span.start / width) * width, []).append(span)
    times = list(range(floor(since / width) * width, ceil(until), width))
    whole = {at: merged(spans, at) for at, spans in bins.items()}

    def fits(key: Key) -> bool:
        # Some counts have no model: they belong to each that the arm serves.
        of_model = model is None or key[0] in (model, "")
        return of_model and arm in (None, key[1]) and role in (None, key[2])

    found: list[dict[str, Any]] = []
    for key in sorted({key for span in whole.values() for key in span.traffic if fits(key)}):
        columns = _columns([whole.get(at) for at in times], key, names)
        for name, values in columns.items():
            if any(value is not None for value in values):
                found.append({"name": name, "model": key[0], "arm": key[1], "role": key[2],
                              "unit": UNITS[name], "values": values})  # fmt: skip
    for gauge in sorted({gauge for span in whole.values() for gauge in span.gauges}):
        if gauge[2] in gauges and model in (None, gauge[0]) and column in (None, gauge[1]):
            values = [whole[at].gauges.get(gauge) if at in whole else None for at in times]
            found.append({"name": gauge[2], "model": gauge[0], "column": gauge[1], "unit": "",
                          "values": values})  # fmt: skip
    olds = [old for one in range(len(RESOLUTIONS)) if (old := history.oldest(one)) is not None]
    return Course(since, until, width, resolution.name, times, found, min(olds, default=None))


def _first(
    history: History,
    names: Sequence[str],
    since: float,
    until: float,
    step: float | None,
    points: int,
) -> float:
    """When what is kept of the time from ``since`` to ``until`` begins, at most a minute before
    ``until``. Coarse slots begin before their content: finer ones tell the moment."""
    traffic = any(name in UNITS for name in names)
    for _ in RESOLUTIONS:
        width = max(RESOLUTIONS[0].step, step_of(until - since, step, points))
        index = _resolution(history, since, width if traffic else max(width, 60))
        spans = history.spans(index, since, until)
        starts = [span.start for span in spans if span.gauges or (traffic and span.seconds > 0.0)]
        first = min(until - _SHORTEST, max(since, float(min(starts, default=since))))
        if first <= since:
            break
        since = first
    return since


def _resolution(history: History, since: float, step: int) -> int:
    """The coarsest resolution within the step, which is read the quickest and merges to the same;
    or a coarser one where that does not go back far enough."""
    olds = [history.oldest(index) for index in range(len(RESOLUTIONS))]
    # A slot begins before what was observed in it.
    ends = [old + one.step for old, one in zip(olds, RESOLUTIONS, strict=True) if old is not None]
    reach = max(since, min(ends, default=since))
    index = max(index for index, one in enumerate(RESOLUTIONS) if one.step <= step)
    for coarser in range(index, len(RESOLUTIONS)):
        old = olds[coarser]
        if old is not None and old <= reach:
            return coarser
    return index


def _columns(
    spans: Sequence[Span | None], key: Key, names: Iterable[str]
) -> dict[str, list[float | None]]:
    found: dict[str, list[float | None]] = {name: [] for name in names if name in UNITS}
    for span in spans:
        traffic = span.traffic.get(key) if span is not None else None
        values = _values(traffic, span.seconds if span is not None else 0.0, found)
        for name in found:
            found[name].append(values.get(name))
    return found


def _values(
    traffic: Traffic | None, seconds: float, names: Iterable[str]
) -> dict[str, float | None]:
    if seconds <= 0.0:
        return {}
    traffic = traffic or Traffic()
    requests = _all(traffic)
    whole = None
    found: dict[str, float | None] = {}
    for name in names:
        if name in COUNTS:
            found[name] = COUNTS[name](traffic)
        elif name == "rate":
            found[name] = requests / seconds
        elif name == "error_rate":
            found[name] = _errors(traffic) / requests if requests else None
        elif traffic.durations is not None:
            whole = whole or total_of([traffic.durations])
            if name == "mean":
                found[name] = whole.mean
            elif name == "max":
                found[name] = whole.maximum
            else:
                quantiles = whole.quantiles([QUANTILES[name]])
                found[name] = quantiles[0] if quantiles is not None else None
    return found
