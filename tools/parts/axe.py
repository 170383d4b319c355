"""axe-core, which checks the accessibility of pages, for the tests, from npm's package.

``python -m tools.parts.axe`` installs the package below ``~/.cache/understudy``, where other clones find it
too, and compares its hash. Without npm, or offline, it is missing and the tests that need it are
skipped, saying so.
"""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from tools.parts.debian import CACHE
from tools.parts.npm import INSTALL, keep, run

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
    reason = run([*INSTALL, f"axe-core@{VERSION}"], folder)
    if reason is not None:
        return reason
    if hashlib.sha256((folder / _SCRIPT).read_bytes()).hexdigest() != SHA256:
        return "the script has another hash than expected"
    return None


def main() -> int:
    """Install it if it is missing; a failure is a notice, not an error."""
    return keep(HOME, "axe-core", _install)


if __name__ == "__main__":
    sys.exit(main())
