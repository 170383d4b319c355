"""Real parts for the tests: Prometheus, nginx and others, from Debian's packages, without root.

``python -m tests.parts`` downloads the packages with apt and unpacks them below ``.parts/``; nothing
is installed and no service starts. Where apt is missing, or offline, the parts are missing and the
tests that need them are skipped, saying so. Tests call :func:`need` and never download anything.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent / ".parts"
PACKAGES = {
    "prometheus": ("prometheus",),
    "promtool": ("prometheus",),
    "nginx": ("nginx", "nginx-common"),
    "wrk": ("wrk", "libluajit-5.1-2", "libluajit-5.1-common"),
}
_PLACES = ("usr/bin", "usr/sbin", "bin", "sbin")


def find(part: str) -> Path | None:
    """The program ``part``: unpacked by us, or installed; None when there is neither."""
    for path in (ROOT / PACKAGES[part][0] / place / part for place in _PLACES):
        if path.exists():
            return path
    installed = shutil.which(part, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    return Path(installed) if installed else None


def environment() -> dict[str, str]:
    """Environment in which unpacked programs find their unpacked libraries."""
    libraries = sorted({str(path.parent) for path in ROOT.glob("*/usr/lib/**/*.so*")})
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)} if libraries else dict(os.environ)


def need(part: str) -> Path:
    """The program ``part``, or a skip that says how to get it."""
    path = find(part)
    if path is None:
        pytest.skip(f"NOT TESTED: {part} is not here; `make parts` fetches it where apt works")
    return path


def _fetch(part: str) -> str | None:
    """Download and unpack one part; the reason if that fails."""
    with tempfile.TemporaryDirectory() as folder:
        # apt drops its privileges to a user of its own, who must be able to write here.
        Path(folder).chmod(0o777)
        download = subprocess.run(
            ["apt-get", "download", *PACKAGES[part]], cwd=folder, capture_output=True, text=True
        )
        if download.returncode != 0:
            return download.stderr.strip().splitlines()[-1] if download.stderr else "apt-get failed"
        target = ROOT / PACKAGES[part][0]
        target.mkdir(parents=True, exist_ok=True)
        for package in sorted(Path(folder).glob("*.deb")):
            subprocess.run(["dpkg", "-x", str(package), str(target)], check=True)
    return None if find(part) else "the package does not hold the program"


def main() -> int:
    """Fetch what is missing; a part that cannot be had is a notice, not an error."""
    missing = [part for part in PACKAGES if find(part) is None]
    if not missing:
        return 0
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        print(f"NOTICE: no apt here; tests that need {', '.join(missing)} are skipped")
        return 0
    if os.geteuid() == 0:
        subprocess.run(["apt-get", "update", "-qq"], capture_output=True)
    for part in missing:
        if find(part) is not None:
            continue  # came with another's package
        print(f"fetching {part} …", flush=True)
        reason = _fetch(part)
        if reason is not None:
            print(f"NOTICE: {part} cannot be had here ({reason}); its tests are skipped")
    return 0


if __name__ == "__main__":
    sys.exit(main())
