"""Builds Jaeger from its Go module: ``python -m tools.parts.jaeger``.

The program is cached in ``~/.cache/understudy`` (``$XDG_CACHE_HOME``); building it takes about 15
minutes of CPU. Without Go, or offline, the tests that need it are skipped, saying so.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from tools.parts import golang

MODULE, VERSION = "github.com/jaegertracing/jaeger", "v1.76.0"
"""A program of version 2, which is configured like a collector."""
PROGRAM = golang.CACHE / "go" / f"jaeger-{VERSION}"


def build() -> None:
    """Build the program. Raises Unavailable."""
    with tempfile.TemporaryDirectory() as folder:
        here = Path(folder)
        # Without `go mod tidy`, which would fetch the modules of other modules' tests as well.
        for command in (
            ("mod", "init", "jaeger-here"),
            ("get", "-tool", f"{MODULE}/cmd/jaeger@{VERSION}"),
            ("build", "-trimpath", "-ldflags=-s -w", "-o", "jaeger", f"{MODULE}/cmd/jaeger"),
        ):
            golang.go(*command, timeout=7200, environment={}, cwd=here)
        golang.keep(here / "jaeger", PROGRAM)


def need() -> Path:
    """The program, or a skip that says how to get it."""
    if not PROGRAM.exists():
        pytest.skip("NOT TESTED: Jaeger is not here; `make test-all` builds it where Go works")
    return PROGRAM


def main() -> int:
    """Build the program if it is missing; a failure is a notice, not an error."""
    if PROGRAM.exists():
        return 0
    print("building Jaeger (about 15 minutes of CPU) …", flush=True)
    try:
        build()
    except golang.Unavailable as reason:
        print(f"NOTICE: Jaeger cannot be built ({reason}); its tests are skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
