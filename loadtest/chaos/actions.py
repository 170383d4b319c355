"""Actions for experiments of the Chaos Toolkit: ``{"type": "python", "module":
"understudy.loadtest.chaos.actions", "func": "pause_process", "arguments": {"port": 8080}}``.

Every fault that lasts is registered with the guard before it starts, so that it is undone even if
the runner is killed. Only :func:`cut_link` needs privileges; it raises an error without them.
"""

from __future__ import annotations

import json
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
from understudy.common.unreadable import why_unreadable
from understudy.common.yaml_text import YamlError, read_yaml
from understudy.loadtest.chaos import processes
from understudy.loadtest.chaos.guard import Guard
from understudy.loadtest.chaos.undo import Undo, perform, replace, run, start_time
from understudy.loadtest.errors import LoadTestError, PlanError

guard: Guard | None = None
"""The guard of the running experiment; without one, only rollbacks undo faults."""
_CLONE_NEWNET = 0x40000000
_active: list[tuple[str, Undo, int | None]] = []
"""Active faults: (name, how to undo it, its number with the guard)."""


def _register(name: str, undo: Undo) -> None:
    _active.append((name, undo, guard.begin(undo) if guard is not None else None))


def undo(name: str = "") -> int:
    """Undo the faults called ``name``, or all, in reverse order; return their number.

    Raises LoadTestError when one cannot be undone; the guard retries it.
    """
    failed = []
    count = 0
    for one in [one for one in reversed(_active) if name in ("", one[0])]:
        why = perform(one[1])
        if why:
            failed.append(why)
            continue
        _active.remove(one)
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
    """SIGSTOP a process: it exists but does nothing. Returns its pid."""
    target = processes.find(pid, pid_file, port, command)
    _register(name, {"resume": target, "began": start_time(target)})
    os.kill(target, signal.SIGSTOP)
    return target


def resume_process(name: str = "pause") -> int:
    """SIGCONT the processes that were paused under ``name``; return their number."""
    return undo(name)


def kill_process(
    pid: int | None = None,
    pid_file: str | None = None,
    port: int | None = None,
    command: str | None = None,
    restart: list[str] | None = None,
    name: str = "kill",
) -> int:
    """SIGKILL a process and return its pid. ``restart`` is the command that starts it when the
    fault is undone; without it, a supervisor has to."""
    target = processes.find(pid, pid_file, port, command)
    if restart:
        _register(name, {"start": restart})
    os.kill(target, signal.SIGKILL)
    return target


# The machine --------------------------------------------------------------------------------------


def cpu_pressure(cores: int = 1, seconds: float = 10.0, name: str = "cpu") -> list[int]:
    """Start one busy process for each of ``cores``, for at most ``seconds``; return their pids."""
    if not 0 < cores <= 256 or not 0.0 < seconds <= 3600.0:
        raise PlanError("cpu_pressure: cores from 1 to 256, seconds up to 3600")
    code = f"import time\nuntil = time.monotonic() + {seconds}\n"
    code += "while time.monotonic() < until: pass"
    return [_spawn(name, code) for _ in range(cores)]


def memory_pressure(mib: int = 256, seconds: float = 10.0, name: str = "memory") -> int:
    """Start a process that holds ``mib`` MiB for at most ``seconds``; return its pid. Raises
    PlanError if less than a tenth of the available memory would remain."""
    available = _available_mib()
    if mib <= 0 or not 0.0 < seconds <= 3600.0:
        raise PlanError("memory_pressure: mib must be positive, seconds up to 3600")
    if mib > 0.9 * available:
        raise PlanError(
            f"memory_pressure: {mib} MiB is too much: {available:.0f} MiB are available"
        )
    code = f"import time\nblock = bytearray({mib} * 2**20)\n"
    code += f"for k in range(0, len(block), 4096): block[k] = 1\ntime.sleep({seconds})"
    return _spawn(name, code)


def fill_disk(path: str, leave_mib: int = 1, most_mib: int = 1024, name: str = "disk") -> str:
    """Fill the file system of folder ``path`` until ``leave_mib`` MiB are free, with at most
    ``most_mib`` MiB; return the file that fills it."""
    folder = Path(path)
    if not folder.is_dir():
        raise PlanError(f"fill_disk: not a folder: {path}")
    free = shutil.disk_usage(folder).free // 2**20
    size = min(free - leave_mib, most_mib)
    if size <= 0:
        raise PlanError(f"fill_disk: {path} has {free} MiB free already")
    filler = folder / f".understudy-filler-{os.getpid()}"
    _register(name, {"unlink": str(filler)})
    with open(filler, "wb") as file:
        os.posix_fallocate(file.fileno(), 0, size * 2**20)
    return str(filler)


def jump_clock(file: str, seconds: float, name: str = "clock") -> str:
    """Shift the wall clock of processes under libfaketime by ``seconds``. They must be started
    with ``LD_PRELOAD=libfaketime.so.1``, ``FAKETIME_TIMESTAMP_FILE`` (this file),
    ``FAKETIME_NO_CACHE=1`` and ``FAKETIME_DONT_FAKE_MONOTONIC=1``. The clock of the machine and of
    other processes does not change."""
    path = Path(file)
    try:
        before = path.read_text()
    except OSError as error:
        raise PlanError(
            f"jump_clock: {file}: {error.strerror}: name the file of FAKETIME_TIMESTAMP_FILE"
        ) from error
    _register(name, {"write": str(path), "text": before})
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
    """Let the sidecar inject errors: add ``faults`` to its configuration file, and reload the
    process that listens on ``port``; return its pid. Undo restores the file and reloads again."""
    path = Path(config)
    try:
        before = path.read_text()
        document = read_yaml(before)
    except (OSError, YamlError) as error:
        why = why_unreadable(path, error)
        raise PlanError(f"sidecar_errors: {config}: cannot be read: {why}") from error
    if not isinstance(document, dict):
        raise PlanError(f"sidecar_errors: {config}: must be a mapping")
    pid = processes.find(port=port)
    # Undone in reverse order: first the file, then the signal.
    _register(name, {"signal": pid, "number": int(signal.SIGHUP), "began": start_time(pid)})
    _register(name, {"write": str(path), "text": before})
    faults = [{"arm": arm, "share": share, "status": status}]
    replace(path, yaml.safe_dump({**document, "faults": faults}, sort_keys=False))
    os.kill(pid, signal.SIGHUP)
    return pid


def _available_mib() -> float:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) / 1024.0
    return 0.0


def _spawn(name: str, code: str) -> int:
    process = subprocess.Popen(
        [sys.executable, "-P", "-c", code], stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    _register(name, {"end": process.pid, "began": start_time(process.pid)})
    return process.pid


# The network --------------------------------------------------------------------------------------


def add_proxy(url: str, proxy: str, listen: str, upstream: str) -> dict[str, Any]:
    """Add a proxy in front of ``upstream``; ``url`` is the API of the fault proxy or of
    Toxiproxy."""
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
    (truncated), corrupt, or down, which refuses and cuts connections; for one proxy or several, as
    one for each Kafka broker. With ``used`` it raises LoadTestError if no connection runs through
    any of them: then the fault would affect no client."""
    name = name or type
    proxies = [proxy] if isinstance(proxy, str) else list(proxy)
    if used:
        _require_traffic(url, proxies)
    results = []
    for one in proxies:
        if type == "down":
            change = {"method": "POST", "url": f"{url}/proxies/{one}", "json": {"enabled": True}}
            _register(name, {"http": change})
            results.append(_api("POST", f"{url}/proxies/{one}", {"enabled": False}))
            continue
        remove = {"method": "DELETE", "url": f"{url}/proxies/{one}/toxics/{name}", "json": None}
        _register(name, {"http": remove})
        data = {
            "name": name, "type": type, "stream": stream, "toxicity": toxicity,
            "attributes": attributes or {},
        }  # fmt: skip
        results.append(_api("POST", f"{url}/proxies/{one}/toxics", data))
    return results


def _require_traffic(url: str, proxies: list[str]) -> None:
    """Kafka clients ask one broker for the addresses of all, and connect to these: if brokers
    advertise their own addresses, only the first request passes the proxy, and a fault of the proxy
    has no effect."""
    counts = [_api("GET", f"{url}/proxies/{one}").get("connections") for one in proxies]
    # Toxiproxy does not report connections.
    if None not in counts and not any(counts):
        raise LoadTestError(
            f"no connection runs through {', '.join(proxies)}, so the fault would affect no "
            "client. Kafka brokers must advertise the address of their proxy (advertised.listeners)"
        )


def cut_link(device: str, namespace: str | None = None, name: str = "link") -> str:
    """Take a network device down, in ``namespace`` or in the current one: a partition, in which
    packets are silently lost. It needs CAP_NET_ADMIN; without it, use the ``timeout`` fault of the
    fault proxy."""
    ip = shutil.which("ip", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin")
    if ip is None:
        raise PlanError("cut_link: command not found: ip (install iproute2)")
    where = ["-n", namespace] if namespace is not None else []
    begin, end = ([ip, *where, "link", "set", "dev", device, way] for way in ("down", "up"))
    try:
        run([ip, *where, "link", "show", "dev", device])
        _register(name, {"run": end})
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
        hint = " (create it: add_proxy, or POST /proxies)" if response.status == 404 else ""
        text = response.body.decode(errors="replace")
        raise LoadTestError(f"{url}: {response.status} {text}{hint}")
    result: dict[str, Any] = response.json()
    return result


# Time and space -----------------------------------------------------------------------------------


def wait(seconds: float) -> float:
    """Sleep for ``seconds``."""
    time.sleep(seconds)
    return seconds


def partition_possible() -> bool:
    """Whether this process may create network namespaces."""
    # Python has os.unshare from 3.12 on.
    code = f"import ctypes; raise SystemExit(ctypes.CDLL(None).unshare({_CLONE_NEWNET}) != 0)"
    done = subprocess.run([sys.executable, "-P", "-c", code], stdin=subprocess.DEVNULL)
    return done.returncode == 0
