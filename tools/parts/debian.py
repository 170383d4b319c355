"""Real parts for the tests, as Prometheus, Alertmanager, nginx and Chromium, from Debian's packages.

``python -m tools.parts.debian`` downloads the packages with apt and unpacks them below ``.parts/``, large
ones below ``~/.cache/understudy`` where other clones find them too; nothing is installed, root is not
needed and no service starts. Where apt is missing, or offline, the parts are missing and the tests
that need them are skipped, saying so. Tests call :func:`need` and never download anything.
"""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tools.parts import jars

ROOT = Path(__file__).resolve().parents[2] / ".parts"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "understudy"
"""What is too large to be fetched for every clone."""
PACKAGES = {
    "prometheus": ("prometheus",),
    "promtool": ("prometheus",),
    "nginx": ("nginx", "nginx-common"),
    "prometheus-alertmanager": ("prometheus-alertmanager",),
    "amtool": ("prometheus-alertmanager",),
    "etcd": ("etcd-server",),
    "wrk": ("wrk", "libluajit-5.1-2", "libluajit-5.1-common"),
    "chromium": ("chromium",),
    "libfaketime.so.1": ("libfaketime",),
}
CACHED = ("chromium",)
_PLACES = (
    "usr/lib/chromium",
    f"usr/lib/{platform.machine()}-linux-gnu/faketime",
    "usr/bin",
    "usr/sbin",
    "bin",
    "sbin",
)
_AT_ONCE = 4
"""Packages that are fetched at a time."""
_APT = ("apt-get", "-o", "Acquire::http::Timeout=20", "-o", "Acquire::Retries=1")


def folder(part: str) -> Path:
    """Where the packages of ``part`` are unpacked."""
    return (CACHE / "parts" if part in CACHED else ROOT) / PACKAGES[part][0]


def find(part: str) -> Path | None:
    """The program ``part``: unpacked by us, or installed; None when there is neither."""
    for path in (folder(part) / place / part for place in _PLACES):
        if path.exists():
            return path
    for path in (Path("/") / place / part for place in _PLACES if place.endswith("faketime")):
        if path.exists():
            return path
    installed = shutil.which(part, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    return Path(installed) if installed else None


def environment(part: str | None = None) -> dict[str, str]:
    """Environment in which unpacked programs, or the cached ``part``, find their libraries."""
    result = folder(part).glob("usr/lib/**/*.so*") if part else ROOT.glob("*/usr/lib/**/*.so*")
    libraries = sorted({str(path.parent) for path in result})
    return {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries)} if libraries else dict(os.environ)


def alertmanager() -> list[str]:
    """How the command line of Alertmanager begins, or a skip.

    Debian's build reads its default template from /usr/share. Where the package is only unpacked, a
    mount namespace of the process's own has the unpacked files there.
    """
    program = str(need("prometheus-alertmanager"))
    if Path("/usr/share/prometheus/alertmanager/default.tmpl").exists():
        return [program]
    shares = ROOT / "prometheus-alertmanager" / "usr" / "share"
    script = 'mount --bind "$0" /usr/share && exec "$@"'
    command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(shares)]
    if shutil.which("unshare") is None or subprocess.run([*command, "true"]).returncode != 0:
        pytest.skip("NOT TESTED: Alertmanager's template cannot be shown to it: no user namespaces")
    return [*command, program]


def need(part: str) -> Path:
    """The program ``part``, or a skip that says how to get it."""
    path = find(part)
    if path is None:
        pytest.skip(f"NOT TESTED: {part} is not here; `make parts` fetches it where apt works")
    return path


def _missing_libraries(program: Path, part: str | None = None) -> list[str]:
    if shutil.which("ldd") is None:
        return []
    listed = subprocess.run(
        ["ldd", str(program)], env=environment(part), capture_output=True, text=True
    ).stdout
    return [line.split()[0] for line in listed.splitlines() if "not found" in line]


def _libraries_of(packages: tuple[str, ...]) -> list[str]:
    """Packages with libraries that these need, as far as apt knows."""
    listed = subprocess.run(
        ["apt-cache", "depends", "--no-recommends", "--no-suggests", *packages],
        capture_output=True,
        text=True,
    ).stdout
    names = (line.partition("Depends: ")[2].strip() for line in listed.splitlines())
    return sorted({name for name in names if name.startswith("lib") and name != "libc6"})


def _unpack(packages: Sequence[str], target: Path) -> str | None:
    """Download and unpack; the reason if that fails."""
    with tempfile.TemporaryDirectory() as folder:
        # apt drops its privileges to its own user, which must be able to write here.
        Path(folder).chmod(0o777)
        try:
            download = subprocess.run(
                [*_APT, "download", *packages],
                cwd=folder,
                capture_output=True,
                text=True,
                timeout=600,
            )
        except subprocess.TimeoutExpired:
            return "apt-get takes too long"
        if download.returncode != 0:
            return (download.stderr.strip() or "apt-get failed").splitlines()[-1]
        target.mkdir(parents=True, exist_ok=True)
        for package in sorted(Path(folder).glob("*.deb")):
            unpacked = subprocess.run(["dpkg", "-x", str(package), str(target)])
            if unpacked.returncode != 0:
                return f"{package.name} cannot be unpacked"
    return None


def _incomplete(part: str) -> bool:
    """Whether a part in the cache was unpacked where more was installed than is here."""
    program = find(part) if part in CACHED else None
    return program is not None and bool(_missing_libraries(program, part))


def _not_installed(packages: tuple[str, ...]) -> list[str]:
    """These packages and all that they need and this machine has not, as far as apt knows."""
    simulated = subprocess.run(
        ["apt-get", "-s", "install", "--no-install-recommends", *packages],
        capture_output=True,
        text=True,
    ).stdout
    return [line.split()[1] for line in simulated.splitlines() if line.startswith("Inst ")]


def _fetch_cached(part: str) -> str | None:
    """Make ``part`` usable for all clones at once; the reason if that fails."""
    target = folder(part)
    packages = _not_installed(PACKAGES[part])
    if not packages:
        return "apt knows no such package"
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=target.parent) as fresh:
        reason = _unpack(packages, Path(fresh) / "root")
        if reason is not None:
            return reason
        shutil.rmtree(target, ignore_errors=True)  # an earlier one that is not whole
        try:
            (Path(fresh) / "root").rename(target)
        except OSError:
            pass  # another clone was faster
    program = find(part)
    if program is None:
        return "the package does not hold the program"
    missing = _missing_libraries(program, part)
    return f"it needs {', '.join(missing)}" if missing else None


def _fetch(part: str) -> str | None:
    """Make ``part`` usable; the reason if that fails."""
    if part in CACHED:
        return _fetch_cached(part)
    target = folder(part)
    reason = _unpack(PACKAGES[part], target)
    if reason is not None:
        return reason
    program = find(part)
    if program is None:
        return "the package does not hold the program"
    if _missing_libraries(program):
        libraries = _libraries_of(PACKAGES[part])
        reason = _unpack(libraries, target) if libraries else None
    missing = _missing_libraries(program)
    if missing:
        shutil.rmtree(target)  # a part that cannot run is worse than none
        return reason or f"it needs {', '.join(missing)}"
    return None


def main() -> int:
    """Fetch what is missing; a part that cannot be had is a notice, not an error."""
    jars.main()
    missing = [part for part in PACKAGES if find(part) is None or _incomplete(part)]
    if not missing:
        return 0
    if shutil.which("apt-get") is None or shutil.which("dpkg") is None:
        print(f"NOTICE: no apt here; tests that need {', '.join(missing)} are skipped")
        return 0
    if os.geteuid() == 0:
        print("asking apt what there is …", flush=True)
        subprocess.run([*_APT, "update", "-qq"], capture_output=True)
    # One for each package: some come with another's.
    with ThreadPoolExecutor(_AT_ONCE) as pool:
        list(pool.map(_get, {PACKAGES[part][0]: part for part in reversed(missing)}.values()))
    return 0


def _get(part: str) -> None:
    print(f"fetching {part} …\n", end="", flush=True)
    reason = _fetch(part)
    if reason is not None:
        print(
            f"NOTICE: {part} cannot be had here ({reason}); its tests are skipped\n",
            end="",
            flush=True,
        )


if __name__ == "__main__":
    sys.exit(main())
