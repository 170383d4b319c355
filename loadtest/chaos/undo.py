"""How each fault is undone, as data, so that another process can do it when the runner is dead."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from understudy.common.http import call

Undo = Mapping[str, Any]
"""One of ``{"resume": pid, "began": …}``, ``{"end": pid, "began": …}``, ``{"unlink": path}``,
``{"http": {"method", "url", "json"}}``, ``{"start": [command, …]}``,
``{"write": path, "text": …}``, ``{"signal": pid, "number": …, "began": …}`` and ``{"run": [command,
…]}``. ``began`` is when the process started, by the kernel: a later process with the same pid is
not touched."""


def start_time(pid: int) -> int | None:
    """When a process started, in clock ticks since boot; None if it does not exist."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name in brackets may contain anything; the fields after it are separated by spaces.
    return int(text.rpartition(")")[2].split()[19])


def still_runs(undo: Undo, key: str) -> bool:
    """Whether the process under ``key`` still runs."""
    return bool(start_time(int(undo[key])) == undo["began"])


def perform(undo: Undo) -> str:
    """Undo a fault; return what went wrong, or an empty text. Idempotent."""
    try:
        if "resume" in undo:
            if still_runs(undo, "resume"):
                os.kill(int(undo["resume"]), signal.SIGCONT)
        elif "end" in undo:
            if still_runs(undo, "end"):
                os.kill(int(undo["end"]), signal.SIGKILL)
        elif "unlink" in undo:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(undo["unlink"])
        elif "http" in undo:
            _call(undo["http"])
        elif "start" in undo:
            subprocess.Popen(
                list(undo["start"]), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL, start_new_session=True,
            )  # fmt: skip
        elif "write" in undo:
            replace(Path(undo["write"]), str(undo["text"]))
        elif "signal" in undo:
            if still_runs(undo, "signal"):
                os.kill(int(undo["signal"]), int(undo["number"]))
        elif "run" in undo:
            run(list(undo["run"]))
        else:
            return f"unknown undo: {dict(undo)}"
    except (OSError, ValueError, KeyError) as error:
        return f"{dict(undo)}: {error}"
    return ""


def replace(path: Path, text: str) -> None:
    """Write a file atomically: readers see the old or the new content."""
    fresh = path.with_name(f".{path.name}.fresh")
    fresh.write_text(text)
    fresh.replace(path)


def run(command: list[str]) -> None:
    """Run a command. Raises OSError with its standard error when it fails or takes over 20 s."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20.0)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{command[0]} takes too long") from error
    if done.returncode:
        raise OSError(done.stderr.strip() or f"{command[0]} ended with {done.returncode}")


def _call(request: Mapping[str, Any]) -> None:
    data = json.dumps(request["json"]).encode() if request.get("json") is not None else None
    headers = {"content-type": "application/json"}
    response = call(request["url"], request["method"], data, headers, timeout_seconds=5.0)
    if response.status >= 300 and response.status != 404:  # 404: already removed
        raise OSError(f"{request['url']}: answered {response.status}")
