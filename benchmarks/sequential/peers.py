"""The peers: environments of their own, and one call that runs a task in each of them.

confseq breaks on numpy 2 and has no wheels (it is built from source and needs Boost's headers,
which apt provides without installing anything); savvi needs numpy 2. So there are two environments
below ``.parts/``, made on first use. Whatever cannot be installed is reported, not hidden.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
import venv
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

PARTS = Path(__file__).resolve().parents[2] / ".parts"
WORKER = Path(__file__).with_name("peer_worker.py")
NEW = ("savvi==0.3.1", "ville==0.1.0", "matplotlib")  # savvi imports it, undeclared
OLD = ("numpy<2", "gbstats==0.8.0")
CONFSEQ = "confseq==0.0.11"
PEERS = ("savvi", "ville", "gbstats")
BUILD = ("pybind11>=2.11", "scikit-build", "cmake<4", "ninja", "setuptools<75", "wheel")
WANTED = [*NEW, *OLD, CONFSEQ]
_LIMIT_SECONDS = 900


def _note(text: str) -> None:
    print(f"  peers: {text}", file=sys.stderr, flush=True)


def _pip(python: Path, *arguments: str, **environment: str) -> str | None:
    """Run pip install; the last line of its complaint, or None."""
    done = subprocess.run(
        [str(python), "-m", "pip", "install", "--disable-pip-version-check", "-q", *arguments],
        capture_output=True,
        text=True,
        timeout=_LIMIT_SECONDS,
        env={**os.environ, **environment},
        check=False,
    )
    if done.returncode == 0:
        return None
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    return lines[-1].strip() if lines else f"pip ended with {done.returncode}"


def _boost() -> Path | None:
    """A folder with Boost's headers: the system's, or unpacked from Debian's package."""
    for folder in (Path("/usr/include"), *sorted(PARTS.glob("boost/usr/include"))):
        if (folder / "boost" / "math").is_dir():
            return folder
    if not shutil.which("apt-get") or not shutil.which("dpkg"):
        return None
    listed = subprocess.run(
        ["apt-cache", "depends", "libboost-dev"], capture_output=True, text=True, check=False
    ).stdout
    names = [x.partition("Depends: ")[2].strip() for x in listed.splitlines() if "Depends: " in x]
    with tempfile.TemporaryDirectory() as folder_name:
        folder = Path(folder_name)
        folder.chmod(0o777)
        subprocess.run(
            ["apt-get", "download", *names[:1]], cwd=folder, capture_output=True, check=False
        )
        for package in folder.glob("*.deb"):
            target = PARTS / "boost"
            target.mkdir(parents=True, exist_ok=True)
            subprocess.run(["dpkg", "-x", str(package), str(target)], check=False)
    found = PARTS / "boost" / "usr" / "include"
    return found if (found / "boost" / "math").is_dir() else None


def _environment(name: str) -> Path:
    """The interpreter of a fresh or existing environment."""
    folder = PARTS / name
    python = folder / "bin" / "python"
    if not python.exists():
        _note(f"making {folder}")
        venv.EnvBuilder(with_pip=True).create(folder)
    return python


def prepare() -> dict[str, Any]:
    """Interpreters by peer, and the reasons of those that could not be installed.

    The outcome is kept in ``.parts/sequential-peers.json``, so that it is tried once only.
    """
    stamp = PARTS / "sequential-peers.json"
    if stamp.exists():
        known: dict[str, Any] = json.loads(stamp.read_text())
        here = all(Path(path).exists() for path in known["python"].values())
        if here and known.get("wanted") == WANTED:
            return known
    found: dict[str, str] = {}
    missing: dict[str, str] = {}
    try:
        new, old = _environment("sequential-peers-new"), _environment("sequential-peers-old")
        for python, wanted in ((new, NEW), (old, OLD)):
            for requirement in wanted:
                name = requirement.partition("=")[0].partition("<")[0]
                _note(f"installing {requirement}")
                problem = _pip(python, requirement)
                if problem:
                    missing[name] = problem
                elif name in PEERS:
                    found[name] = str(python)
        problem = _confseq(old)
        if problem:
            missing["confseq"] = problem
        else:
            found["confseq"] = str(old)
    except (OSError, subprocess.TimeoutExpired) as error:
        missing["environment"] = str(error)
    outcome = {"wanted": WANTED, "python": found, "missing": missing}
    PARTS.mkdir(exist_ok=True)
    stamp.write_text(json.dumps(outcome, indent=2) + "\n")
    return outcome


def _confseq(python: Path) -> str | None:
    boost = _boost()
    if boost is None:
        return "needs Boost's headers to build, and there are none"
    _note(f"building {CONFSEQ}")
    # Its own build requirements name a pybind11 that does not know Python 3.11.
    return _pip(python, *BUILD) or _pip(
        python,
        "--no-build-isolation",
        "numpy<2",
        CONFSEQ,
        SKBUILD_CONFIGURE_OPTIONS=f"-DBoost_INCLUDE_DIR={boost}",
    )


def ask(
    known: dict[str, Any],
    peer: str,
    task: str,
    arrays: dict[str, npt.NDArray[Any]],
    **settings: Any,
) -> dict[str, Any] | None:
    """Run ``task`` of ``peer`` on the arrays; its answer, or None when the peer is not here.

    The answer of a task that failed is ``{"failed": reason}``.
    """
    python = known["python"].get(peer)
    if python is None:
        return None
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "in.npz"
        np.savez(data, allow_pickle=False, **arrays)
        job = json.dumps({"peer": peer, "task": task, "settings": settings})
        done = subprocess.run(
            [python, str(WORKER), str(data)],
            input=job,
            capture_output=True,
            text=True,
            timeout=_LIMIT_SECONDS,
            check=False,
        )
    if done.returncode:
        lines = done.stderr.strip().splitlines()
        return {"failed": lines[-1] if lines else f"ended with {done.returncode}"}
    answer: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return answer
