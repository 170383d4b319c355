"""A short run of the fuzzer; CONTRIBUTING tells how to make a long one."""

from __future__ import annotations

import subprocess
import sys


def test_a_short_run_finds_nothing() -> None:
    command = [sys.executable, "-m", "tests.fuzz.proxy_fuzz", "--inputs", "4000", "--quiet"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "4,000 inputs, no failure" in done.stdout
