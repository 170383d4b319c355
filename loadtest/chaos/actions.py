"""Actions for experiments of the Chaos Toolkit: ``{"type": "python", "module":
"understudy.loadtest.chaos.actions", "func": "pause_process", "arguments": {"port": 8080}}``.

Every fault that lasts is announced to the guard before it begins, so that it is undone whatever
becomes of the runner. Nothing here needs privileges; what does is refused with the reason.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import yaml

from understudy.common.http import call
from understudy.loadtest.chaos import processes
from understudy.loadtest.chaos.guard import Guard
from understudy.loadtest.chaos.undo import Undo, began, perform, replace, run
from understudy.loadtest.errors import LoadTestError, PlanError

guard: Guard | None = None
"""Of the running experiment; without one, faults are undone by rollbacks alone."""
_open: list[tuple[str, Undo, int | None]] = []
"""Faults that last: the name by which they are undone, how, and their number with the guard."""


def _begin(name: str, undo: Undo) -> None:
    _open.append((name, undo, guard.begin(undo) if guard is not None else None))


def undo(name: str = "") -> int:
    """Undo the faults of a name, or all: the last one first. How many there were.

    Raises LoadTestError when one cannot be undone; the guard goes on trying.
    """
    failed = []
    count = 0
    for one in [one for one in reversed(_open) if name in ("", one[0])]:
        why = perform(one[1])
        if why:
            failed.append(why)
            continue
        _open.remove(one)
        count += 1
        if guard is not None and one[2] is not None:
            guard.done(one[2])
    if failed:
        raise LoadTestError("; ".join(failed))
    return count


# Processes ----------------------------------------------------------------------------------------


def pause_process(
    pid: int | None = None,
    pid_file: str | None = None,
    port: int | None = None,
    command: str | None = None,
    name: str = "pause",
) -> int:
    """SIGSTOP: it is there and does nothing. Its number."""
    found = processes.find(pid, pid_file, port, command)
    _begin(name, {"resume": found, "began": began(found)})
    os.kill(found, signal.SIGSTOP)
    return found


def resume_process(name: str = "pause") -> int:
    """SIGCONT for what was paused."""
    return undo(name)


def kill_process(
    pid: int | None = None,
    pid_file: str | None = None,
    port: int | None = None,
    command: str | None = None,
    restart: list[str] | None = None,
    name: str = "kill",
) -> int:
    """SIGKILL. ``restart`` is the command that starts it again when this is undone; without one,
    somebody else does."""
    found = processes.find(pid, pid_file, port, command)
    if restart:
        _begin(name, {"start": restart})
    os.kill(found, signal.SIGKILL)
    return found


# The machine --------------------------------------------------------------------------------------


def cpu_pressure(cores: int = 1, seconds: float = 10.0, name: str = "cpu") -> list[int]:
    """Processes that do nothing but count, one for each of ``cores``, for ``seconds`` at most."""
    if not 0 < cores <= 256 or not 0.0 < seconds <= 3600.0:
        raise PlanError("cpu_pressure: cores from 1 to 256, seconds up to 3600")
    code = f"import time\nuntil = time.monotonic() + {seconds}\n"
    code += "while time.monotonic() < until: pass"
    return [_helper(name, code) for _ in range(cores)]


def memory_pressure(mib: int = 256, seconds: float = 10.0, name: str = "memory") -> int:
    """A process that holds so much memory, for ``seconds`` at most. It is refused where it would
    leave less than a tenth of the machine's memory free."""
    available = _available_mib()
    if mib <= 0 or not 0.0 < seconds <= 3600.0:
        raise PlanError("memory_pressure: mib must be positive, seconds up to 3600")
    if mib > 0.9 * available:
        raise PlanError(f"memory_pressure: {mib} MiB of {available:.0f} MiB available are too much")
    code = f"import time\nheld = bytearray({mib} * 2**20)\n"
    code += f"for k in range(0, len(held), 4096): held[k] = 1\ntime.sleep({seconds})"
    return _helper(name, code)


def fill_disk(path: str, leave_mib: int = 1, most_mib: int = 1024, name: str = "disk") -> str:
    """Fill the file system of a folder until ``leave_mib`` are free, with at most ``most_mib``."""
    folder = Path(path)
    if not folder.is_dir():
        raise PlanError(f"fill_disk: {path} is no folder")
    free = shutil.disk_usage(folder).free // 2**20
    size = min(free - leave_mib, most_mib)
    if size <= 0:
        raise PlanError(f"fill_disk: {path} has {free} MiB free already")
    filler = folder / f".understudy-filler-{os.getpid()}"
    _begin(name, {"unlink": str(filler)})
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size * 2**20)
    return str(filler)


def jump_clock(file: str, seconds: float, name: str = "clock") -> str:
    """Move the wall clock of processes that run under libfaketime, forth or back: they were started
    with ``LD_PRELOAD=libfaketime.so.1``, ``FAKETIME_TIMESTAMP_FILE`` (this file),
    ``FAKETIME_NO_CACHE=1`` and ``FAKETIME_DONT_FAKE_MONOTONIC=1``. The machine's own clock, and
    everybody else's, stays as it is."""
    path = Path(file)
    try:
        before = path.read_text()
    except OSError as error:
        raise PlanError(
            f"jump_clock: {file}: {error.strerror}: name the file of FAKETIME_TIMESTAMP_FILE"
        ) from error
    _begin(name, {"write": str(path), "text": before})
    replace(path, f"{seconds:+g}")
    return before


def sidecar_errors(
    config: str,
    port: int,
    share: float = 0.1,
    status: int = 503,
    arm: str = "champion",
    name: str = "errors",
) -> int:
    """Errors in a model's place, by the sidecar itself: its configuration file gets ``faults``, and
    the process that listens on ``port`` is told to read it again. What was in the file is put back
    when this is undone."""
    path = Path(config)
    try:
        before = path.read_text()
        document = yaml.safe_load(before)
    except (OSError, yaml.YAMLError) as error:
        raise PlanError(f"sidecar_errors: {config}: cannot be read: {error}") from error
    if not isinstance(document, dict):
        raise PlanError(f"sidecar_errors: {config}: is no configuration")
    pid = processes.find(port=port)
    # Undone from the last to the first: the file, then the signal.
    _begin(name, {"signal": pid, "number": int(signal.SIGHUP), "began": began(pid)})
    _begin(name, {"write": str(path), "text": before})
    faults = [{"arm": arm, "share": share, "status": status}]
    replace(path, yaml.safe_dump({**document, "faults": faults}, sort_keys=False))
    os.kill(pid, signal.SIGHUP)
    return pid


def _available_mib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) / 1024.0
    return 0.0


def _helper(name: str, code: str) -> int:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _begin(name, {"end": process.pid, "began": began(process.pid)})
    return process.pid


# The network --------------------------------------------------------------------------------------


def add_proxy(url: str, proxy: str, listen: str, upstream: str) -> dict[str, Any]:
    """A fault proxy in front of ``upstream``; ``url`` is of the API (ours, or Toxiproxy's)."""
    data = {"name": proxy, "listen": listen, "upstream": upstream, "enabled": True}
    return _api("POST", f"{url}/proxies", data)


def add_fault(
    url: str,
    proxy: str | list[str],
    type: str,
    attributes: dict[str, float] | None = None,
    stream: str = "downstream",
    toxicity: float = 1.0,
    name: str = "",
    used: bool = False,
) -> list[dict[str, Any]]:
    """latency, bandwidth, slow_close, timeout (blackhole), reset_peer, slicer, limit_data
    (truncated), corrupt, or down, which refuses and cuts connections; of one proxy, or of several
    at once, as of one for each broker of Kafka. With ``used`` it is refused where no connection
    runs through any of them: then whoever it is meant for goes past them, and would not notice."""
    name = name or type
    proxies = [proxy] if isinstance(proxy, str) else list(proxy)
    if used:
        _in_use(url, proxies)
    found = []
    for one in proxies:
        if type == "down":
            change = {"method": "POST", "url": f"{url}/proxies/{one}", "json": {"enabled": True}}
            _begin(name, {"http": change})
            found.append(_api("POST", f"{url}/proxies/{one}", {"enabled": False}))
            continue
        remove = {"method": "DELETE", "url": f"{url}/proxies/{one}/toxics/{name}", "json": None}
        _begin(name, {"http": remove})
        data = {
            "name": name, "type": type, "stream": stream, "toxicity": toxicity,
            "attributes": attributes or {},
        }  # fmt: skip
        found.append(_api("POST", f"{url}/proxies/{one}/toxics", data))
    return found


def _in_use(url: str, proxies: list[str]) -> None:
    """Clients of Kafka ask any broker where all are, and go there: with brokers that say their own
    address only that question comes through a proxy, and a fault of it would change nothing."""
    counts = [_api("GET", f"{url}/proxies/{one}").get("connections") for one in proxies]
    # Toxiproxy itself does not count them.
    if None not in counts and not any(counts):
        raise LoadTestError(
            f"no connection runs through {', '.join(proxies)}: whoever this is meant for goes past "
            "it. Brokers of Kafka must advertise the address of their proxy (advertised.listeners)"
        )


def cut_link(device: str, namespace: str | None = None, name: str = "link") -> str:
    """Take a network device down, of a network namespace or of this one: a partition, in which
    packets are lost and nobody is told. It needs the right to do so (CAP_NET_ADMIN); without it,
    ``timeout`` faults of the fault proxy swallow bytes as well."""
    ip = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if ip is None:
        raise PlanError("cut_link: there is no ip command: install iproute2")
    where = ["-n", namespace] if namespace is not None else []
    begin, end = ([ip, *where, "link", "set", "dev", device, way] for way in ("down", "up"))
    try:
        run([ip, *where, "link", "show", "dev", device])
        _begin(name, {"run": end})
        run(begin)
    except OSError as error:
        raise LoadTestError(f"cut_link: {device}: {error}") from error
    return device


def _api(method: str, url: str, data: dict[str, Any] | None = None) -> dict[str, Any]:
    body = json.dumps(data).encode() if data is not None else None
    headers = {"content-type": "application/json"}
    try:
        response = call(url, method, body, headers, timeout_seconds=5.0)
    except OSError as error:
        raise LoadTestError(f"{url}: the fault proxy cannot be reached: {error}") from error
    if response.status >= 300:
        hint = " (add_proxy, or POST /proxies, makes one)" if response.status == 404 else ""
        text = response.body.decode(errors="replace")
        raise LoadTestError(f"{url}: {response.status} {text}{hint}")
    found: dict[str, Any] = response.json()
    return found


# Time and space -----------------------------------------------------------------------------------


def wait(seconds: float) -> float:
    """Do nothing for a while."""
    time.sleep(seconds)
    return seconds


def partition_possible() -> bool:
    """Whether network namespaces may be made here: without, a partition is a fault proxy's."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=_try_namespace)
    process.start()
    process.join(10.0)
    return process.exitcode == 0


def _try_namespace() -> None:
    clone_newnet = 0x40000000
    unshare = getattr(os, "unshare", None)  # from Python 3.12 on
    if unshare is None:
        import ctypes

        raise SystemExit(1 if ctypes.CDLL(None, use_errno=True).unshare(clone_newnet) else 0)
    unshare(clone_newnet)
