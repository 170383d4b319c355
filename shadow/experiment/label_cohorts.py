"""Labels that come later, or more rarely, for one arm than for the other.

A label can only be compared when it is there. If the errors of one arm become known later than its
successes, that arm looks better than it is for as long as requests come in, although every label
arrives in the end. So requests are followed from their start, in cohorts of successive starting
times: how many of each arm were answered, and how many of these are labelled by now; and for the
labels that came, how long each arm's took.

While both arms' labels come alike, they are evidence as they come. Once they do not (4 standard
errors in all cohorts, or in the newest half, quarter or eighth of them, or beyond some delay), they
are judged by age: the evidence starts again, with requests from then on, and the labels of a cohort
count when it is older than the delay beyond which both arms agree, and the labelled shares of all
cohorts up to it do. Where they never do, the metric is not judged. What is known of a difference
that is not yet that sure (2.5 standard errors, z) is taken off the evidence of labels: z^2/2, as
much as normal evidence for a difference of the missing labels alone would be worth.

Errors may also be known late in both arms alike. Then every label so far is of a success, and a
challenger that is worse only has fewer of them. So a claim about a rate has to hold as well if what
the challenger lacks of labels were all errors (:func:`log_despite_lack`); and that an improvement
is out of reach, whatever the missing labels are.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Self

import numpy as np
import numpy.typing as npt

from understudy.common.arrays import quantile
from understudy.common.units import percent
from understudy.shadow.experiment.batches import Split
from understudy.shadow.sequential.common import Packed, PackedShape, pack, unpack
from understudy.shadow.sequential.normal_mixture import log_normal_mixture
from understudy.shadow.state import Config, Converter, Count, FieldError, Saved, Stateful

Array = npt.NDArray[np.float64]
MOST_COHORTS = 64
MOST_WAITING = 32_768
"""Labels that wait for their cohort's age; beyond it the oldest cohort is left out, in both arms
alike."""
_FIRST = 64
"""Requests of a cohort in the beginning."""
_SURE = 4.0
_NOTICED = 2.5
_AGREE = 1.5
_PER_DOUBLING = 2
_SHORTEST = 2.0**-7
"""Seconds: delays below it count as none."""
_DELAYS = 2 * 32
_LEAST = 4
"""Late labels, of both arms, that may show a difference."""


@dataclass(frozen=True, slots=True)
class LabelJudgement:
    """``penalty`` is taken off the log of evidence; ``reason`` says why labels are not judged (""
    if they are), ``note`` how they are judged."""

    penalty: float
    reason: str
    note: str


def log_despite_lack(
    edge: float,
    rates: tuple[float, float],
    ratio: float,
    labels: Sequence[int],
    cohorts: LabelCohorts,
    higher: bool,
    precision: float,
) -> float:
    """Evidence for a claim about a rate if the labels that the challenger lacks are against it.

    ``edge`` is by how much the estimates, of champion and challenger in ``rates``, are better than
    the edge of the null hypothesis, challenger = ``ratio`` champion + a shift; ``labels`` are their
    numbers. Assigned at random, the arms would have the same share of labels but for what depends
    on the outcome. So the difference counted per request is c ``edge`` - v d, with c the labelled
    share, d what the challenger lacks and v how far a missing value may be from the rate. Its
    evidence is that of a normal mixture (arXiv:2103.06476, equation 134).
    """
    lack, error = cohorts.lack()
    missing = cohorts.unlabelled
    labelled = 1.0 - 0.5 * (missing[0] + missing[1])
    value = rates[1] if higher else 1.0 - rates[1]
    centre = labelled * edge - value * lack
    # As if one more label of each outcome had come: without any error there would be no variance.
    smooth = ((p * n + 1.0) / (n + 2.0) for p, n in zip(rates, labels, strict=True))
    first, second = (p * (1.0 - p) / n for p, n in zip(smooth, labels, strict=True))
    variance = labelled**2 * (ratio**2 * first + second) + (value * error) ** 2
    if variance <= 0.0:
        return math.inf
    n = labels[0] + labels[1]
    return float(log_normal_mixture(math.sqrt(n / variance) * centre, n, 1.0 / precision, sided=1))


def _dump_rows(rows: Mapping[str, Array]) -> dict[str, Any]:
    return {name: pack(values) for name, values in rows.items()}


def _load_rows(name: str, state: Any, _: Any) -> dict[str, Array]:
    if not isinstance(state, Mapping):
        raise FieldError(name, "must be an object")
    return {
        key: unpack(name, text, len(text) * 3 // 32 if isinstance(text, str) else 0)
        for key, text in state.items()
    }


class LabelCohorts(Stateful):
    """Labels of one kind of one challenger, on split traffic.

    ``columns`` are those that come with a label. Times are unix seconds, or any clock that the
    caller uses throughout.
    """

    columns: Config[tuple[str, ...]]
    held: Saved[bool]
    """Whether labels are judged by age."""
    left_out: Saved[Count]
    """Labels that were not counted: of requests before labels were judged by age, or of the older
    half of too many that waited."""
    size: Saved[Count]
    """Answered requests of a cohort."""
    _since: Saved[float]
    """Requests that started before are left out."""
    _starts: Saved[PackedShape]
    """When each cohort starts."""
    _counts: Saved[PackedShape]
    """By cohort: answered requests of champion and challenger, labelled ones of both."""
    _ready: Saved[Count]
    """Cohorts, from the oldest one, whose labels have been judged."""
    _delays: Saved[Packed]
    """By arm, labels by the logarithm of their delay."""
    _now: Saved[float]
    _waiting: Saved[Annotated[dict[str, Array], Converter(_dump_rows, _load_rows)]]
    """Columns of the labels that wait, with their arm, share and start; NaN is told by a mask."""

    def __init__(self, columns: Sequence[str]) -> None:
        self.columns = tuple(columns)
        self.held = False
        self.left_out = 0
        self._delays = np.zeros((2, _DELAYS))
        self._now = 0.0
        self._begin(0.0)

    def _begin(self, since: float) -> None:
        self._since = since
        self.size = _FIRST
        self._starts = np.zeros(0)
        self._counts = np.zeros((0, 4))
        self._ready = 0
        self._waiting = {}

    @property
    def now(self) -> float:
        """The time of the newest request or label."""
        return self._now

    # In -----------------------------------------------------------------------------------------

    def expect(self, arms: Array, started: Array) -> None:
        """Add answered requests, which may get a label."""
        keep = started >= self._since
        arms, started = arms[keep], started[keep]
        if not arms.size:
            return
        self._now = max(self._now, float(started.max()))
        order = np.argsort(started, kind="stable")
        arms, started = arms[order], started[order]
        while arms.size:
            if not len(self._starts) or self._counts[-1, :2].sum() >= self.size:
                self._starts = np.append(self._starts, started[0])
                self._counts = np.concatenate((self._counts, np.zeros((1, 4))))
                self._shorten()
            free = max(1, int(self.size - self._counts[-1, :2].sum()))
            part, begun = arms[:free], started[:free]
            at = np.maximum(np.searchsorted(self._starts, begun, side="right") - 1, 0)
            np.add.at(self._counts, (at, part.astype(np.intp)), 1.0)
            arms, started = arms[free:], started[free:]

    def _shorten(self) -> None:
        """Join pairs of the cohorts that are judged, or that wait, while there are too many."""
        if len(self._starts) <= MOST_COHORTS:
            return
        self.size *= 2
        keep = np.zeros(len(self._starts), bool)
        keep[: self._ready : 2] = True
        keep[self._ready :: 2] = True
        first = np.flatnonzero(keep)
        self._ready = int(np.count_nonzero(keep[: self._ready]))
        self._counts = np.add.reduceat(self._counts, first, axis=0)
        self._starts = self._starts[first]

    def take(self, batch: Split) -> Split | None:
        """Add labels, in the order in which they came; those that count now.

        ``batch`` needs ``started`` and ``at``.
        """
        if batch.started is None or batch.at is None:
            return batch
        self._now = max(self._now, float(batch.at.max(initial=0.0)))
        side = batch.arms.astype(np.intp)
        delay = np.maximum(batch.at - batch.started, _SHORTEST)
        bucket = np.rint(_PER_DOUBLING * np.log2(delay / _SHORTEST)).astype(np.intp)
        np.add.at(self._delays, (side, np.minimum(bucket, _DELAYS - 1)), 1.0)
        keep = batch.started >= self._since
        if not keep.all():
            self.left_out += int(np.count_nonzero(~keep))
            batch = batch.rows(np.flatnonzero(keep))
        assert batch.started is not None
        if batch.arms.size and len(self._starts):
            once = np.ones(batch.arms.size, bool) if batch.first is None else batch.first
            at = np.searchsorted(self._starts, batch.started, side="right") - 1
            known = once & (at >= 0)
            np.add.at(self._counts, (at[known], 2 + batch.arms[known].astype(np.intp)), 1.0)
        if not self.held:
            return batch
        # A cohort that is judged takes its later labels at once: without them it would be biased.
        judged = batch.started < self._judged_until()
        self._wait(batch.rows(np.flatnonzero(~judged)))
        return batch.rows(np.flatnonzero(judged)) if judged.any() else None

    def _judged_until(self) -> float:
        if self._ready < len(self._starts):
            return float(self._starts[self._ready]) if self._ready else -math.inf
        return -math.inf

    def trip(self) -> bool:
        """Start to judge labels by age if the arms' labels surely differ; True when that happens
        now: the evidence of labels has to start again."""
        if self.held or abs(self._difference()) < _SURE:
            return False
        self.held = True
        self._begin(math.nextafter(self._now, math.inf))
        return True

    def release(self) -> Split | None:
        """The labels that have come of age, of all cohorts that are due."""
        if not self.held or not len(self._starts):
            return None
        age, first = self._agreed_delay(), self._ready
        while self._ready + 1 < len(self._starts):
            ends = float(self._starts[self._ready + 1])
            if ends + age > self._now or abs(_z(self._counts[: self._ready + 1])) >= _AGREE:
                break
            self._ready += 1
        if self._ready == first or not self._waiting:
            return None
        return self._pop(float(self._starts[self._ready]))

    def _wait(self, batch: Split) -> None:
        if not batch.arms.size:
            return
        rows = {
            "arms": batch.arms,
            "share": batch.share,
            "started": np.asarray(batch.started, dtype=np.float64),
        }
        if batch.unit is not None:
            rows["unit"] = batch.unit
        for name in self.columns:
            values = batch.columns.get(name)
            cells = values if values is not None else np.full(batch.arms.size, np.nan)
            rows[f"has.{name}"] = (~np.isnan(cells)).astype(np.float64)
            rows[f"v.{name}"] = np.nan_to_num(cells)
        if self._waiting:
            rows = {key: np.concatenate((self._waiting[key], rows[key])) for key in rows}
        self._waiting = rows
        if len(rows["arms"]) > MOST_WAITING:
            self._since = math.nextafter(quantile(rows["started"], 0.5), math.inf)
            keep = rows["started"] >= self._since
            self.left_out += int(np.count_nonzero(~keep))
            self._waiting = {key: values[keep] for key, values in rows.items()}
            kept = (self._starts >= self._since) | (np.arange(len(self._starts)) < self._ready)
            self._starts, self._counts = self._starts[kept], self._counts[kept]

    def _pop(self, before: float) -> Split | None:
        due = self._waiting["started"] < before
        if not due.any():
            return None
        # By the start of their requests: as they came, late ones would be together.
        order = np.flatnonzero(due)[np.argsort(self._waiting["started"][due], kind="stable")]
        rows = {key: values[order] for key, values in self._waiting.items()}
        self._waiting = {key: values[~due] for key, values in self._waiting.items()}
        columns = {
            name: np.where(rows[f"has.{name}"] > 0.0, rows[f"v.{name}"], np.nan)
            for name in self.columns
        }
        fresh = np.zeros(rows["arms"].size, np.bool_)
        return Split(
            rows["arms"],
            rows["share"],
            columns,
            fresh,
            rows["started"],
            np.full(rows["arms"].size, self._now),
            unit=rows.get("unit"),
        )

    def merge(self, other: Self) -> Self:
        """The counts of both. Labels that wait keep waiting, by the younger of both limits."""
        both = type(self)(self.columns)
        both.held = self.held or other.held
        both.left_out = self.left_out + other.left_out
        both._delays = self._delays + other._delays
        both._now = max(self._now, other._now)
        both._since = max(self._since, other._since)
        order = np.argsort(np.concatenate((self._starts, other._starts)), kind="stable")
        both._starts = np.concatenate((self._starts, other._starts))[order]
        both._counts = np.concatenate((self._counts, other._counts))[order]
        both.size = max(self.size, other.size)
        both._shorten()
        for part in (self, other):
            if part._waiting:
                waiting = both._waiting or {key: v[:0] for key, v in part._waiting.items()}
                both._waiting = {
                    key: np.concatenate((waiting[key], part._waiting[key])) for key in waiting
                }
        return both

    @property
    def unlabelled(self) -> tuple[float, float]:
        """The shares of champion and challenger's requests that have no label, of those whose
        labels count."""
        judged = self._counts[: self._ready] if self.held else self._counts
        shares = _shares(judged)
        return (1.0 - shares[0], 1.0 - shares[1]) if shares is not None else (0.0, 0.0)

    def lack(self) -> tuple[float, float]:
        """By how much the challenger's share of requests without a label is larger than the
        champion's, and its standard error: the risk difference over cohorts (Mantel & Haenszel)."""
        excess, variance, weight = _excess(
            self._counts[: self._ready] if self.held else self._counts
        )
        return (excess / weight, math.sqrt(variance) / weight) if weight > 0.0 else (0.0, 0.0)

    # Comparison of the arms ---------------------------------------------------------------------

    def _difference(self) -> float:
        """The largest difference of the arms, in standard errors: of labelled shares in all cohorts
        and in the newest ones, and of late labels. Positive: the challenger lacks labels."""
        z_values = [0.0]
        n = len(self._starts)
        for part in (1, 2, 4, 8):
            if n // part:
                z_values.append(_z(self._counts[n - n // part :]))
        z_values.extend(self._late().tolist())
        return max(z_values, key=abs)

    def _late(self) -> Array:
        """For each delay, how many standard errors more of the challenger's labels took longer."""
        totals = self._delays.sum(axis=1)
        if min(totals) < _LEAST:
            return np.zeros(_DELAYS)
        beyond = np.cumsum(self._delays[:, ::-1], axis=1)[:, ::-1]
        both, rho = beyond.sum(axis=0), totals[1] / totals.sum()
        spread = both * rho * (1.0 - rho) * (1.0 - both / totals.sum())
        z = (beyond[1] - both * rho) / np.sqrt(np.maximum(spread, 1e-9))
        return np.where((spread > 0.0) & (both >= _LEAST), z, 0.0)

    def _agreed_delay(self) -> float:
        """The delay in seconds beyond which both arms have as many labels."""
        differing = np.flatnonzero(np.abs(self._late()) >= _AGREE)
        if not differing.size:
            return 0.0
        return float(_SHORTEST * 2.0 ** ((int(differing[-1]) + 1) / _PER_DOUBLING))

    def judge(self, names: tuple[str, str]) -> LabelJudgement:
        """How far the evidence of labels counts; ``names`` are those of both arms."""
        if not self.held:
            z = abs(self._difference())
            return LabelJudgement(0.5 * z * z if z >= _NOTICED else 0.0, "", "")
        age = self._agreed_delay()
        # The last cohort is not full. Of those that are old enough both arms should have as much.
        due = int(np.count_nonzero(self._starts[1:] + age <= self._now))
        if abs(_z(self._counts[:due])) < _SURE:
            since = f"at least {_lasting(age)} old" if age else "whose labels are complete"
            if not self._ready:
                return LabelJudgement(0.0, f"there are no requests {since} yet", "")
            note = f"labels come later for one arm: judged by requests {since}"
            return LabelJudgement(0.0, "", note)
        shares = _shares(self._counts[:due])
        assert shares is not None  # otherwise there is no difference
        first, second = (
            f"{percent(share, 3)} of {name}'s" for share, name in zip(shares, names, strict=True)
        )
        return LabelJudgement(
            0.0,
            f"labels come for {second} and {first} requests, so a comparison would be of the "
            "labels; check why, or wait until they have come",
            "",
        )


def _excess(counts: Array) -> tuple[float, float, float]:
    """The challenger's requests without label beyond its share of them, their variance, and the
    weight by which both become those of a difference of shares.

    Given in each cohort how many there are in both arms (hypergeometric), and added up: when a
    rollout has given the challenger a larger share lately, its requests are younger.
    """
    n0, n1, l0, l1 = counts.T
    u0, u1 = np.maximum(n0 - l0, 0.0), np.maximum(n1 - l1, 0.0)
    n, u = np.maximum(n0 + n1, 1.0), u0 + u1
    rho = n1 / n
    spread = u * rho * (1.0 - rho) * np.maximum(n - u, 0.0) / np.maximum(n - 1.0, 1.0)
    return float((u1 - u * rho).sum()), float(spread.sum()), float((n * rho * (1.0 - rho)).sum())


def _z(counts: Array) -> float:
    """Standard errors by which the challenger has more requests without label."""
    excess, variance, _ = _excess(counts)
    return excess / math.sqrt(variance) if variance > 0.0 else 0.0


def _shares(counts: Array) -> tuple[float, float] | None:
    n0, n1, l0, l1 = (float(x) for x in counts.sum(axis=0))
    if min(n0, n1) < 1.0:
        return None
    return min(l0 / n0, 1.0), min(l1 / n1, 1.0)


def _lasting(seconds: float) -> str:
    for unit, size in (("d", 86400.0), ("h", 3600.0), ("min", 60.0)):
        if seconds >= 2.0 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
