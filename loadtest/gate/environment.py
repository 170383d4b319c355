"""On what it was measured; what is missing is listed."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from pathlib import Path
from typing import Any

_PACKAGES = ("understudy", "uvloop", "httptools", "numpy", "scipy", "chaostoolkit-lib", "locust")


def environment(seed: int, target: str) -> dict[str, Any]:
    """As JSON: ``missing`` names what could not be found out."""
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
    load = os.getloadavg()
    governor = "/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"
    return {
        "target": target,
        "seed": seed,
        "cpu": first_line("/proc/cpuinfo", "cpu model", "model name"),
        "cores": os.cpu_count(),
        "cores_usable": len(os.sched_getaffinity(0)),
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
