"""Which process is meant: by its number, a file with it, or the port on which it listens."""

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
    """The one process that was named; with ``command`` that one or what came from it, the first
    whose command line holds the text, as ``understudy.monitor.proxy`` for a worker of the sidecar.
    Raises PlanError where there is none, or more than one way to name it was used."""
    found = _named(pid, pid_file, port)
    if command is None:
        return found
    for one in sorted(family(found)):
        try:
            words = Path(f"/proc/{one}/cmdline").read_bytes().replace(b"\0", b" ").decode()
        except (OSError, UnicodeDecodeError):
            continue
        if command in words:
            return one
    raise PlanError(f"process {found} has nothing with {command!r} in its command line under it")


def _named(pid: int | None, pid_file: str | None, port: int | None) -> int:
    if sum(one is not None for one in (pid, pid_file, port)) != 1:
        raise PlanError("name the process by one of pid, pid_file and port")
    if pid_file is not None:
        try:
            pid = int(Path(pid_file).read_text())
        except (OSError, ValueError) as error:
            raise PlanError(f"{pid_file}: holds no process number: {error}") from error
    if port is not None:
        found = listening(port)
        if not found:
            raise PlanError(f"no process of yours listens on port {port}")
        return found[0]
    assert pid is not None
    if pid <= 1 or not Path(f"/proc/{pid}").exists():
        raise PlanError(f"there is no process {pid}")
    return pid


def listening(port: int) -> list[int]:
    """Processes that listen on a TCP port of this machine, the oldest first."""
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
    found = []
    for folder in Path("/proc").iterdir():
        if not folder.name.isdigit():
            continue
        try:
            held = {str(link.readlink()) for link in (folder / "fd").iterdir()}
        except OSError:
            continue
        if held & inodes:
            found.append(int(folder.name))
    return sorted(found)


def family(pid: int) -> list[int]:
    """A process and all that came from it."""
    parents: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                text = (folder / "stat").read_text()
            except OSError:
                continue
            parent = int(text.rpartition(")")[2].split()[1])
            parents.setdefault(parent, []).append(int(folder.name))
    found, left = [], [pid]
    while left:
        one = left.pop()
        found.append(one)
        left += parents.get(one, [])
    return found


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and all that came from it, since they began."""
    import os

    ticks = 0
    for one in family(pid):
        try:
            cells = Path(f"/proc/{one}/stat").read_text().rpartition(")")[2].split()
        except OSError:
            continue
        ticks += int(cells[11]) + int(cells[12])
    return ticks / os.sysconf("SC_CLK_TCK")
