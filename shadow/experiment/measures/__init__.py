"""Which method answers which hypothesis, in shadow mode and on split traffic."""

from __future__ import annotations

from functools import partial

from understudy.shadow.experiment.hypothesis import Hypothesis, Statistic
from understudy.shadow.experiment.measures.adjusted import AdjustedMean, UnitTotal
from understudy.shadow.experiment.measures.base import Measure
from understudy.shadow.experiment.measures.blocks import AucBlocks, CalibrationBlocks
from understudy.shadow.experiment.measures.bounded import BoundedMeasure
from understudy.shadow.experiment.measures.by_unit import ByUnit
from understudy.shadow.experiment.measures.distribution import Distribution
from understudy.shadow.experiment.measures.mean import BoundedMeanPairs, Mean
from understudy.shadow.experiment.measures.quantile import Quantile
from understudy.shadow.experiment.measures.rate import RatePairs, RateSplit
from understudy.shadow.experiment.measures.ratio import Ratio
from understudy.shadow.experiment.measures.tail import Tail
from understudy.shadow.experiment.measures.unit_mean import UnitMean

__all__ = ["BoundedMeasure", "ByUnit", "Measure", "bounded_measure_for", "measure_for"]


def bounded_measure_for(
    hypothesis: Hypothesis, *, paired: bool, by_unit: bool = False
) -> BoundedMeasure:
    """The same for values of which some are only known to lie in an interval."""
    return BoundedMeasure(partial(measure_for, hypothesis, paired=paired, by_unit=by_unit))


def measure_for(hypothesis: Hypothesis, *, paired: bool, by_unit: bool = False) -> Measure:
    """A measure without evidence.

    ``paired``: both arms answer the same request (shadow). ``by_unit``: the records of one unit
    were assigned together, so a rate is the mean over units.
    """
    return ByUnit(hypothesis, _of_units) if by_unit else _of_records(hypothesis, paired)


def _of_units(hypothesis: Hypothesis) -> Measure:
    """Units at one age."""
    statistic = hypothesis.metric.statistic
    bounded = statistic is Statistic.MEAN and hypothesis.bounds and len(hypothesis.columns) == 1
    if statistic is Statistic.RATE or bounded:
        return UnitMean(hypothesis, False)
    return _of_records(hypothesis, False)


def _of_records(hypothesis: Hypothesis, paired: bool) -> Measure:
    statistic = hypothesis.metric.statistic
    if statistic is Statistic.RATE:
        if paired:
            return RatePairs(hypothesis, True)
        return RateSplit(hypothesis, False)
    if statistic is Statistic.TOTAL:
        return UnitTotal(hypothesis, paired)
    if statistic is Statistic.RATIO:
        return Ratio(hypothesis, paired)
    if statistic is Statistic.AUC:
        return AucBlocks(hypothesis, paired)
    if statistic is Statistic.CALIBRATION:
        return CalibrationBlocks(hypothesis, paired)
    if statistic is Statistic.MEAN:
        if len(hypothesis.columns) > 1:
            return AdjustedMean(hypothesis, paired)
        if paired and hypothesis.bounds is not None:
            return BoundedMeanPairs(hypothesis, True)
        return Mean(hypothesis, paired)
    if statistic is Statistic.QUANTILE:
        return Quantile(hypothesis, paired)
    if statistic is Statistic.TAIL:
        return Tail(hypothesis, paired)
    return Distribution(hypothesis, paired)
