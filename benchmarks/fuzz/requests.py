"""Mutated requests of clients, through a worker: never smuggled, mixed up, or without an answer.

python -m benchmarks fuzz-requests [--quick]
"""

from __future__ import annotations

from benchmarks.fuzz.run import fuzzed
from benchmarks.harness import Result

WHAT = "what up to four clients send on their connections"


def run(quick: bool = False) -> Result:
    return fuzzed("fuzz-requests", WHAT, ["tests.fuzz.proxy_fuzz", "--target", "requests"], quick)
