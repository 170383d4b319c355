"""Writes whole files so that a crash leaves the old file or the new one, and checks them.

Symbolic links are not followed: another user may have planted one.
"""

from __future__ import annotations

import contextlib
import os
from hashlib import blake2b
from pathlib import Path

LEAST_FREE_BYTES = 64 * 1024 * 1024
LEAST_FREE_SHARE = 0.05
"""What logs and stores leave free on their disk for others, the state of the service among them:
this many bytes, or this share of a smaller disk."""
_SEAL = b'{"checksum":"'
_DIGEST_BYTES = 16
_SEALED = len(_SEAL) + 2 * _DIGEST_BYTES + len(b'",')


def replace_file(path: Path, data: bytes) -> None:
    """Replace a file as a whole: temporary name, sync, rename, sync of the folder.

    Only the owner may read it. Raises OSError; the old file is then unchanged.
    """
    temporary = path.with_name(path.name + ".tmp")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    fd = os.open(temporary, flags, 0o600)
    try:
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        os.replace(temporary, path)
    except OSError:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
    folder = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def lacking_bytes(folder: Path, size: int = 0) -> int:
    """How many bytes the disk lacks for ``size`` more and what is to be left free; zero or less
    where there is room. Raises OSError."""
    disk = os.statvfs(folder)
    free = disk.f_bavail * disk.f_frsize
    floor = min(LEAST_FREE_BYTES, int(LEAST_FREE_SHARE * disk.f_blocks * disk.f_frsize))
    return floor + size - free


def read_file(path: Path) -> bytes:
    """The content of a file that is not a symbolic link. Raises OSError."""
    fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    with open(fd, "rb") as file:
        return file.read()


def replace_document(path: Path, document: bytes) -> None:
    """As :func:`replace_file`, for a JSON object with at least one key: its first key becomes
    ``checksum``, over the rest. Raises OSError."""
    replace_file(path, b'%b%b",%b' % (_SEAL, _digest(document[1:]), document[1:]))


def read_document(path: Path) -> bytes:
    """What :func:`replace_document` wrote, or a file of an earlier version without a checksum.

    Raises OSError, and ValueError when the checksum does not fit the content.
    """
    data = read_file(path)
    if data.startswith(_SEAL):
        rest = data[_SEALED:]
        if data[len(_SEAL) : _SEALED] != _digest(rest) + b'",':
            raise ValueError("the checksum does not fit the content")
        return b"{" + rest
    return data


def set_aside(path: Path) -> Path:
    """Rename a file that cannot be used, to keep it for inspection; return the new path."""
    aside = path.with_name(path.name + ".damaged")
    with contextlib.suppress(OSError):
        os.replace(path, aside)
    return aside


def _digest(data: bytes) -> bytes:
    return blake2b(data, digest_size=_DIGEST_BYTES).hexdigest().encode()
