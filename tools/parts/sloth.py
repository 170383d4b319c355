"""Builds Sloth from its Go module if it is missing: ``python -m tools.parts.sloth``.

``--write`` regenerates ``rules.yml``. The program is cached in ``~/.cache/understudy``
(``$XDG_CACHE_HOME``). The rules are in the repository, so that the comparison runs without Go; if the
program is available, a test checks that the rules are up to date.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

from tools.parts import golang

VERSION = "v0.16.0"
PROGRAM = golang.CACHE / "go" / f"sloth-{VERSION}"
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


def build() -> None:
    """Build the program. Raises Unavailable."""
    with tempfile.TemporaryDirectory() as folder:
        golang.go(
            "install", f"github.com/slok/sloth/cmd/sloth@{VERSION}",
            timeout=1800, environment={"GOBIN": folder},
        )  # fmt: skip
        golang.keep(Path(folder) / "sloth", PROGRAM)


def main(write: bool) -> int:
    """Build the program if it is missing; a failure is a notice, not an error."""
    if not PROGRAM.exists():
        print("building sloth (some minutes) …", flush=True)
        try:
            build()
        except golang.Unavailable as reason:
            print(f"NOTICE: sloth cannot be built ({reason}); one test is skipped")
            return 0
    if write:
        RULES.write_text(made(), encoding="utf-8")
        print(f"{RULES} written")
    return 0


if __name__ == "__main__":
    sys.exit(main("--write" in sys.argv[1:]))
