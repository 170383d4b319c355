"""Model servers of others, each in an environment of its own: heavy, so only where it was asked for.

``make parts ALL=1`` (``python -m tools.parts.servers``) makes the environments below
``~/.cache/understudy/servers``, where every clone finds them. Tests skip loudly without them.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tools.parts.debian import CACHE

SERVERS = {
    # Its worker processes do not start with newer uvloops: parallel_workers is 0 everywhere.
    "mlserver": ("mlserver==1.7.1",),
    "kserve": ("kserve==0.21.0",),
    "mlflow": ("mlflow==3.17.2",),
}
_READY = ".ready"


def home(name: str) -> Path:
    """The environment of a server; another list of packages is another one."""
    return CACHE / "servers" / "-".join(SERVERS[name]).replace("==", "-")


def need_server(name: str) -> Path:
    """The folder with the programs of its environment, or a skip that says how to get it."""
    if not (home(name) / _READY).exists():
        pytest.skip(f"NOT TESTED: {name} is not here; `make test-all` sets it up (minutes)")
    return home(name) / "bin"


def make(name: str) -> str:
    """Set up an environment; the reason if that fails."""
    target = home(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    # An environment cannot be moved; the mark at the end says that it is whole.
    steps = (
        [sys.executable, "-m", "venv", str(target)],
        [str(target / "bin" / "python"), "-m", "pip", "install", "-q", *SERVERS[name]],
    )
    for step in steps:
        with tempfile.TemporaryFile("w+") as log:
            if subprocess.run(step, stdout=log, stderr=subprocess.STDOUT).returncode:
                log.seek(0)
                return (log.read().strip().splitlines() or ["it failed"])[-1]
    (target / _READY).touch()
    return ""


def main() -> int:
    """Set up what is missing; what cannot be had is a notice, not an error."""
    for name in SERVERS:
        if not (home(name) / _READY).exists():
            print(f"setting up {name} …", flush=True)
            reason = make(name)
            if reason:
                print(f"NOTICE: {name} cannot be had here ({reason}); its tests are skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
