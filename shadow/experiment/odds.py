"""Evidence as odds, in plain words.

An e-process exceeds n at any time with probability at most 1/n while its null hypothesis holds
(Ville's inequality). So an e-value of 20,000 is evidence that at most 1 in 20,000 such experiments
would ever show if the null hypothesis were true.
"""

from __future__ import annotations

import math

from understudy.shadow.experiment.hypothesis import Hypothesis

_LEAST = math.log(2.0)
_MOST = math.log(1e9)


def odds(log_e: float, null: str = "nothing had changed") -> str:
    """The evidence in plain words; ``log_e`` is the log of the e-value, ``null`` what it speaks
    against."""
    if log_e < _LEAST:
        return "no evidence"
    if log_e >= _MOST:
        return f"less than 1 in a billion if {null}"
    n = math.exp(log_e)
    digits = 10 ** max(0, math.floor(math.log10(n)) - 1)
    return f"1 in {math.floor(n / digits) * digits:,} if {null}"


def null_to_pass(hypothesis: Hypothesis) -> str:
    """What the evidence for the claim speaks against."""
    if hypothesis.role == "guardrail":
        return f"it were worse by {hypothesis.margin}"
    if hypothesis.margin.value:
        return f"it were better by at most {hypothesis.margin}"
    return "nothing had changed"


def null_of_harm(hypothesis: Hypothesis) -> str:
    """What the evidence of harm speaks against."""
    if hypothesis.role == "guardrail" and hypothesis.margin.value:
        return f"it were worse by at most {hypothesis.margin}"
    return "nothing had changed"
