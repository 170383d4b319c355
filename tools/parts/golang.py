"""Modules of Go: downloaded, and built into programs that are kept for all clones."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path

CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "understudy"
ANY_MOD = {"GOFLAGS": "-mod=mod"}


class Unavailable(Exception):
    """A part that cannot be had here, and why."""


def go(
    *arguments: str, timeout: float, environment: dict[str, str], cwd: Path | None = None
) -> str:
    """The output of a command of Go. Raises Unavailable."""
    try:
        done = subprocess.run(
            ["go", *arguments],
            cwd=cwd,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=timeout,
        )
    except subprocess.TimeoutExpired as error:
        raise Unavailable(f"go {arguments[0]} takes longer than {timeout:.0f} s") from error
    except FileNotFoundError as error:
        raise Unavailable("Go is not installed") from error
    if done.returncode:
        said = (done.stdout + done.stderr).strip().splitlines()
        raise Unavailable(said[-1] if said else "go failed")
    return done.stdout


def module(name: str, cache: Path | None = None) -> Path:
    """The folder of a module, downloaded. Raises Unavailable."""
    elsewhere = {"GOMODCACHE": str(cache)} if cache is not None else {}
    said = go("mod", "download", "-json", name, timeout=600, environment={**elsewhere, **ANY_MOD})
    return Path(json.loads(said)["Dir"])


def keep(made: Path, place: Path) -> None:
    """Copy a program into the cache, whole or not at all."""
    place.parent.mkdir(parents=True, exist_ok=True)
    fresh = place.with_name(f"{place.name}.fresh")
    shutil.copy(made, fresh)
    fresh.replace(place)
