"""The columns of an experiment's evidence, shared by both stages."""

from __future__ import annotations

from hashlib import blake2b

from understudy.monitor.config.experiment import Experiment as Declared
from understudy.monitor.config.rules import rules_of
from understudy.monitor.evidence.arms import Arms
from understudy.shadow.experiment.hypothesis import COVARIATE, EARLIER

ASSIGNED, PAIRS, LABELS, NOTES = "assigned", "pairs", "labels", "notes"
"""Types of rows: requests assigned to an arm, pairs, labels of split traffic, and notes on single
comparisons."""
EXPERIMENT_KINDS = frozenset((ASSIGNED, PAIRS, LABELS, NOTES))
FACTS = ("started", "seconds", "open", "fate", "answered", "epoch", "settled")
"""Columns of assigned requests, besides their values, their unit and the weights. ``open`` is 1 for
a request that has not finished, whose ``seconds`` are its age so far. ``fate`` is an index of
:data:`understudy.shadow.experiment.fates.FATES`, or ``OUTSIDE``."""
UNIT = f"{COVARIATE}unit of assignment"
"""Column of a stored prediction with the number of its unit: its label comes without."""
_SIDES = ("a.", "b.")


def unit_number(unit: bytes) -> float:
    """A number for a unit, which a float holds exactly; the name of the unit is not kept."""
    return float(int.from_bytes(blake2b(unit, digest_size=8).digest(), "little") >> 11)


class EvidenceLayout:
    """Column names of an experiment: ``columns`` of observed values, of which ``covariates`` are of
    the request and ``of_labels`` of its label; ``order`` of the arms, champion first."""

    def __init__(self, declared: Declared, arms: Arms) -> None:
        hypotheses = rules_of(declared).hypotheses
        self.by_unit = declared.unit.by != "request"
        self.order = (arms.champion, *declared.challengers)
        self.columns = tuple(sorted({column for h in hypotheses for column in h.columns}))
        self.covariates = tuple(
            c for c in self.columns if c.startswith(COVARIATE) and not c.startswith(EARLIER)
        )
        self.of_labels = frozenset(
            column
            for h in hypotheses
            if h.metric.needs == "labels"
            for column in h.columns
            if not column.startswith(COVARIATE)
        )
        self.wants_labels = any(h.metric.needs == "labels" for h in hypotheses)

    def assigned_names(self, width: int) -> tuple[str, ...]:
        """Columns of assigned requests with ``width`` weights."""
        weights = (f"w{number}" for number in range(width))
        return (*FACTS, "unit", *weights, *(f"v.{column}" for column in self.columns))

    def pairs_names(self) -> tuple[str, ...]:
        """Columns of pairs; ``a.`` is the champion. ``fresh`` is 1 for a new request whose answers
        both were evaluated. A row whose ``b.fate`` is ``PENDING`` is not a pair: it reports, once,
        that the mirrored request of this id has not finished."""
        values = (side + column for side in _SIDES for column in self.columns)
        return ("fresh", "a.fate", "b.fate", *values)

    def labels_names(self) -> tuple[str, ...]:
        """Columns of labels of split traffic. ``unit`` is a number, NaN where there are none."""
        return ("share", "started", "unit", *(f"v.{column}" for column in self.columns))
