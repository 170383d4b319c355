"""Sequential methods of the library that the service itself does not use.

They are imported by their names in :mod:`understudy.shadow.sequential`, and loaded when one of them
is asked for, so that the service starts without them.
"""

MODULES = {
    "asymptotic_adjusted": ("AdjustedDifference",),
    "asymptotic_blocks": ("BlockDifference", "UnitDifference"),
    "asymptotic_processes": ("MeanDifference", "PairedMean"),
    "dispersion": ("BoundedVariance", "SpreadDifference"),
    "empirical_bernstein": ("EmpiricalBernstein",),
    "msprt": ("MixtureSPRT", "tune_tau"),
    "quantile_sequence": ("QuantileSequence",),
    "spending": (
        "Boundaries",
        "boundaries",
        "exit_probabilities",
        "obrien_fleming",
        "pocock",
        "power_family",
    ),
    "split_difference": ("SplitDifference",),
}
"""What each module has to offer, by the module's name."""
