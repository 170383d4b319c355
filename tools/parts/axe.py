"""axe-core, which checks the accessibility of pages, for the tests, from npm's package.

``python -m tools.parts.axe`` installs the package below ``~/.cache/understudy``, where other clones find it
too, and compares its hash. Without npm, or offline, it is missing and the tests that need it are
skipped, saying so.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tools.parts.debian import CACHE

VERSION = "4.14.1"
SHA256 = "29348999450cdf2849a8e70b7912fc2da85a849da39c0d0d5394f51d4a9ed95c"
"""Of the script."""
HOME = CACHE / f"axe-core-{VERSION}"
_SCRIPT = "node_modules/axe-core/axe.min.js"


def script() -> Path:
    """The script, which adds ``axe`` to a page; skips the test if it is missing."""
    path = HOME / _SCRIPT
    if not path.exists():
        pytest.skip("NOT TESTED: axe-core is missing; `make parts` installs it with npm")
    return path


def _install(folder: Path) -> str | None:
    """Install the package; return the reason of a failure, or None."""
    (folder / "package.json").write_text("{}")
    command = ["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts"]
    try:
        done = subprocess.run(
            [*command, f"axe-core@{VERSION}"],
            cwd=folder,
            capture_output=True,
            text=True,
            timeout=300,
        )
    except subprocess.TimeoutExpired:
        return "npm takes too long"
    if done.returncode != 0:
        return (done.stderr.strip() or "it failed").splitlines()[-1]
    if hashlib.sha256((folder / _SCRIPT).read_bytes()).hexdigest() != SHA256:
        return "the script has another hash than expected"
    return None


def main() -> int:
    """Install it if it is missing; a failure is a notice, not an error."""
    if HOME.exists():
        return 0
    if shutil.which("npm") is None:
        print("NOTICE: npm is not installed; tests that need axe-core are skipped")
        return 0
    print("installing axe-core from npm …", flush=True)
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as fresh:
        made = Path(fresh) / "axe"
        made.mkdir()
        reason = _install(made)
        if reason is not None:
            print(f"NOTICE: axe-core cannot be installed ({reason}); its tests are skipped")
            return 0
        try:
            made.rename(HOME)
        except OSError:
            pass  # another clone was faster
    return 0


if __name__ == "__main__":
    sys.exit(main())
