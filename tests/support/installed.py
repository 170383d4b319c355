"""The distribution as a user installs it: built as a wheel, in an environment of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
UV = Path(sys.executable).with_name("uv")


def uv(
    *arguments: str | Path, cwd: Path = ROOT, **variables: str
) -> subprocess.CompletedProcess[str]:
    certificates = os.environ.get("PIP_CERT")
    trusted = {"SSL_CERT_FILE": certificates} if certificates else {}
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "VIRTUAL_ENV")}
    return subprocess.run(
        [UV, *arguments],
        capture_output=True,
        text=True,
        cwd=cwd,
        env={**environment, **trusted, **variables},
        timeout=500,
    )


def build(folder: Path, *options: str, compiled: bool = False) -> None:
    """Build the distribution into ``folder``; skips the test where the backend cannot be had."""
    form = "UNDERSTUDY_MUST_COMPILE" if compiled else "UNDERSTUDY_PURE"
    done = uv("build", "--quiet", *options, "--out-dir", folder, ROOT, **{form: "1"})
    if done.returncode != 0 and "hatchling" in done.stderr:
        pytest.skip(f"NOT TESTED: the build backend cannot be installed: {done.stderr[-300:]}")
    assert done.returncode == 0, done.stderr


def install(wheel: Path, home: Path, extras: str = "", *options: str) -> Path:
    """Install a wheel and what it depends on below ``home``; the folder of its programs.

    ``extras`` are written as for pip, as in ``[kafka,load]``, and ``options`` are those of ``uv venv``.
    """
    assert uv("venv", "--quiet", *options, "--python", sys.executable, home).returncode == 0
    python = home / "bin" / "python"
    done = uv("pip", "install", "--quiet", "--python", python, f"{wheel}{extras}")
    if done.returncode != 0:
        pytest.skip(f"NOT TESTED: the packages cannot be installed: {done.stderr[-300:]}")
    return home / "bin"


def environment(programs: Path) -> dict[str, str]:
    kept = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "COVERAGE"))}
    return {**kept, "PATH": f"{programs}:{os.environ['PATH']}"}
