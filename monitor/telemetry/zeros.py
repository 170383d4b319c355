"""Counters that exist before their first event.

``rate()`` of Prometheus compares two samples of a series, so it cannot see with what value a series
begins: a burst of errors between two scrapes, the first ones of a model, would be invisible for
rules. So every counter is exported as 0 from the start. The workers do not keep these zeros: they
follow from the plan when the service is scraped.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice

from understudy.monitor.proxy.routes import protocols_of
from understudy.monitor.records.record import CLIENT, ENDS, OK, OUTCOMES, ROLES, SIDES
from understudy.monitor.routing.plan import Plan
from understudy.monitor.routing.serving import NOT_SENT

_PRIMARY, _MIRROR = ROLES
_OF_MIRROR = NOT_SENT | {"too_large", "fell_behind"}
_OF_CLIENT = frozenset(OUTCOMES[outcome] for outcome, side in SIDES.items() if side == CLIENT)
ENDS_OF = {
    _PRIMARY: tuple(name for name in ENDS if name not in _OF_MIRROR),
    _MIRROR: tuple(name for name in ENDS if name not in NOT_SENT | (_OF_CLIENT - {"client_error"})),
}
"""The outcomes that requests of a role can have."""
MOST_ROWS = 400
"""Most rows of zeros: of a plan with more, the last models have none until they are asked."""

MOST_HISTOGRAMS = 60
"""Most histograms without a value: each has as many series as edges."""

Row = tuple[str, str, str, str, str]
"""Model, version, arm, role, protocol."""


def rows_of(plan: Plan) -> Iterator[Row]:
    """The rows that requests can be counted in: any arm may serve, challengers are mirrored."""
    champion, *challengers = plan.arms
    for model in plan.models:
        for protocol in protocols_of(model):
            for arm in plan.arms:
                yield model.name, model.version, arm, _PRIMARY, protocol
            for arm in challengers:
                yield model.name, model.version, arm, _MIRROR, protocol
    yield "other", "", champion, _PRIMARY, "other"


def histograms_of(plan: Plan) -> list[tuple[str, ...]]:
    """The labels of the histograms that latency objectives read, for which there may be no value:
    good answers to clients, at most :data:`MOST_HISTOGRAMS`."""
    models = {model.name for model in plan.models}
    rows = (row for row in rows_of(plan) if row[0] in models and row[3] == _PRIMARY)
    return [(*row, OUTCOMES[OK]) for row in islice(rows, MOST_HISTOGRAMS)]


def with_zeros(plan: Plan, counted: Mapping[tuple[str, ...], int]) -> dict[tuple[str, ...], int]:
    """Counts by row and outcome, with 0 for what did not occur: at most :data:`MOST_ROWS` rows of
    zeros are added."""
    result: dict[tuple[str, ...], int] = {
        (*row, outcome): 0
        for row in islice(rows_of(plan), MOST_ROWS)
        for outcome in ENDS_OF[row[3]]
    }
    result.update(counted)
    return result
