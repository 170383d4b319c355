"""Anytime-valid comparison of two models: confidence sequences and e-processes.

Every method is a :class:`Process` with ``update``, ``merge``, ``dump_state`` and ``from_state``;
see ``docs/sequential.md`` for which question wants which. What the service does not use lies in
:mod:`understudy.shadow.sequential.contrib` and is loaded when it is asked for.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from understudy.shadow.sequential.asymptotic import (
    Gate,
    Readiness,
    Status,
    asymptotic_precision,
    asymptotic_radius,
)
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
from understudy.shadow.sequential.contrib import MODULES
from understudy.shadow.sequential.dkw import (
    KolmogorovSmirnov,
    dkw_radius,
    double_stitching_bound,
    ks_p_value,
)
from understudy.shadow.sequential.histogram import edges_around, fold
from understudy.shadow.sequential.label_betting import LabelBetting, log_odds_effect
from understudy.shadow.sequential.multiplicity import (
    average,
    closed_e_bh,
    e_bh,
    familywise,
    required,
)
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
from understudy.shadow.sequential.quantile import quantile_shapes
from understudy.shadow.sequential.rates import RateTest
from understudy.shadow.sequential.srm import SplitCheck
from understudy.shadow.sequential.tail import TailDetector, TailFinding, tail_thresholds
from understudy.shadow.sequential.two_quantiles import QuantileComparison, quantile_ab_p_value

if TYPE_CHECKING:
    from understudy.shadow.sequential.contrib.asymptotic_adjusted import AdjustedDifference
    from understudy.shadow.sequential.contrib.asymptotic_blocks import (
        BlockDifference,
        UnitDifference,
    )
    from understudy.shadow.sequential.contrib.asymptotic_processes import MeanDifference, PairedMean
    from understudy.shadow.sequential.contrib.dispersion import BoundedVariance, SpreadDifference
    from understudy.shadow.sequential.contrib.empirical_bernstein import EmpiricalBernstein
    from understudy.shadow.sequential.contrib.msprt import MixtureSPRT, tune_tau
    from understudy.shadow.sequential.contrib.quantile_sequence import QuantileSequence
    from understudy.shadow.sequential.contrib.spending import (
        Boundaries,
        boundaries,
        exit_probabilities,
        obrien_fleming,
        pocock,
        power_family,
    )
    from understudy.shadow.sequential.contrib.split_difference import SplitDifference

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
    "required",
    "tail_thresholds",
    "tune_concentration",
    "tune_tau",
    "tuned_concentration",
]

_CONTRIB = {name: module for module, names in MODULES.items() for name in names}


def __getattr__(name: str) -> Any:
    """A name of :mod:`understudy.shadow.sequential.contrib`, whose module is loaded now."""
    if name not in _CONTRIB:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.contrib.{_CONTRIB[name]}"), name)
