"""What the service needs of its machine: ports, disk, file descriptors, memory for shared files."""

from __future__ import annotations

import errno
import fcntl
import os
import resource
import shutil
import socket
import stat
from collections.abc import Iterator
from pathlib import Path

from understudy.common.units import BYTES
from understudy.monitor.config.compile import worker_count
from understudy.monitor.config.fields import split_address
from understudy.monitor.config.model import Config
from understudy.monitor.doctor.check import Check, fault, ok, warning

_LISTENING = "0A"
"""The state of a socket in /proc/net/tcp."""
_FIXED_DESCRIPTORS = 64
"""Descriptors of a worker beside connections."""
_MEMORY = Path("/dev/shm")  # noqa: S108  # what the service itself uses
_LEAST_MEMORY = 16 << 20


def machine(config: Config) -> Iterator[Check]:
    """Check the machine on which this runs."""
    running = _runs(Path(config.state_dir))
    yield from _ports(config, running)
    yield from _disk(config)
    yield _descriptors(config)
    yield _memory()


def _runs(state_dir: Path) -> bool:
    """Whether a service holds the lock of this state folder."""
    try:
        number = os.open(state_dir / "lock", os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC)
    except OSError:
        return False
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        return error.errno in (errno.EAGAIN, errno.EACCES)
    finally:
        os.close(number)
    return False


# Ports --------------------------------------------------------------------------------------------


def _ports(config: Config, running: bool) -> Iterator[Check]:
    for key, address in (
        ("listen", config.listen.address),
        ("control.listen", config.control.listen),
    ):
        subject = f"port of {key}"
        host, port = split_address(address)
        why = _taken(host, port)
        if why is None:
            yield ok(subject, f"{address} is free")
        elif why.errno == errno.EADDRINUSE and running:
            yield ok(subject, f"{address} is used by the running service")
        elif why.errno == errno.EADDRINUSE:
            yield fault(
                subject,
                f"{address} is taken{_by_whom(port)}",
                f"stop that process, or give another port in `{key}`",
            )
        elif why.errno == errno.EACCES:
            yield fault(
                subject,
                f"{address}: this user may not listen on a port below 1024",
                f"give a higher port in `{key}`, or the capability CAP_NET_BIND_SERVICE",
            )
        else:
            yield fault(
                subject,
                f"{address}: {why.strerror or why}",
                f"give an address of this machine in `{key}`, such as 127.0.0.1:{port}",
            )


def _taken(host: str, port: int) -> OSError | None:
    """Why no process could listen there now, or None."""
    try:
        family, _, _, _, where = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(where)
            probe.listen(1)
    except OSError as error:
        return error
    return None


def _by_whom(port: int) -> str:
    """The process that listens on a port, where this user may see it."""
    inodes = set()
    for name in ("tcp", "tcp6"):
        try:
            lines = Path(f"/proc/net/{name}").read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            fields = line.split()
            if fields[3] == _LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{fields[9]}]")
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if any(os.readlink(link) in inodes for link in (folder / "fd").iterdir()):
                words = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
                return f" by process {folder.name} ({words[:80]})"
        except OSError:
            continue
    return " by a process of another user" if inodes else ""


# Disk ---------------------------------------------------------------------------------------------


def _disk(config: Config) -> Iterator[Check]:
    wanted = {
        Path(config.state_dir): (
            "state_dir",
            config.feedback.max_size + config.monitoring.history_size + config.history.max_size,
        )
    }
    if config.records.log is not None:
        log = config.records.log
        wanted[Path(log.path)] = ("records.log.path", log.max_size * log.keep)
    if config.kafka is not None and config.evaluation.mode == "kafka":
        spool = config.kafka.spool
        where = Path(spool.path) if spool.path else Path(config.state_dir) / "spool"
        wanted[where] = ("kafka.spool.path", spool.max_size)
    for path, (key, size) in wanted.items():
        yield _folder(key, path, size)


def _folder(key: str, path: Path, size: int) -> Check:
    subject = f"disk of {key}"
    existing = next(one for one in (path, *path.parents) if one.exists())
    if not existing.is_dir():
        return fault(subject, f"{existing} is not a folder", f"remove it, or change `{key}`")
    if not os.access(existing, os.W_OK | os.X_OK):
        return fault(
            subject,
            f"{existing} cannot be written by this user (uid {os.getuid()})",
            f"run `chown {os.getuid()} {existing}`, or change `{key}`",
        )
    mode = existing.stat().st_mode
    if existing == path and mode & stat.S_IWOTH and not os.path.ismount(path):
        return fault(subject, f"every user may write to {path}", f"run `chmod o-w {path}`")
    free = shutil.disk_usage(existing).free
    if free < size:
        return warning(
            subject,
            f"{_size(free)} are free at {existing}, and up to {_size(size)} may be used",
            "free some space, or lower the limits (feedback.max_size, monitoring.history_size, "
            "history.max_size, records.log, kafka.spool)",
        )
    return ok(
        subject, f"{path} can be written; {_size(free)} are free, up to {_size(size)} are used"
    )


def _size(count: int) -> str:
    unit, one = max(((u, n) for u, n in BYTES.items() if n <= max(count, 1)), key=lambda x: x[1])
    return f"{count / one:.3g} {unit}"


# Others -------------------------------------------------------------------------------------------


def _descriptors(config: Config) -> Check:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    upstreams = config.champion.max_connections + sum(
        one.max_connections + (one.mirror.connections or config.champion.max_connections)
        for one in config.challengers
    )
    needed = config.limits.connections + upstreams + _FIXED_DESCRIPTORS
    workers = worker_count(config)
    if hard != resource.RLIM_INFINITY and hard < needed:
        return fault(
            "file descriptors",
            f"a process may open {hard:,}, and each of {workers} workers may need {needed:,}",
            "raise the hard limit (ulimit -Hn, LimitNOFILE), or lower limits.connections",
        )
    shown = "any number of" if hard == resource.RLIM_INFINITY else f"{hard:,}"
    return ok("file descriptors", f"a process may open {shown}; a worker needs {needed:,} at most")


def _memory() -> Check:
    try:
        free = shutil.disk_usage(_MEMORY).free
    except OSError as error:
        return warning(
            "shared memory",
            f"{_MEMORY}: {error.strerror}; the state folder's disk is used instead",
            f"mount a tmpfs at {_MEMORY}",
        )
    if free < _LEAST_MEMORY or not os.access(_MEMORY, os.W_OK):
        return warning(
            "shared memory",
            f"{_size(free)} are free at {_MEMORY}; the state folder's disk is used instead",
            "make it larger (docker run --shm-size, an emptyDir with medium: Memory)",
        )
    return ok("shared memory", f"{_size(free)} are free at {_MEMORY}")
