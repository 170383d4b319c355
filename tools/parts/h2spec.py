"""Builds h2spec from its Go module if it is missing: ``python -m tools.parts.h2spec``.

It tests a server of HTTP/2 against the specification. The program is cached in
``~/.cache/understudy`` (``$XDG_CACHE_HOME``).
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

from tools.parts import golang

VERSION = "v2.2.1+incompatible"
PROGRAM = golang.CACHE / "go" / "h2spec-2.2.1"


def build() -> None:
    """Build the program. Raises Unavailable."""
    with tempfile.TemporaryDirectory() as folder:
        golang.go(
            "install", f"github.com/summerwind/h2spec/cmd/h2spec@{VERSION}",
            timeout=600, environment={"GOBIN": folder},
        )  # fmt: skip
        golang.keep(Path(folder) / "h2spec", PROGRAM)


def main() -> int:
    """Build the program if it is missing; a failure is a notice, not an error."""
    if not PROGRAM.exists():
        try:
            build()
        except golang.Unavailable as reason:
            print(f"NOTICE: h2spec cannot be built ({reason}); one test is skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
