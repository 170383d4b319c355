"""Anytime-valid comparison of two models: confidence sequences and e-processes.

Every method is a :class:`Process` with ``update``, ``merge``, ``to_dict`` and ``from_dict``; see
``docs/sequential.md`` for which question wants which.
"""

from understudy.shadow.sequential.asymptotic import (
    Gate,
    MeanDifference,
    PairedMean,
    Readiness,
    Status,
    asymptotic_precision,
    asymptotic_radius,
)
from understudy.shadow.sequential.asymptotic_adjusted import AdjustedDifference
from understudy.shadow.sequential.asymptotic_blocks import BlockDifference, UnitDifference
from understudy.shadow.sequential.betting import BettingInterval, BettingTest
from understudy.shadow.sequential.common import (
    EProcess,
    Interval,
    MergeRule,
    Process,
    SequentialError,
    load,
    p_value,
    reject,
)
from understudy.shadow.sequential.dispersion import BoundedVariance, SpreadDifference
from understudy.shadow.sequential.dkw import (
    KolmogorovSmirnov,
    dkw_radius,
    double_stitching_bound,
    ks_p_value,
)
from understudy.shadow.sequential.empirical_bernstein import EmpiricalBernstein
from understudy.shadow.sequential.histogram import edges_around, fold
from understudy.shadow.sequential.label_betting import LabelBetting, log_odds_effect
from understudy.shadow.sequential.msprt import MixtureSPRT, tune_tau
from understudy.shadow.sequential.multiplicity import average, closed_e_bh, e_bh, familywise
from understudy.shadow.sequential.normal_mixture import (
    best_rho,
    beta_binomial_bound,
    gamma_exponential_bound,
    gamma_poisson_bound,
    normal_mixture_bound,
    poly_stitching_bound,
)
from understudy.shadow.sequential.paired import (
    PairedMargin,
    PairedTest,
    pair_differences,
    tune_concentration,
)
from understudy.shadow.sequential.proportions import (
    BernoulliInterval,
    TwoProportions,
    bernoulli_interval,
    tuned_concentration,
)
from understudy.shadow.sequential.quantile import QuantileSequence, quantile_shapes
from understudy.shadow.sequential.rates import RateTest
from understudy.shadow.sequential.spending import (
    Boundaries,
    boundaries,
    exit_probabilities,
    obrien_fleming,
    pocock,
    power_family,
)
from understudy.shadow.sequential.split_difference import SplitDifference
from understudy.shadow.sequential.srm import SplitCheck
from understudy.shadow.sequential.tail import TailDetector, TailFinding, tail_thresholds
from understudy.shadow.sequential.two_quantiles import QuantileComparison, quantile_ab_p_value

__all__ = [
    "AdjustedDifference",
    "BernoulliInterval",
    "BettingInterval",
    "BettingTest",
    "BlockDifference",
    "Boundaries",
    "BoundedVariance",
    "EProcess",
    "EmpiricalBernstein",
    "Gate",
    "Interval",
    "KolmogorovSmirnov",
    "LabelBetting",
    "MeanDifference",
    "MergeRule",
    "MixtureSPRT",
    "PairedMargin",
    "PairedMean",
    "PairedTest",
    "Process",
    "QuantileComparison",
    "QuantileSequence",
    "RateTest",
    "Readiness",
    "SequentialError",
    "SplitCheck",
    "SplitDifference",
    "SpreadDifference",
    "Status",
    "TailDetector",
    "TailFinding",
    "TwoProportions",
    "UnitDifference",
    "asymptotic_precision",
    "asymptotic_radius",
    "average",
    "bernoulli_interval",
    "best_rho",
    "beta_binomial_bound",
    "boundaries",
    "closed_e_bh",
    "dkw_radius",
    "double_stitching_bound",
    "e_bh",
    "edges_around",
    "exit_probabilities",
    "familywise",
    "fold",
    "gamma_exponential_bound",
    "gamma_poisson_bound",
    "ks_p_value",
    "load",
    "log_odds_effect",
    "normal_mixture_bound",
    "obrien_fleming",
    "p_value",
    "pair_differences",
    "pocock",
    "poly_stitching_bound",
    "power_family",
    "quantile_ab_p_value",
    "quantile_shapes",
    "reject",
    "tail_thresholds",
    "tune_concentration",
    "tune_tau",
    "tuned_concentration",
]
