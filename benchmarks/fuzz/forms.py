"""The same requests, answers and records in both forms of the data plane: the same bytes come out.

python -m benchmarks fuzz-forms [--quick]
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from benchmarks.fuzz.run import fuzzed
from benchmarks.harness import Result

WHAT = "a request, an answer or a record, played by the sources and by the compiled modules"


def run(quick: bool = False) -> Result:
    root = Path(__file__).resolve().parents[2]
    subprocess.run([sys.executable, "-m", "tools.compiled"], cwd=root, check=True)
    os.environ["UNDERSTUDY_COMPILED"] = str(root / "build" / "compiled")
    return fuzzed("fuzz-forms", WHAT, ["tests.fuzz.forms_fuzz"], quick)
