"""A container engine for the tests, and images made without a registry.

``python -m tools.parts.containers`` makes the base image of the others from Debian's packages: Python and
nothing else (``debootstrap``, a minute or two, 160 MB). It needs root, podman, runc and debootstrap, all
of them packages of Debian. The base stays in podman's own store, where ``make image`` and the tests find
it under its name.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from tools.parts.golang import CACHE, Unavailable

PROGRAMS = ("podman", "runc", "debootstrap")
RELEASE = "bookworm"
BASE = f"localhost/understudy-base:{RELEASE}"
BUILDER = f"localhost/understudy-builder:{RELEASE}"
"""The base with a C compiler, which wheels are compiled with."""
_SETTINGS = """\
[engine]
cgroup_manager = "cgroupfs"
runtime = "runc"
events_logger = "file"
[containers]
default_ulimits = ["nofile=20000:20000", "nproc=20000:20000"]
"""
"""For machines without systemd, with cgroups of both versions, that may not raise hard limits."""
_EMPTIED = (
    "usr/share/doc",
    "usr/share/man",
    "usr/share/locale",
    "var/cache/apt",
    "var/lib/apt/lists",
)
_TRUST = ("/etc/pip.conf", "/etc/ssl/certs/ca-certificates.crt")
"""How this machine reaches package indexes; builds do it in the same way."""


def settings() -> dict[str, str]:
    """The environment in which podman runs here."""
    path = CACHE / "containers.conf"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(_SETTINGS)
    return {**os.environ, "CONTAINERS_CONF": str(path)}


def podman(*arguments: str, timeout: float = 600, check: bool = True) -> str:
    """What ``podman`` prints to its standard output.

    Args:
        arguments: What follows ``podman`` on the command line.
        timeout: Seconds that it may take.
        check: Whether another exit code than 0 is an error.

    Raises:
        subprocess.CalledProcessError: It failed; ``stderr`` says why.
    """
    done = subprocess.run(
        ["podman", *arguments],
        env=settings(),
        capture_output=True,
        text=True,
        timeout=timeout,
        check=check,
    )
    return done.stdout


def usable() -> None:
    """Raises Unavailable where containers cannot run."""
    if os.geteuid() != 0:
        raise Unavailable("containers from packages need root")
    missing = [name for name in PROGRAMS if shutil.which(name) is None]
    if missing:
        raise Unavailable(f"not installed: {', '.join(missing)} (packages of Debian)")


def need() -> None:
    """Make sure that both images are there. Raises Unavailable."""
    usable()
    for image in (BASE, BUILDER):
        if subprocess.run(["podman", "image", "exists", image], env=settings()).returncode:
            raise Unavailable(f"no image {image}: run python -m tools.parts.containers")


def build_arguments() -> list[str]:
    """Options of ``podman build`` that let it reach package indexes as this machine does."""
    return [
        "--network=host",
        *(f"--volume={path}:{path}:ro" for path in _TRUST if Path(path).exists()),
        f"--build-arg=PYTHON={BASE}",
        f"--build-arg=BUILDER={BUILDER}",
    ]


def make_base() -> None:
    """Make the base image from Debian's packages. Raises Unavailable."""
    usable()
    with tempfile.TemporaryDirectory(prefix="understudy-base-") as folder:
        root = Path(folder) / "root"
        made = subprocess.run(
            [
                "debootstrap",
                "--variant=minbase",
                "--include=python3,python3-venv,python3-pip,ca-certificates",
                RELEASE,
                str(root),
            ],
            capture_output=True,
            text=True,
        )
        if made.returncode:
            raise Unavailable((made.stdout + made.stderr).strip().splitlines()[-1])
        for emptied in _EMPTIED:
            shutil.rmtree(root / emptied, ignore_errors=True)
            (root / emptied).mkdir(parents=True)
        # As in the image of Python's own project: ``python`` and ``pip`` are this Python's.
        for mark in (root / "usr/lib").glob("python3.*/EXTERNALLY-MANAGED"):
            mark.unlink()
        (root / "usr/local/bin/python").symlink_to("/usr/bin/python3")
        packed = subprocess.Popen(
            ["tar", "-C", str(root), "--exclude=./proc/*", "--exclude=./sys/*", "-c", "."],
            stdout=subprocess.PIPE,
        )
        subprocess.run(
            ["podman", "import", "-", BASE], stdin=packed.stdout, env=settings(), check=True
        )
        if packed.wait():
            raise Unavailable("tar could not pack the base")


def make_builder() -> None:
    """Make the image with a compiler from the base. Raises Unavailable."""
    steps = (
        f"FROM {BASE}\n"
        "RUN apt-get update -q && apt-get install -q -y --no-install-recommends gcc libc6-dev python3-dev\n"
    )
    done = subprocess.run(
        ["podman", "build", "--network=host", f"--tag={BUILDER}", "-"],
        input=steps,
        text=True,
        env=settings(),
    )
    if done.returncode:
        raise Unavailable(f"{BUILDER} cannot be built")


def main() -> int:
    """Make both images; return 1 if that is not possible here."""
    try:
        try:
            need()
        except Unavailable:
            make_base()
            make_builder()
    except Unavailable as error:
        print(f"no base image: {error}", file=sys.stderr)
        return 1
    print(f"{BASE} and {BUILDER} are there")
    return 0


if __name__ == "__main__":
    sys.exit(main())
