"""Finds processes by pid, by pid file, or by the port on which they listen."""

from __future__ import annotations

from pathlib import Path

from understudy.loadtest.errors import PlanError

_LISTENING = "0A"


def find(
    pid: int | None = None,
    pid_file: str | None = None,
    port: int | None = None,
    command: str | None = None,
) -> int:
    """The pid of the process with ``pid``, in ``pid_file``, or that listens on ``port``.

    With ``command``: the first of it and its descendants whose command line contains that text,
    such as ``understudy.monitor.proxy`` for a worker of the sidecar. Raises PlanError if there is
    no such process, or unless exactly one of the three is given."""
    root = _find_one(pid, pid_file, port)
    if command is None:
        return root
    for one in sorted(process_tree(root)):
        try:
            words = Path(f"/proc/{one}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, UnicodeDecodeError):
            continue
        if command in words:
            return one
    raise PlanError(f"process {root}: no descendant has {command!r} in its command line")


def _find_one(pid: int | None, pid_file: str | None, port: int | None) -> int:
    if sum(one is not None for one in (pid, pid_file, port)) != 1:
        raise PlanError("name the process by one of pid, pid_file and port")
    if pid_file is not None:
        try:
            pid = int(Path(pid_file).read_text())
        except (OSError, ValueError) as error:
            raise PlanError(f"{pid_file}: not a pid file: {error}") from error
    if port is not None:
        result = listening(port)
        if not result:
            raise PlanError(f"no process of this user listens on port {port}")
        return result[0]
    assert pid is not None
    if pid <= 1 or not Path(f"/proc/{pid}").exists():
        raise PlanError(f"no such process: {pid}")
    return pid


def listening(port: int) -> list[int]:
    """Pids that listen on a TCP port of this machine, ascending."""
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        try:
            lines = Path(table).read_text().splitlines()[1:]
        except OSError:
            continue
        for line in lines:
            cells = line.split()
            if cells[3] == _LISTENING and int(cells[1].rpartition(":")[2], 16) == port:
                inodes.add(f"socket:[{cells[9]}]")
    pids = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            open_files = {str(link.readlink()) for link in (folder / "fd").iterdir()}
        except OSError:
            continue
        if open_files & inodes:
            pids.append(int(folder.name))
    return sorted(pids)


def process_tree(pid: int) -> list[int]:
    """A process and its descendants."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text()
            except OSError:
                continue
            parent = int(text.rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(folder.name))
    pids, pending = [], [pid]
    while pending:
        one = pending.pop()
        pids.append(one)
        pending += parents.get(one, [])
    return pids


def cpu_seconds(pid: int) -> float:
    """CPU time in seconds of a process and its descendants, since they started."""
    import os

    ticks = 0
    for one in process_tree(pid):
        try:
            cells = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(cells[11]) + int(cells[12])
    return ticks / os.sysconf("SC_CLK_TCK")
