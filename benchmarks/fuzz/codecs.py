"""Mutated payloads of every wire format: decoded or undecodable with a reason, never an error.

python -m benchmarks fuzz-codecs [--quick]
"""

from __future__ import annotations

from benchmarks.fuzz.run import fuzzed
from benchmarks.harness import Result

WHAT = "an exchange of any wire format, mutated as bytes and as JSON"


def run(quick: bool = False) -> Result:
    return fuzzed("fuzz-codecs", WHAT, ["tests.fuzz.codecs_fuzz"], quick)
