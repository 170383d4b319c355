"""A test that failed runs again, alone, and fails the run when it fails again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
ONCE = """
from pathlib import Path
def test_once():
    seen = Path("seen")
    first = not seen.exists()
    seen.touch()
    assert not first
"""


def run(folder: Path, tests: str) -> subprocess.CompletedProcess[str]:
    """What ``make check`` does, in a folder with one file of tests."""
    (folder / "test_some.py").write_text(tests)
    (folder / "pytest.ini").write_text("[pytest]\n")
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    environment.pop("PYTEST_ADDOPTS", None)
    script = (
        f"{sys.executable} -m pytest -q --cache-clear -n 2 || {sys.executable} -m tools.again $?"
    )
    return subprocess.run(
        ["sh", "-c", script],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )


def test_one_that_passes_alone_is_named(tmp_path: Path) -> None:
    done = run(tmp_path, ONCE)
    assert done.returncode == 0, done.stdout
    assert "UNSTABLE" in done.stdout
    assert done.stdout.rstrip().endswith("test_some.py::test_once")


def test_one_that_fails_twice_fails_the_run(tmp_path: Path) -> None:
    done = run(tmp_path, ONCE + "\ndef test_never():\n    assert False\n")
    assert done.returncode == 1, done.stdout
    assert "UNSTABLE" not in done.stdout


def test_many_failures_are_not_repeated(tmp_path: Path) -> None:
    tests = "\n".join(f"def test_{n}():\n    assert False\n" for n in range(4))
    done = run(tmp_path, tests)
    assert done.returncode == 1
    assert "alone" not in done.stdout
    assert len(json.loads((tmp_path / ".pytest_cache/v/cache/lastfailed").read_text())) == 4


def test_a_run_that_broke_is_not_repeated(tmp_path: Path) -> None:
    done = run(tmp_path, "import a_module_that_is_not_there\n")
    assert done.returncode != 0
    assert "UNSTABLE" not in done.stdout
