"""Builds an OpenTelemetry Collector from its Go modules: ``python -m tools.parts.otel_collector``.

It has an OTLP receiver and writes what it gets as JSON lines. The program is cached in
``~/.cache/understudy`` (``$XDG_CACHE_HOME``); building it takes about four minutes of CPU. Without Go,
or offline, the tests that need it are skipped, saying so.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

CORE, PROVIDERS, CONTRIB = "v0.165.0", "v1.71.0", "v0.165.1"
MODULES = (
    *(
        f"go.opentelemetry.io/collector/{name}@{CORE}"
        for name in (
            *("otelcol", "service", "service/telemetry/otelconftelemetry"),
            *("receiver/otlpreceiver", "exporter/debugexporter"),
        )
    ),
    f"go.opentelemetry.io/collector/confmap/provider/fileprovider@{PROVIDERS}",
    f"github.com/open-telemetry/opentelemetry-collector-contrib/exporter/fileexporter@{CONTRIB}",
)
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "understudy" / "go"
PROGRAM = CACHE / f"otelcol-test-{CORE}"
SOURCE = Path(__file__).with_name("collector") / "main.go"


def build() -> str | None:
    """Build the program; return the reason of a failure, or None."""
    if shutil.which("go") is None:
        return "Go is not installed"
    with tempfile.TemporaryDirectory() as folder:
        shutil.copy(SOURCE, folder)
        # Without `go mod tidy`, which would fetch the modules of other modules' tests as well.
        commands = (
            ["go", "mod", "init", "otelcol-test"],
            ["go", "get", *MODULES],
            ["go", "build", "-trimpath", "-ldflags=-s -w", "-o", "otelcol-test", "."],
        )
        for command in commands:
            done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=3600)
            if done.returncode:
                return (done.stderr.strip() or "go failed").splitlines()[-1]
        CACHE.mkdir(parents=True, exist_ok=True)
        fresh = PROGRAM.with_suffix(f".{os.getpid()}")
        shutil.copy(Path(folder) / "otelcol-test", fresh)
        fresh.replace(PROGRAM)
    return None


def need() -> Path:
    """The program, or a skip that says how to get it."""
    if not PROGRAM.exists():
        pytest.skip(
            "NOT TESTED: the OpenTelemetry Collector is not here; `python -m "
            "tools.parts.otel_collector` builds it where Go is installed"
        )
    return PROGRAM


def main() -> int:
    """Build the program if it is missing; a failure is a notice, not an error."""
    if PROGRAM.exists():
        return 0
    print("building the OpenTelemetry Collector (some minutes) …", flush=True)
    reason = build()
    if reason is not None:
        print(f"NOTICE: the OpenTelemetry Collector cannot be built ({reason}); tests are skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
