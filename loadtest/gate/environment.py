"""Describes the machine and the software of a measurement, and lists what is unknown."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

from understudy.loadtest.capacity.meters import Meter

_PACKAGES = (
    "understudy", "uvloop", "httptools", "ngh2", "numpy", "scipy", "chaostoolkit-lib", "locust",
)  # fmt: skip


_POLICIES = {"SCHED_OTHER": "other", "SCHED_FIFO": "fifo", "SCHED_RR": "rr",
             "SCHED_BATCH": "batch", "SCHED_IDLE": "idle"}  # fmt: skip


def scheduling(pid: int = 0) -> str:
    """How the kernel schedules process ``pid`` (0: this one): policy, real-time priority if any,
    nice value and allowed cores. Child processes inherit them."""
    numbers = {getattr(os, name): text for name, text in _POLICIES.items() if hasattr(os, name)}
    try:
        policy = os.sched_getscheduler(pid) & ~os.SCHED_RESET_ON_FORK
        priority = os.sched_getparam(pid).sched_priority
        cores = ",".join(map(str, sorted(os.sched_getaffinity(pid))))
        nice = os.getpriority(os.PRIO_PROCESS, pid)
    except OSError as error:
        return f"not known: {error.strerror}"
    name = numbers.get(policy, str(policy))
    real = f" {priority} (real-time)" if priority else ""
    return f"{name}{real}, nice {nice}, cores {cores}"


def environment(seed: int, target: str) -> dict[str, Any]:
    """As JSON; ``missing`` lists what could not be determined."""
    missing: list[str] = []

    def first_line(path: str, name: str, after: str = "") -> str | None:
        try:
            for line in Path(path).read_text().splitlines():
                if line.startswith(after):
                    return line.removeprefix(after).strip(" \t:")
        except OSError:
            pass
        missing.append(name)
        return None

    versions = {}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            missing.append(f"package {package}")
    digest = os.environ.get("UNDERSTUDY_IMAGE_DIGEST")
    if digest is None:
        missing.append("image digest (UNDERSTUDY_IMAGE_DIGEST)")
    if not Meter().names:
        missing.append("energy counters (RAPL, NVML)")
    load = os.getloadavg()
    governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    return {
        "target": target,
        "seed": seed,
        "cpu": first_line("/proc/cpuinfo", "cpu model", "model name"),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)),
        "scheduling": scheduling(),
        "governor": first_line(governor, "cpu governor"),
        "memory": first_line("/proc/meminfo", "memory", "MemTotal"),
        "kernel": platform.release(),
        "system": platform.system(),
        "python": platform.python_version(),
        "load_average_before": round(load[0], 2),
        "versions": versions,
        "image_digest": digest,
        "missing": missing,
    }
