"""The special functions of scipy, without the parts of numpy that scipy would load with them.

Importing ``scipy.special`` copies every public name of numpy into a module of scipy, which loads
what numpy itself loads only when it is used: the generator of Fortran wrappers, the test tools,
masked arrays and others, 9 MiB in all. None of them is needed for the functions.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np


@contextmanager
def _names_without_loading() -> Iterator[None]:
    """Within it numpy lists only the names that do not load another module."""
    names, list_names = np.__all__, np.__dir__
    here = [name for name in names if name in vars(np)]
    vars(np).update(__all__=here, __dir__=lambda: here)
    try:
        yield
    finally:
        vars(np).update(__all__=names, __dir__=list_names)


with _names_without_loading():
    from scipy.special import (
        betainc,
        betaincc,
        betaincinv,
        betaln,
        chdtrc,
        chdtri,
        erfc,
        expit,
        gammainc,
        gammaincc,
        gammaln,
        kl_div,
        kolmogorov,
        log_ndtr,
        logit,
        logsumexp,
        ndtr,
        ndtri,
        stdtrit,
        xlog1py,
        xlogy,
        zeta,
    )

__all__ = [
    "betainc",
    "betaincc",
    "betaincinv",
    "betaln",
    "chdtrc",
    "chdtri",
    "erfc",
    "expit",
    "gammainc",
    "gammaincc",
    "gammaln",
    "kl_div",
    "kolmogorov",
    "log_ndtr",
    "logit",
    "logsumexp",
    "ndtr",
    "ndtri",
    "stdtrit",
    "xlog1py",
    "xlogy",
    "zeta",
]
