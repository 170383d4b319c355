"""The champion against one challenger: all evidence, in shadow and on split traffic."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Annotated, Any, Self

import numpy as np

from understudy.common.units import percent
from understudy.shadow.experiment.batches import Array, Pairs, Split, Units
from understudy.shadow.experiment.fates import SMALL, account
from understudy.shadow.experiment.hypothesis import COVARIATE, Hypothesis, Statistic
from understudy.shadow.experiment.label_cohorts import LabelCohorts, log_despite_lack
from understudy.shadow.experiment.labelled_units import LabelledUnits
from understudy.shadow.experiment.measures import BoundedMeasure, bounded_measure_for
from understudy.shadow.experiment.measures.base import nulls
from understudy.shadow.experiment.odds import null_of_harm, null_to_pass, odds
from understudy.shadow.sequential.asymptotic import asymptotic_precision
from understudy.shadow.sequential.common import Interval
from understudy.shadow.state import Config, Converter, Count, Saved, Stateful, Transient, Two

MODES = ("shadow", "split")
ARMS = ("the champion", "the challenger")


@dataclass(frozen=True, slots=True)
class Evidence:
    """What is known about one hypothesis now.

    ``records`` and ``estimates`` are (champion, challenger); ``difference`` and ``ratio`` are
    confidence sequences for challenger minus, or over, champion at 1 - ``alpha``. ``log_pass`` and
    ``log_harm`` are logs of e-values. ``decides`` is False for figures that are only shown: the
    latency of mirrored requests, which are sent under the champion's load and after its response.
    ``dependence`` says how requests of one arm depend on each other, "" while they do not.
    ``unknown`` counts values that exist and are not known, by arm; ``unlabelled`` is the share of
    requests by arm whose label is not there, and may still come. ``status`` is one of "passed",
    "harmed", "futile", "undecided", "ok so far" (of what only watches), "blind" (answers could not
    be read, or were not evaluated), "shown", "no data".
    """

    hypothesis: Hypothesis
    records: tuple[int, int]
    estimates: tuple[float | None, float | None]
    difference: Interval
    ratio: Interval | None
    log_pass: float
    log_harm: float
    outside: int
    note: str
    decides: bool = True
    dependence: str = ""
    status: str = "undecided"
    unknown: tuple[int, int] = (0, 0)
    incomplete: bool = False
    """More of the values than a small share are not known."""
    unlabelled: tuple[float, float] = (0.0, 0.0)
    unread: float = 0.0
    """The share of requests whose answers were not read, of a metric that needs to know them."""
    needed: tuple[float, float] | None = None
    """The logs of the e-values from which on the claim, and harm, are concluded while the evidence
    of the other metrics stays as it is; None of what decides nothing."""

    @property
    def name(self) -> str:
        """Name of the hypothesis."""
        return self.hypothesis.name

    def to_dict(self) -> dict[str, Any]:
        """As JSON: no NaN, no infinity."""
        h = self.hypothesis
        return {
            "metric": h.name,
            "role": h.role,
            "better": h.better,
            "claim": h.describe(),
            "margin": str(h.margin),
            "alpha": h.alpha,
            "status": self.status,
            "champion": _finite(self.estimates[0]),
            "challenger": _finite(self.estimates[1]),
            "records": {"champion": self.records[0], "challenger": self.records[1]},
            "unknown": {"champion": self.unknown[0], "challenger": self.unknown[1]},
            "difference": self.difference.to_list(),
            "ratio": self.ratio.to_list() if self.ratio is not None else None,
            "e_value": e_value(self.log_pass),
            "e_value_harm": e_value(self.log_harm),
            "odds": odds(self.log_pass, null_to_pass(h)),
            "odds_harm": odds(self.log_harm, null_of_harm(h)),
            "log_e": self.log_pass,
            "log_e_harm": self.log_harm,
            "log_threshold": self.needed[0] if self.needed is not None else None,
            "log_threshold_harm": self.needed[1] if self.needed is not None else None,
            "unlabelled": {"champion": self.unlabelled[0], "challenger": self.unlabelled[1]},
            "outside_bounds": self.outside,
            "note": self.note,
        }


def e_value(log_e: float) -> float:
    """The e-value of a log, bounded so that JSON can represent it."""
    return math.exp(min(log_e, 700.0))


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


_Measures = dict[str, list[BoundedMeasure | None]]


def _dump_measures(measures: _Measures) -> dict[str, Any]:
    return {
        mode: {
            m.hypothesis.name: {"of": repr(m.hypothesis), "state": m.dump_state()}
            for m in mode_measures
            if m is not None
        }
        for mode, mode_measures in measures.items()
    }


def _load_measures(name: str, state: Any, measures: _Measures) -> _Measures:
    """Metrics that are new or were declared differently start without evidence: evidence for one
    margin is not evidence for another."""
    for mode, mode_measures in measures.items():
        saved = state[mode]
        for measure in mode_measures:
            entry = saved.get(measure.hypothesis.name) if measure is not None else None
            if measure is not None and entry and entry["of"] == repr(measure.hypothesis):
                measure.load_state(entry["state"])
    return measures


class ChallengerEvidence(Stateful):
    """All evidence on one ``challenger``: measures of every hypothesis, separately for pairs and
    for split traffic. ``by_unit``: split traffic comes as complete units.

    Latency and errors in the shadow are those of mirrored requests, in a split those of clients'
    requests: neither is evidence for the other. See :meth:`evidence` for what they share.
    """

    challenger: Config[str]
    hypotheses: Config[tuple[Hypothesis, ...]]
    by_unit: Config[bool]
    measures: Saved[Annotated[_Measures, Converter(_dump_measures, _load_measures)]]
    pairs: Saved[Count]
    served: Saved[Two[Count]]
    """Records of split traffic of champion and challenger."""
    labels: Saved[dict[str, LabelCohorts]]
    """Labels and rewards of split traffic by request time."""
    labelled: Saved[dict[str, LabelledUnits]]
    """Likewise, the units that have labels; empty unless units are assigned."""
    evaluated: Saved[dict[str, Count]]
    """By mode: requests that were evaluated, of both arms of split traffic."""
    left_out: Saved[dict[str, Counter[str]]]
    """By mode: requests that were not, or whose content was not, by reason."""
    _shown: Transient[dict[tuple[str, float], list[Evidence]]]
    """Results of :meth:`evidence`, until the next update."""

    def __init__(
        self, challenger: str, hypotheses: Sequence[Hypothesis], *, by_unit: bool = False
    ) -> None:
        self.challenger = challenger
        self.hypotheses = tuple(hypotheses)
        self.by_unit = by_unit
        self.measures = {
            "shadow": [bounded_measure_for(h, paired=True) for h in self.hypotheses],
            "split": self._split_measures(),
        }
        self.pairs = 0
        self.served = [0, 0]
        self.labels = self._label_cohorts()
        self.labelled = self._labelled_units()
        self.evaluated = dict.fromkeys(MODES, 0)
        self.left_out = {mode: Counter() for mode in MODES}
        self._shown = {}

    def _label_cohorts(self) -> dict[str, LabelCohorts]:
        kinds: dict[str, list[str]] = {}
        for h in self.hypotheses:
            kind = _kind(h)
            if kind:
                kinds.setdefault(kind, []).extend(h.columns)
        return {kind: LabelCohorts(sorted(set(columns))) for kind, columns in kinds.items()}

    def _labelled_units(self) -> dict[str, LabelledUnits]:
        if not self.by_unit:
            return {}
        return {kind: LabelledUnits(cohorts.columns) for kind, cohorts in self.labels.items()}

    def _split_measures(self) -> list[BoundedMeasure | None]:
        return [
            None
            if h.metric.needs == "pairs"
            else bounded_measure_for(h, paired=False, by_unit=self.by_unit)
            for h in self.hypotheses
        ]

    def restart_split(self) -> None:
        """Drop the evidence of split traffic."""
        self._shown.clear()
        self.measures["split"] = self._split_measures()
        self.labels = self._label_cohorts()
        self.labelled = self._labelled_units()
        self.served = [0, 0]
        self.evaluated["split"] = 0
        self.left_out["split"].clear()

    def _restored(self) -> None:
        self._shown.clear()

    def update_pairs(self, batch: Pairs) -> None:
        """Add pairs."""
        self._shown.clear()
        self.pairs += batch.fresh
        self.account_for("shadow", batch.fresh, batch.left_out)
        batch = _complete_pairs(batch)
        for measure in self.measures["shadow"]:
            assert measure is not None
            measure.update_pairs(batch)

    def update_split(self, batch: Split) -> None:
        """Add records of split traffic."""
        self._shown.clear()
        arms = batch.arms if batch.fresh is None else batch.arms[batch.fresh]
        challenger = int(arms.sum())
        self.served[0] += arms.size - challenger
        self.served[1] += challenger
        self.account_for("split", arms.size, batch.left_out)
        self._update_split(_complete_split(batch), None)

    def _update_split(self, batch: Split, kind: str | None) -> None:
        """Add records to the measures of a kind of labels, or (None) to all."""
        for measure in self.measures["split"]:
            if measure is not None and kind in (None, _kind(measure.hypothesis)):
                measure.update_split(batch)

    def expect_labels(self, arms: Array, started: Array) -> None:
        """Add requests of split traffic that were answered, so that labels may come for them.

        ``started`` are their times, by the clock of :meth:`update_labels`.
        """
        self._shown.clear()
        for kind, cohorts in self.labels.items():
            cohorts.expect(arms, started)
            self._take_labels(kind, cohorts, None)

    def update_labels(self, batch: Split) -> None:
        """Add labels of split traffic, with the times of their requests and their own."""
        self._shown.clear()
        for kind, cohorts in self.labels.items():
            there = np.zeros(batch.arms.size, np.bool_)
            for name in cohorts.columns:
                if name in batch.columns and not name.startswith(COVARIATE):
                    there |= ~np.isnan(batch.columns[name])
            of_kind = batch.rows(np.flatnonzero(there)) if not there.all() else batch
            self._take_labels(kind, cohorts, cohorts.take(of_kind))

    def _take_labels(self, kind: str, cohorts: LabelCohorts, ready: Split | None) -> None:
        """Add the labels that count now, or start their evidence again."""
        if cohorts.trip():
            self.measures["split"] = [
                bounded_measure_for(m.hypothesis, paired=False, by_unit=self.by_unit)
                if m is not None and _kind(m.hypothesis) == kind
                else m
                for m in self.measures["split"]
            ]
            if self.by_unit:
                self.labelled[kind] = LabelledUnits(cohorts.columns)
            return
        for part in (ready, cohorts.release()):
            if part is not None and self.by_unit:
                self._take_units(kind, self.labelled[kind].take(part))
            elif part is not None:
                self._update_split(part, kind)
        if self.by_unit:
            self._take_units(kind, self.labelled[kind].advance(cohorts.now))

    def _take_units(self, kind: str, steps: Iterable[Units | Split | None]) -> None:
        """Add units by their labels, in the order of ``steps``: those that have reached an age,
        the first labels of units, and (None) that the shares have changed."""
        measures = [
            m for m in self.measures["split"] if m is not None and _kind(m.hypothesis) == kind
        ]
        for step in steps:
            for measure in measures:
                if step is None:
                    measure.begin_epoch()
                elif isinstance(step, Split) and measure.hypothesis.one_label:
                    measure.update_split(step)
                elif isinstance(step, Units) and not measure.hypothesis.one_label:
                    measure.update_units(step)

    def finish(self) -> None:
        """The last label has come: count what the units with labels have shown."""
        self._shown.clear()
        for kind, units in self.labelled.items():
            self._take_units(kind, units.close())

    def update_units(self, batch: Units) -> None:
        """Add units that have reached an age."""
        self._shown.clear()
        batch = _complete_units(batch)
        for measure in self.measures["split"]:
            if measure is not None:
                measure.update_units(batch)

    def begin_units(self, champion: int, challenger: int) -> None:
        """Count units that have begun under the current weights."""
        self._shown.clear()
        self.served[0] += champion
        self.served[1] += challenger

    def begin_epoch(self) -> None:
        """Start a new epoch: the weights have changed. Labels come later, so those of units have
        separate epochs."""
        self._shown.clear()
        for measure in self.measures["split"]:
            if measure is not None and not (self.by_unit and _kind(measure.hypothesis)):
                measure.begin_epoch()

    def counted_in(self, mode: str) -> str:
        """What is counted in a mode: "requests", or "units" where these are assigned."""
        return "units" if mode == "split" and self.by_unit else "requests"

    def requests(self, mode: str) -> int:
        """The challenger's own requests, or units, in a mode."""
        return self.pairs if mode == "shadow" else self.served[1]

    def account_for(self, mode: str, evaluated: int, left_out: Mapping[str, int]) -> None:
        """Count requests that were evaluated, and those that were not, by reason. Batches of
        requests do this by themselves; complete units do not."""
        self.evaluated[mode] += evaluated
        self.left_out[mode].update(left_out)

    def account(self, mode: str) -> tuple[str, ...]:
        """Lines that say which requests were not evaluated in a mode, why, and what to do."""
        return tuple(account(self.left_out[mode], self.evaluated[mode]))

    def evidence(self, mode: str, alpha: float) -> list[Evidence]:
        """The evidence of all hypotheses that can be tested in ``mode``; the status is not set.

        The content of a response does not depend on who receives it. So evidence from mirrored
        requests on contents, such as accuracy, counts for split traffic as well: the e-values of a
        shadow stage and of the later requests multiply.
        """
        known = self._shown.get((mode, alpha))
        if known is not None:
            return known
        by_hypothesis: list[Evidence] = []
        for paired, split in zip(*(self.measures[m] for m in MODES), strict=True):
            assert paired is not None
            measures = [paired] if mode == "shadow" else [m for m in (split,) if m is not None]
            if mode == "split" and paired.n[0] and _about_content(paired.hypothesis):
                measures.append(paired)
            if measures:
                kind = _kind(paired.hypothesis)
                cohorts = self.labels.get(kind) if mode == "split" else None
                item = _evidence(measures, mode, alpha, cohorts)
                if kind:
                    item = replace(item, unlabelled=self._unlabelled(kind, mode))
                if _about_content(paired.hypothesis):
                    item = replace(item, unread=self._unread(mode))
                by_hypothesis.append(item)
        self._shown[mode, alpha] = by_hypothesis
        return by_hypothesis

    def _unread(self, mode: str) -> float:
        """The share of requests of a mode whose answers could not be read."""
        evaluated = self.evaluated[mode]
        return self.left_out[mode]["unreadable"] / evaluated if evaluated else 0.0

    def _unlabelled(self, kind: str, mode: str) -> tuple[float, float]:
        """The share of requests by arm that have no label of a kind. Labels of pairs are those of
        both arms, as many as the metric with the most of them has."""
        if mode == "split":
            return self.labels[kind].unlabelled
        if not self.pairs:
            return (0.0, 0.0)
        of_kind = [m for m in self.measures["shadow"] if m and _kind(m.hypothesis) == kind]
        share = 1.0 - min(1.0, max(m.n[0] for m in of_kind) / self.pairs)
        return (share, share)

    def merge(self, other: Self) -> Self:
        """The combined evidence of two replicas. What units have shown at an age that they have
        not reached is left out."""
        both = type(self)(self.challenger, self.hypotheses, by_unit=self.by_unit)
        both.pairs = self.pairs + other.pairs
        both.served = [a + b for a, b in zip(self.served, other.served, strict=True)]
        both.labels = {kind: part.merge(other.labels[kind]) for kind, part in self.labels.items()}
        both.evaluated = {mode: self.evaluated[mode] + other.evaluated[mode] for mode in MODES}
        both.left_out = {mode: self.left_out[mode] + other.left_out[mode] for mode in MODES}
        for mode in MODES:
            both.measures[mode] = [
                a.merge(b) if a is not None and b is not None else None
                for a, b in zip(self.measures[mode], other.measures[mode], strict=True)
            ]
        return both


# A source that does not say which requests have a usable answer, such as a file, has one for each
# request that did not fail.


def _or_0(values: Array) -> Array:
    """The values, and 0 where there is none."""
    return np.where(np.isnan(values), 0.0, values)


def _complete_pairs(batch: Pairs) -> Pairs:
    columns = batch.columns
    if "unusable" in columns or not batch.fresh or not columns:
        return batch
    first = columns.get("error") or next(iter(columns.values()))
    champion, challenger = first if "error" in columns else (0.0 * first[0], 0.0 * first[1])
    pair = (_or_0(champion), _or_0(challenger))
    return replace(batch, columns={**columns, "unusable": pair})


def _complete_split(batch: Split) -> Split:
    if "unusable" in batch.columns:
        return batch
    values = _or_0(batch.columns.get("error", np.zeros(batch.arms.size)))
    if batch.fresh is not None:
        values = np.where(batch.fresh, values, np.nan)
    return replace(batch, columns={**batch.columns, "unusable": values})


def _complete_units(batch: Units) -> Units:
    if "unusable" in batch.columns:
        return batch
    size = batch.arms.size
    values = batch.columns.get("error", (np.zeros(size), np.ones(size)))
    return replace(batch, columns={**batch.columns, "unusable": values})


def _about_content(hypothesis: Hypothesis) -> bool:
    """Whether it is about the content of responses, not about latency or errors."""
    metric = hypothesis.metric
    if metric.needs == "labels":
        # A reward is what followed from the answer that was served: the champion's.
        return metric.column != "reward"
    return metric.name == "disagreement" or metric.of_field


def _less(log_e: float, penalty: float) -> float:
    return min(log_e, max(0.0, log_e - penalty))


def _kind(hypothesis: Hypothesis) -> str:
    """The kind of labels that a hypothesis is about, which come on their own; "" for none."""
    if hypothesis.metric.needs != "labels":
        return ""
    return "reward" if hypothesis.metric.column == "reward" else "label"


def _despite_lack(measure: BoundedMeasure, cohorts: LabelCohorts | None) -> tuple[float, float]:
    """Evidence for a claim about a rate whatever the labels are that the challenger lacks, and the
    largest share of requests without one."""
    h = measure.hypothesis
    champion, challenger = measure.estimates()
    share = max(cohorts.unlabelled) if cohorts is not None else 0.0
    if cohorts is None or share <= SMALL or h.metric.statistic is not Statistic.RATE:
        return math.inf, share
    if champion is None or challenger is None or not min(measure.n):
        return math.inf, share
    null, _ = nulls(h)
    edge = challenger - null.ratio * champion - null.shift
    log_e = log_despite_lack(
        edge if null.alternative == "greater" else -edge,
        (champion, challenger),
        null.ratio,
        measure.n,
        cohorts,
        not h.lower_is_better,
        asymptotic_precision(h.planned, min(2.0 * h.alpha, 0.9)),
    )
    return log_e, share


def _evidence(
    measures: Sequence[BoundedMeasure],
    mode: str,
    alpha: float,
    cohorts: LabelCohorts | None = None,
) -> Evidence:
    """The figures of the first measure that has records, with the evidence of all."""
    shown = next((m for m in measures if min(m.n)), measures[0])
    note = shown.note
    logs = [[m.log_pass, m.log_harm] for m in measures]
    judgement = cohorts.judge(ARMS) if cohorts is not None else None
    not_judged = judgement.reason if judgement is not None else ""
    level = alpha
    if judgement is not None:
        # The interval excludes what evidence without the penalty would reject.
        level *= math.exp(-judgement.penalty)
        # Of the labels of split traffic: the first measure.
        logs[0] = [min(e, 0.0) if not_judged else _less(e, judgement.penalty) for e in logs[0]]
        despite, share = _despite_lack(measures[0], cohorts)
        if despite < logs[0][0]:
            logs[0][0] = despite
            lacking = (
                f"{percent(share, 3)} of an arm's requests have no label yet, and the claim has to "
                "hold if those that the challenger lacks are against it"
            )
            note = "; ".join(filter(None, (note, lacking)))
        note = "; ".join(filter(None, (note, judgement.note)))
        if not_judged:
            note = f"not judged: {not_judged}"
    if len(measures) > 1:
        note = "; ".join(filter(None, (note, "with the evidence of the shadow stage")))
    return Evidence(
        shown.hypothesis,
        (shown.n[0], shown.n[1]),
        shown.estimates(),
        Interval() if not_judged else shown.difference(level),
        None if not_judged else shown.ratio(level),
        sum(to_pass for to_pass, _ in logs),
        sum(harm for _, harm in logs),
        sum(m.outside for m in measures),
        note,
        decides=mode == "split" or shown.hypothesis.column != "latency",
        dependence=shown.dependence,
        unknown=(sum(m.unknown[0] for m in measures), sum(m.unknown[1] for m in measures)),
        incomplete=any(m.incomplete for m in measures),
    )
