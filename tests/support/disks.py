"""Real disks for tests: small, full, read-only, or gone. Mounting needs root."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conftest import NOT_TESTED
from tests.support.patience import eventually


class Disk:
    """A mounted file system."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._filler = path / "filler"

    def fill(self) -> None:
        """Write until there is no room for a byte."""
        with self._filler.open("ab", buffering=0) as file:
            for size in (65536, 4096, 1):
                try:
                    while True:
                        file.write(b"x" * size)
                except OSError:
                    pass

    def free(self) -> None:
        self._filler.unlink()

    def read_only(self, yes: bool = True) -> None:
        """Needs a file system without files that are open for writing."""
        flag = "ro" if yes else "rw"
        subprocess.run(["mount", "-o", f"remount,{flag}", str(self.path)], check=True)

    def fail(self) -> None:
        """What an ext4 does after an error of its disk: read-only from now on, and whatever is open
        cannot be written."""
        subprocess.run(["mount", "-o", "remount,abort", str(self.path)], check=True)

    def vanish(self) -> None:
        """Take it out of the folder tree, with files open on it."""
        subprocess.run(["umount", "-l", str(self.path)], check=True)


@contextmanager
def disk(path: Path, megabytes: int = 48, kind: str = "tmpfs") -> Iterator[Disk]:
    """A disk at ``path``: a tmpfs, or an ext4 in a file behind a loop device. The test is skipped
    where mounting is not allowed."""
    path.mkdir(exist_ok=True)
    command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(path)]
    if kind == "ext4":
        image = path.with_suffix(".img")
        with image.open("wb") as file:
            file.truncate(megabytes << 20)
        made = subprocess.run(["mkfs.ext4", "-q", "-F", str(image)], capture_output=True)
        if made.returncode:
            pytest.skip(f"{NOT_TESTED}: no mkfs.ext4 here")
        command = ["mount", "-o", "loop", str(image), str(path)]
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        pytest.skip(f"{NOT_TESTED}: mounting a {kind} is not allowed: {done.stderr.strip()}")
    path.chmod(0o700)
    try:
        yield Disk(path)
    finally:

        def unmounted() -> bool:
            done = subprocess.run(["umount", str(path)], capture_output=True, text=True)
            return done.returncode == 0 or "not mounted" in done.stderr

        eventually(unmounted)
