"""What became of each request that an arm was chosen for, and what its values may have been.

The account is by request: each ends answered, failed, abandoned by its client, or not evaluated for
a reason that has a name. What was not evaluated stays in the evidence with the interval in which
its value lies. A claim has to hold for the values that are worst for the challenger, and harm has
to show in those that are best for it (the bounds of Manski, "Nonparametric Bounds on Treatment
Effects", American Economic Review 80, 1990): nothing that an arm causes can leave the evidence.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from understudy.shadow.experiment.hypothesis import EARLIER, uncapped

Array = npt.NDArray[np.float64]

FATES = (
    "answered",
    "failed",
    "abandoned",
    "late",
    "unreadable",
    "diverted",
    "overload",
    "queue_full",
    "breaker_open",
    "body_too_large",
    "answer_too_large",
    "cancelled",
    "unpaired",
    "client_stalled",
    "not_rewritten",
)
"""``late``: answered after the shorter one of the arms' time limits. From ``unreadable`` on the
content was not evaluated, from ``diverted`` on nothing of the request was."""
(
    ANSWERED,
    FAILED,
    ABANDONED,
    LATE,
    UNREADABLE,
    DIVERTED,
    OVERLOAD,
    QUEUE_FULL,
    BREAKER_OPEN,
    BODY_TOO_LARGE,
    ANSWER_TOO_LARGE,
    CANCELLED,
    UNPAIRED,
    CLIENT_STALLED,
    NOT_REWRITTEN,
) = range(len(FATES))
OUTSIDE = -1
"""Not a request of its own (a label), or one that never arrived as a whole."""
PENDING = -2
"""No fate yet: a mirrored request that has not finished when it should have (:func:`patience`). It
is reported once, and its pair follows."""
LEFT_OUT = FATES[UNREADABLE:]
"""Reasons why a request, or its content, was not evaluated."""
SMALL = 0.001
"""A share up to which it is not worth a word that requests were not evaluated."""
UNBOUNDED = 1e300
"""Stands for an end that is not known, in a form that can be added up and stored."""
OVERDUE = 10.0
"""Least age in seconds from which a request that has not finished is missing."""
REPORTED = 1.0
"""Least age in seconds at which a mirrored request that has not finished is reported."""
SHORTEST = 1e-9
"""The least that a latency can have been, in seconds: above 0 for measures that take logs."""


def patience(seconds: float, least: float = OVERDUE) -> float:
    """Age in seconds from which a request is missing that has not finished, where requests like it
    take ``seconds``: four times that, and not less than ``least``."""
    return max(least, 4.0 * seconds)


@dataclass(frozen=True, slots=True)
class Reason:
    """``what`` happened, in words after a number of requests, and what to ``do``."""

    what: str
    do: str


REASONS: Mapping[str, Reason] = {
    "unreadable": Reason(
        "got an answer that cannot be read",
        "name the wire format in `models[].protocol` (with `json` for plain JSON), have clients "
        "ask for JSON instead of binary tensors, or raise `capture.max_body`; "
        "understudy_undecodable_total counts the causes; if answers never can be read, set the "
        "experiment's `opaque_answers`",
    ),
    "diverted": Reason(
        "were served by the champion, since the challenger's circuit breaker was open",
        "find out why the challenger failed",
    ),
    "overload": Reason(
        "waited too long for one of our connections",
        "raise `max_connections` (of mirrored requests `mirror.connections`), or lower the load",
    ),
    "queue_full": Reason(
        "found the queue of mirrored requests full, or were abandoned since the challenger takes "
        "large bodies more slowly than clients send them",
        "raise `mirror.connections` or `mirror.queue`, or lower `mirror.rate`",
    ),
    "breaker_open": Reason(
        "were not mirrored, since the challenger's circuit breaker was open",
        "find out why the challenger failed",
    ),
    "body_too_large": Reason(
        "were not mirrored by a sidecar of version 0.1, since their body is too large",
        "upgrade the sidecars, or raise `capture.max_body`",
    ),
    "answer_too_large": Reason(
        "got a larger answer from the challenger than is read", "raise `mirror.max_response`"
    ),
    "cancelled": Reason(
        "ended before they could be answered",
        "look for restarts of the service, and for answers that the champion gives before it has "
        "read the request",
    ),
    "unpaired": Reason(
        "lack the record of one arm", "look at understudy_dropped_total for lost records"
    ),
    "client_stalled": Reason(
        "were answered, and their client stopped reading the response",
        "look at the clients and the network between, and at the size of responses",
    ),
    "not_rewritten": Reason(
        "were not mirrored, since what names the model could not be rewritten for the challenger",
        "its body has to be JSON with the member `model`, without compression, and not larger than "
        "`capture.max_body`; or name the model in the path",
    ),
}


def counted(fates: npt.NDArray[np.int64]) -> dict[str, int]:
    """Number of requests by reason in :data:`LEFT_OUT`; reasons without any are left out."""
    counts = np.bincount(fates[fates >= UNREADABLE], minlength=len(FATES))
    return {name: int(n) for name, n in zip(FATES, counts, strict=True) if n}


def account(left_out: Mapping[str, int], evaluated: int) -> Iterator[str]:
    """Lines that say how many requests were not evaluated, why, and what to do.

    ``evaluated`` is the number of requests that were, but for their content.
    """
    chosen = evaluated + sum(n for name, n in left_out.items() if name != "unreadable")
    for name, n in sorted(left_out.items(), key=lambda item: -item[1]):
        if n > SMALL * chosen:
            reason = REASONS[name]
            yield f"{n:,} of {chosen:,} requests {reason.what}: {reason.do}"


def ends(
    column: str, known: Array, fates: npt.NDArray[np.int64], limit: float, *, paired: bool
) -> tuple[Array, Array, Array]:
    """Known values, and the interval in which each value lies, shapes (n,).

    ``known`` holds the values as recorded; ``limit`` bounds every latency, in seconds. Values that
    are not known become NaN; values that do not exist are NaN in all three. A client that leaves
    is a failure of the arm that served it. ``paired``: that it left the champion says nothing of
    what the champion would have answered, and the challenger has no client who could leave.
    """
    if column.startswith(EARLIER):
        return known, known, known
    column, cap = uncapped(column)
    if cap is not None:
        uncapped_ends = ends(column, known, fates, limit, paired=paired)
        return uncapped_ends[0].clip(*cap), uncapped_ends[1].clip(*cap), uncapped_ends[2].clip(*cap)
    missing = fates >= DIVERTED
    if column == "latency":
        known, low, high = known.copy(), known.copy(), known.copy()
        low[missing], high[missing] = SHORTEST, limit
        waited = (fates == ABANDONED) | (paired & (fates == LATE))
        high[waited] = np.maximum(known[waited], limit)
        known[missing | waited] = np.nan
        return known, low, high
    if column in ("error", "timeout", "unusable"):
        unknown, least, most = missing.copy(), 0.0, 1.0
        if column == "unusable":
            unknown |= fates == UNREADABLE
        if paired:
            unknown |= (fates == ABANDONED) | (fates == LATE)
        elif column == "timeout":
            unknown |= fates == ABANDONED
    elif column == "disagreement":
        unknown, least, most = _unread(known, fates), 0.0, 1.0
    elif column.startswith("field:"):
        unknown, least, most = _unread(known, fates), -UNBOUNDED, UNBOUNDED
    elif column == "cost":
        unknown, least, most = missing, -UNBOUNDED, UNBOUNDED
    else:
        # Of requests that another arm served, say; a value of a label has its own rows.
        unknown, least, most = missing & ~np.isnan(known), -UNBOUNDED, UNBOUNDED
        if not unknown.any():
            return known, known, known
    known, low, high = known.copy(), known.copy(), known.copy()
    known[unknown], low[unknown], high[unknown] = np.nan, least, most
    return known, low, high


def pair_ends(
    column: str,
    known: tuple[Array, Array],
    fates: tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]],
    limit: float,
    *,
    noisy: bool = False,
) -> tuple[tuple[Array, Array], tuple[Array, Array], tuple[Array, Array]]:
    """The same for pairs: known values, lower and upper ends, each of champion and challenger.

    The champion's ``disagreement`` is whether it disagreed with itself: NaN where that was not
    asked, and then there is no pair. Unless it may (``noisy``), it is 0.
    """
    if column != "disagreement":
        first, second = (
            ends(column, values, of_side, limit, paired=True)
            for values, of_side in zip(known, fates, strict=True)
        )
        return (first[0], second[0]), (first[1], second[1]), (first[2], second[2])
    own, differs = known
    unknown = np.isnan(differs) & ~np.isnan(own)
    low, high = np.where(unknown, 0.0, differs), np.where(unknown, 1.0, differs)
    most = np.where(unknown, 1.0, own) if noisy else own
    own_known = np.where(unknown, np.nan, own)
    return (own_known, differs), (own, low), (most, high)


TALLIES = ("|missing", "|unread", "|abandoned", "|waited")
"""Sums by unit from which the ends of its values follow: requests that were not evaluated, whose
answer was not, that were abandoned, and how long these had waited (seconds)."""


def tallies(fates: npt.NDArray[np.int64], seconds: Array) -> dict[str, Array]:
    """The cells of :data:`TALLIES` for requests; NaN where there is nothing to add."""
    masks = ((fates >= DIVERTED), (fates == UNREADABLE), (fates == ABANDONED))
    columns = [np.where(mask, 1.0, np.nan) for mask in masks]
    columns.append(np.where(fates == ABANDONED, seconds, np.nan))
    return dict(zip(TALLIES, columns, strict=True))


Sums = dict[str, tuple[Array, Array]]
"""(sums, counts) by column."""


def unit_ends(columns: Mapping[str, tuple[Array, Array]], limit: float) -> tuple[Sums, Sums, Sums]:
    """Sums of the known values of units, and of both ends of all values.

    ``columns`` has those of the known values, and :data:`TALLIES`. As in :func:`ends` for split
    traffic.
    """
    missing, unread, abandoned, waited = (columns[name][0] for name in TALLIES)
    known = {name: pair for name, pair in columns.items() if name not in TALLIES}
    nothing = np.zeros(missing.size)
    low: Sums = {}
    high: Sums = {}
    for name, (sums, counts) in known.items():
        column, cap = uncapped(name)
        least, most, unknown, sure = 0.0, 1.0, missing, nothing
        if column == "latency":
            least, most, unknown, sure = SHORTEST, limit, missing + abandoned, waited
        elif column == "unusable":
            unknown = missing + unread
        elif column == "timeout":
            unknown = missing + abandoned
        elif column.startswith("field:") or column == "cost":
            least, most = -UNBOUNDED, UNBOUNDED
            unknown = missing if column == "cost" else missing + unread
        elif column != "error":
            continue
        if not unknown.any():
            continue
        if cap is not None:
            (least, most), sure = np.clip((least, most), *cap).tolist(), nothing
        low[name] = (sums + unknown * least + sure, counts + unknown)
        high[name] = (sums + unknown * most, counts + unknown)
    return known, low, high


def _unread(known: Array, fates: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
    """Requests whose answer has, or may have, a content that is not known."""
    unread: npt.NDArray[np.bool_] = (fates >= UNREADABLE) | ((fates == ANSWERED) & np.isnan(known))
    return unread
