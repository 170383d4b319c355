"""Anytime-valid comparison of two models: confidence sequences and e-processes.

Every method is a :class:`Process` with ``update``, ``merge``, ``to_dict`` and ``from_dict``; see
``docs/sequential.md`` for which question wants which.
"""

from shadow.sequential.betting import BettingInterval, BettingTest
from shadow.sequential.common import (
    EProcess,
    Interval,
    MergeRule,
    Process,
    SequentialError,
    load,
    p_value,
    reject,
)
from shadow.sequential.empirical_bernstein import EmpiricalBernstein
from shadow.sequential.label_betting import LabelBetting, log_odds_effect
from shadow.sequential.multiplicity import average, closed_e_bh, e_bh, familywise
from shadow.sequential.paired import (
    PairedMargin,
    PairedTest,
    pair_differences,
    tune_concentration,
)
from shadow.sequential.proportions import (
    BernoulliInterval,
    TwoProportions,
    bernoulli_interval,
    tuned_concentration,
)
from shadow.sequential.rates import RateTest
from shadow.sequential.spending import (
    Boundaries,
    boundaries,
    exit_probabilities,
    obrien_fleming,
    pocock,
    power_family,
)
from shadow.sequential.split_difference import SplitDifference
from shadow.sequential.srm import SplitCheck

__all__ = [
    "BernoulliInterval",
    "BettingInterval",
    "BettingTest",
    "Boundaries",
    "EProcess",
    "EmpiricalBernstein",
    "Interval",
    "LabelBetting",
    "MergeRule",
    "PairedMargin",
    "PairedTest",
    "Process",
    "RateTest",
    "SequentialError",
    "SplitCheck",
    "SplitDifference",
    "TwoProportions",
    "average",
    "bernoulli_interval",
    "boundaries",
    "closed_e_bh",
    "e_bh",
    "exit_probabilities",
    "familywise",
    "load",
    "log_odds_effect",
    "obrien_fleming",
    "p_value",
    "pair_differences",
    "pocock",
    "power_family",
    "reject",
    "tune_concentration",
    "tuned_concentration",
]
