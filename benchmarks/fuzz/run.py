"""A long run of a fuzzer in a process of its own, with its result."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from benchmarks.harness import Claim, Result, environment

INPUTS = 1_000_000
QUICK = 10_000
SEED = 16


def fuzzed(name: str, what: str, arguments: list[str], quick: bool) -> Result:
    """Run the module and options ``arguments``, which prints JSON; ``what`` says what an input is.

    The fuzzer ends at its first failure: that is in the result, with how to run it again.
    """
    count = QUICK if quick else INPUTS
    command = [sys.executable, "-m", *arguments, "--seed", str(SEED), "--inputs", str(count)]
    began = time.monotonic()
    done = subprocess.run(
        [*command, "--quiet", "--json"], capture_output=True, text=True,
        cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    seconds = time.monotonic() - began
    failed = done.returncode != 0
    found: dict[str, Any] = {} if failed else json.loads(done.stdout)
    passed = found.get("inputs", 0)
    rate = passed / seconds
    failure = done.stderr[-4000:] if failed else None
    counts: dict[str, int] = found.get("outcomes", {})
    result = Result(
        name,
        environment(input=what, seed=SEED),
        {"inputs": passed, "seconds": seconds, "failure": failure, **found},
        [
            Claim("failures", float(failed), 0.0, "<="),
            Claim("inputs without a failure", float(passed), float(count), ">="),
        ],
    )
    result.tables.append(
        ("Run", ["inputs", "seconds", "inputs per second"], [[passed, seconds, rate]])
    )
    result.tables.append(("Outcomes", ["outcome", "number"], [[*one] for one in counts.items()]))
    if failure:
        result.tables.append(("Failure", ["text"], [[failure.replace("\n", " ")]]))
    return result
