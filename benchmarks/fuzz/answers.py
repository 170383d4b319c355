"""Mutated answers of model servers, through a worker: what clients get is what llhttp and h11 read.

python -m benchmarks fuzz-answers [--quick]
"""

from __future__ import annotations

from benchmarks.fuzz.run import fuzzed
from benchmarks.harness import Result

WHAT = "a well-formed request with a mutated answer, in pieces and whole"


def run(quick: bool = False) -> Result:
    return fuzzed("fuzz-answers", WHAT, ["tests.fuzz.proxy_fuzz", "--target", "answers"], quick)
