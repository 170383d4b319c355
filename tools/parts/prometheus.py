"""Builds Prometheus 3 and its promtool if they are missing: ``python -m tools.parts.prometheus``.

Debian's packages are Prometheus 2. ``go install`` refuses the module, since its go.mod replaces others,
so the programs are built in the module's own folder. Without service discovery and the web page, which
no test needs, that takes some minutes of two processors. The programs are cached in
``~/.cache/understudy`` (``$XDG_CACHE_HOME``). Tests call :func:`need` and never build anything.
"""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path

import pytest

from tools.parts import golang

MODULE = "github.com/prometheus/prometheus"
VERSION = "v0.316.0"
"""Of the module, whose minor version is the version of the programs: 316 is 3.16."""
PROGRAMS = ("promtool", "prometheus")
_TAGS = "remove_all_sd"
_TRIES = 3
"""The module needs a hundred others, each of which a slow network may not give at once."""


def version() -> str:
    """The version of the programs, such as 3.16.0."""
    _, minor, patch = VERSION.split(".")
    return f"{minor[0]}.{int(minor[1:])}.{patch}"


def place(program: str) -> Path:
    """Where a program is, or will be."""
    return golang.CACHE / "go" / f"{program}-{VERSION}"


def need(program: str) -> Path:
    """A program of Prometheus 3, or a skip that says how to get it."""
    path = place(program)
    if not path.exists():
        pytest.skip(
            f"NOT TESTED: Prometheus 3 is not here; `make test-all` builds its {program} where Go "
            "works"
        )
    return path


def build(program: str) -> None:
    """Build a program. Raises Unavailable."""
    source = golang.module(f"{MODULE}@{VERSION}")
    variable = "github.com/prometheus/common/version.Version"
    with tempfile.TemporaryDirectory() as folder:
        made = Path(folder) / program
        golang.go(
            "build", "-mod=readonly", "-buildvcs=false", "-tags", _TAGS, "-o", str(made),
            "-ldflags", f"-s -w -X {variable}={version()}",
            f"./cmd/{program}",
            cwd=source, timeout=7200, environment={"GOWORK": "off", "GOFLAGS": ""},
        )  # fmt: skip
        golang.keep(made, place(program))


def main() -> int:
    """Build what is missing; a failure is a notice, not an error."""
    for program in PROGRAMS:
        if place(program).exists():
            continue
        print(f"building {program} 3 (some minutes) …", flush=True)
        for left in reversed(range(_TRIES)):
            try:
                build(program)
                break
            except golang.Unavailable as reason:
                if not left:
                    print(f"NOTICE: {program} 3 cannot be built ({reason}); its tests are skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
