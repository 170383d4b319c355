"""File descriptors of a process: how many there may be, and whether an error says that none is
left."""

from __future__ import annotations

import contextlib
import errno
import resource

_NONE_LEFT = frozenset((errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM))
"""The process's own limit, that of the machine, and the kernel's memory for sockets."""
FIXED = 32
"""Descriptors that a worker needs beside connections: files, the event loop, the line to the
supervisor, the hand-off of records, probes."""


def raise_limit() -> None:
    """Raise the soft limit of this process, which its children inherit, to the hard one."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        # Where the hard limit is infinite, the kernel may refuse it.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def limit() -> int:
    """The soft limit of this process."""
    soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    return soft if soft != resource.RLIM_INFINITY else 1 << 30


def for_clients(most: int, upstreams: int) -> int:
    """How many of ``most`` descriptors client connections may take.

    ``upstreams`` are kept for connections to model servers, or half of what there is if they would
    take more: few descriptors are shared by both sides.
    """
    free = max(2, most - FIXED)
    return max(1, free - min(upstreams, free // 2))


def none_left(error: OSError) -> bool:
    """Whether the process ran out of descriptors, or the kernel of memory for sockets."""
    return error.errno in _NONE_LEFT
