"""Pods behind a name come, go, die and cannot be reached: no client's request fails.

In network namespaces of their own, with a real name server and the system's resolver.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import patient
from tests.support.pods import CASES
from tests.support.service import ROOT

NAMESPACES = ("unshare", "--map-root-user", "--net", "--mount")


def impossible() -> str:
    """Why there can be no namespaces here, or nothing."""
    for tool in ("unshare", "ip", "mount"):
        if shutil.which(tool, path="/usr/bin:/bin:/usr/sbin:/sbin") is None:
            return f"no {tool}"
    done = subprocess.run(
        (*NAMESPACES, "ip", "link", "set", "lo", "up"), capture_output=True, text=True, check=False
    )
    return done.stderr[-200:] if done.returncode else ""


@pytest.mark.parametrize("case", sorted(CASES))
def test_clients_do_not_notice(tmp_path: Path, case: str) -> None:
    reason = impossible()
    if reason:
        pytest.skip(f"NOT TESTED: no network namespaces: {reason}")
    command = (*NAMESPACES, sys.executable, "-m", "tests.support.pods", case, str(tmp_path))
    done = subprocess.run(
        command, capture_output=True, text=True, check=False, cwd=ROOT, timeout=patient(200)
    )
    assert done.returncode == 0, done.stdout + done.stderr
