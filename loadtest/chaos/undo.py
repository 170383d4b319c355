"""How each fault is undone, as data: so that another process can do it when the runner is gone."""

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
…]}``. ``began`` is when the process started, by the kernel: another process that has got the same
number is left alone."""


def began(pid: int) -> int | None:
    """When a process started, in ticks since the machine did; None where there is none."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    # The name is in brackets and may hold anything; what follows is split by spaces.
    return int(text.rpartition(")")[2].split()[19])


def same(undo: Undo, key: str) -> bool:
    """Whether the process that is meant is still there."""
    return bool(began(int(undo[key])) == undo["began"])


def perform(undo: Undo) -> str:
    """Undo; what went wrong, or an empty text. Doing it twice does no harm."""
    try:
        if "resume" in undo:
            if same(undo, "resume"):
                os.kill(int(undo["resume"]), signal.SIGCONT)
        elif "end" in undo:
            if same(undo, "end"):
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
            if same(undo, "signal"):
                os.kill(int(undo["signal"]), int(undo["number"]))
        elif "run" in undo:
            run(list(undo["run"]))
        else:
            return f"nobody knows how to undo {dict(undo)}"
    except (OSError, ValueError, KeyError) as error:
        return f"{dict(undo)}: {error}"
    return ""


def replace(path: Path, text: str) -> None:
    """Write a file as a whole: who reads it meanwhile sees the old or the new one."""
    fresh = path.with_name(f".{path.name}.fresh")
    fresh.write_text(text)
    fresh.replace(path)


def run(command: list[str]) -> None:
    """Run a command to its end. Raises OSError with what it said when it fails."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20.0)
    except subprocess.TimeoutExpired as error:
        raise OSError(f"{command[0]} takes too long") from error
    if done.returncode:
        raise OSError(done.stderr.strip() or f"{command[0]} ended with {done.returncode}")


def _call(wanted: Mapping[str, Any]) -> None:
    data = json.dumps(wanted["json"]).encode() if wanted.get("json") is not None else None
    headers = {"content-type": "application/json"}
    response = call(wanted["url"], wanted["method"], data, headers, timeout_seconds=5.0)
    if response.status >= 300 and response.status != 404:  # 404: it is gone already
        raise OSError(f"{wanted['url']}: answered {response.status}")
