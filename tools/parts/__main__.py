"""Fetch the parts that tests talk to: ``python -m tools.parts``, and with ``all`` build the rest.

Without ``all``, only what is downloaded and takes a minute or so: Debian's packages, Kafka's jars,
schemas. With it also what is built with Go (Helm, the API server, Sloth), and environments of model
servers. Parts are fetched side by side, since most of the time goes into waiting for the network.
What cannot be had is a notice; the tests that need it are skipped, and say so.
"""

from __future__ import annotations

import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor

DOWNLOADED = (("debian",), ("jars",), ("npm",), ("kubernetes",))
BUILT = (("kubernetes", "all"), ("sloth",), ("servers",))


def fetch(command: tuple[str, ...]) -> int:
    """Run one of the modules beside this one; its lines are shown as they come. The exit code."""
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
    said = "ready" if code == 0 else f"FAILED (exit code {code})"
    print(f"  [{name}] {said} after {time.monotonic() - began:.0f} s", flush=True)
    return code


def main(wanted: list[str]) -> int:
    """Fetch everything, and with ``all`` build the rest; 1 when a step has failed."""
    everything = wanted == ["all"]
    commands = [*DOWNLOADED[:-1], *BUILT] if everything else [*DOWNLOADED]
    with ThreadPoolExecutor(len(commands)) as pool:
        return max(pool.map(fetch, commands))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
