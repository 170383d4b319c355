"""Builds Sloth from its Go module if it is missing: ``python -m tools.parts.sloth``.

``--write`` regenerates ``rules.yml``. The program is cached in ``~/.cache/understudy``
(``$XDG_CACHE_HOME``). The rules are in the repository, so that the comparison runs without Go; if the
program is available, a test checks that the rules are up to date.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

VERSION = "v0.16.0"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "understudy" / "go"
PROGRAM = CACHE / f"sloth-{VERSION}"
HERE = Path(__file__).resolve().parents[2] / "tests" / "slo" / "sloth"
SLOS, RULES = HERE / "slos.yml", HERE / "rules.yml"


def made() -> str:
    """The rules that Sloth generates from the objectives. Raises CalledProcessError."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "rules.yml"
        subprocess.run(
            [str(PROGRAM), "generate", "-i", str(SLOS), "-o", str(out)],
            check=True, capture_output=True, cwd=folder,
        )  # fmt: skip
        return out.read_text(encoding="utf-8").lstrip()


def build() -> str | None:
    """Build the program; return the reason of a failure, or None."""
    if shutil.which("go") is None:
        return "Go is not installed"
    with tempfile.TemporaryDirectory() as folder:
        done = subprocess.run(
            ["go", "install", f"github.com/slok/sloth/cmd/sloth@{VERSION}"],
            env={**os.environ, "GOBIN": folder}, capture_output=True, text=True, timeout=1800,
        )  # fmt: skip
        if done.returncode:
            return (done.stderr.strip() or "go failed").splitlines()[-1]
        CACHE.mkdir(parents=True, exist_ok=True)
        shutil.copy(Path(folder) / "sloth", PROGRAM.with_suffix(".fresh"))
        PROGRAM.with_suffix(".fresh").replace(PROGRAM)
    return None


def main(write: bool) -> int:
    """Build the program if it is missing; a failure is a notice, not an error."""
    if not PROGRAM.exists():
        print("building sloth (some minutes) …", flush=True)
        reason = build()
        if reason is not None:
            print(f"NOTICE: sloth cannot be built ({reason}); one test is skipped")
            return 0
    if write:
        RULES.write_text(made(), encoding="utf-8")
        print(f"{RULES} written")
    return 0


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv[1:]))
