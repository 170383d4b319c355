"""Which method answers which hypothesis, in shadow mode and on split traffic."""

from __future__ import annotations

from understudy.shadow.experiment.hypothesis import Hypothesis, Statistic
from understudy.shadow.experiment.measures.adjusted import AdjustedMean, UnitTotal
from understudy.shadow.experiment.measures.base import Measure
from understudy.shadow.experiment.measures.blocks import AucBlocks, CalibrationBlocks
from understudy.shadow.experiment.measures.distribution import Distribution
from understudy.shadow.experiment.measures.mean import BoundedMeanPairs, Mean
from understudy.shadow.experiment.measures.quantile import Quantile
from understudy.shadow.experiment.measures.rate import RatePairs, RateSplit
from understudy.shadow.experiment.measures.ratio import Ratio
from understudy.shadow.experiment.measures.tail import Tail

__all__ = ["Measure", "measure_for"]


def measure_for(hypothesis: Hypothesis, *, paired: bool, by_unit: bool = False) -> Measure:
    """A measure without evidence.

    ``paired``: both arms answer the same request (shadow). ``by_unit``: the records of one unit
    were assigned together, so a rate is the mean over units.
    """
    statistic = hypothesis.metric.statistic
    if statistic is Statistic.RATE:
        if paired:
            return RatePairs(hypothesis, True)
        return Mean(hypothesis, False) if by_unit else RateSplit(hypothesis, False)
    if statistic is Statistic.TOTAL:
        return UnitTotal(hypothesis, paired)
    if statistic is Statistic.RATIO:
        return Ratio(hypothesis, paired)
    if statistic is Statistic.AUC:
        return AucBlocks(hypothesis, paired)
    if statistic is Statistic.CALIBRATION:
        return CalibrationBlocks(hypothesis, paired)
    if statistic is Statistic.MEAN:
        if hypothesis.covariate:
            return AdjustedMean(hypothesis, paired)
        if paired and hypothesis.bounds is not None:
            return BoundedMeanPairs(hypothesis, True)
        return Mean(hypothesis, paired)
    if statistic is Statistic.QUANTILE:
        return Quantile(hypothesis, paired)
    if statistic is Statistic.TAIL:
        return Tail(hypothesis, paired)
    return Distribution(hypothesis, paired)
