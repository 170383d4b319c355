"""Fetch the external programs of tests: ``python -m tools.parts``; with ``all``, also build some.

Without ``all``, it downloads Debian packages, Kafka's jars, clients of language models and schemas,
in about a minute. With ``all`` it also builds Go programs (Helm, the API server, Sloth, h2spec,
Prometheus 3, an OpenTelemetry Collector, Jaeger), environments of model servers, and a base for
container images.
Parts are fetched in parallel, since most of the time is spent on the network. A part that cannot be
fetched is a notice; the tests that need it are skipped.
"""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

DOWNLOADED = (
    ("debian",),
    ("jars",),
    ("npm",),
    ("axe",),
    ("servers", "llm-clients"),
    ("kubernetes",),
)
BUILT = (
    *(
        ("kubernetes", "all"),
        ("sloth",),
        ("h2spec",),
        ("prometheus",),
        ("otel_collector",),
        ("jaeger",),
        ("servers",),
        ("containers",),
    ),
)


def fetch(command: tuple[str, ...]) -> int:
    """Run a module of this package, and print its output; return the exit code."""
    name = command[0]
    began = time.monotonic()
    process = subprocess.Popen(
        [sys.executable, "-m", f"tools.parts.{name}", *command[1:]],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        print(f"  [{name}] {line}", end="", flush=True)
    code = process.wait()
    status = "ready" if code == 0 else f"FAILED (exit code {code})"
    print(f"  [{name}] {status} after {time.monotonic() - began:.0f} s", flush=True)
    return code


def main(wanted: list[str]) -> int:
    """Fetch the parts, and with ``all`` build the others; return 1 if a step failed."""
    everything = wanted == ["all"]
    commands = [*DOWNLOADED[:-1], *BUILT] if everything else [*DOWNLOADED]
    with ThreadPoolExecutor(len(commands)) as pool:
        return max(pool.map(fetch, commands))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
