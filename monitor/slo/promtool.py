"""Runs promtool, which comes with Prometheus."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from understudy.monitor.errors import MissingExtraError

PATIENCE = 3600.0


def program(given: str | None = None) -> str:
    """The path of promtool: ``given``, or found on PATH. Raises MissingExtraError."""
    path = shutil.which(given or os.environ.get("PROMTOOL", "promtool"))
    if path is None:
        raise MissingExtraError(
            "promtool not found: install Prometheus (Debian: apt install prometheus), or give its "
            "path with --promtool or in PROMTOOL"
        )
    return path


def run(
    tool: str, arguments: Sequence[str], folder: Path, environment: Mapping[str, str] | None = None
) -> tuple[bool, str]:
    """Run promtool; returns whether it succeeded, and its output."""
    done = subprocess.run(
        [tool, *arguments],
        cwd=folder,
        # It makes much garbage: with the usual 100 it takes half as much CPU again for 60 MB less.
        env={"GOGC": "400", **(os.environ if environment is None else environment)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    return done.returncode == 0, (done.stdout + done.stderr).strip()
