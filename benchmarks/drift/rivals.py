"""river's and alibi-detect's detectors on the same streams.

river is an extra of this project and runs here, as its authors have it, one value at a time.
alibi-detect (Business Source Licence: compared with, not depended on) lives in an environment of
its own below ``.parts/``, made on first use; whatever cannot be installed is reported.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import tempfile
import time
import venv
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.drift.streams import BEFORE, Array, Flags

PARTS = Path(__file__).resolve().parents[2] / ".parts"
WORKER = Path(__file__).with_name("alibi_worker.py")
ALIBI = ("alibi-detect==0.13.0", "torch")
_LIMIT_SECONDS = 3600
RIVER: dict[str, tuple[str, dict[str, Any]]] = {
    "river ADWIN": ("adwin", {}),
    "river PageHinkley": ("page_hinkley", {}),
    "river KSWIN": ("kswin", {"seed": 1}),
}


def river_class(kind: str) -> Any | None:
    """The class in river, or None where river is not installed."""
    try:
        from river import drift
    except ImportError:
        return None
    return {"adwin": drift.ADWIN, "page_hinkley": drift.PageHinkley, "kswin": drift.KSWIN}[kind]


def river_alarms(name: str, streams: Array) -> tuple[Array, float]:
    """Rows of streams (n, S): alarms of each, and processor microseconds for each value."""
    kind, options = RIVER[name]
    make = river_class(kind)
    assert make is not None
    found = np.zeros(streams.shape[1])
    begin = time.process_time()
    for number, column in enumerate(streams.T):
        detector = make(**options)
        update = detector.update
        alarms = 0
        for value in column.tolist():
            update(value)
            alarms += detector.drift_detected
        found[number] = alarms
    return found, (time.process_time() - begin) / streams.size * 1e6


def river_delays(name: str, streams: Array) -> tuple[Array, Flags]:
    """As :func:`benchmarks.drift.streams.delays`; river restarts by itself after an alarm."""
    kind, options = RIVER[name]
    make = river_class(kind)
    assert make is not None
    found = np.full(streams.shape[1], np.inf)
    early = np.zeros(streams.shape[1], np.bool_)
    for number, column in enumerate(streams.T):
        detector = make(**options)
        for row, value in enumerate(column.tolist()):
            detector.update(value)
            if detector.drift_detected:
                if row >= BEFORE:
                    found[number] = row - BEFORE + 1
                    break
                early[number] = True
    return found, early


def prepare() -> tuple[Path | None, str | None]:
    """The interpreter with alibi-detect, or why there is none."""
    folder = PARTS / "drift-peers"
    python = folder / "bin" / "python"
    try:
        if not python.exists():
            print(f"  making {folder}", file=sys.stderr, flush=True)
            venv.EnvBuilder(with_pip=True).create(folder)
        if _run([str(python), "-c", "import alibi_detect, torch"])[0]:
            print(f"  installing {' '.join(ALIBI)}", file=sys.stderr, flush=True)
            code, text = _run(
                [str(python), "-m", "pip", "install", "-q", "--disable-pip-version-check", *ALIBI]
            )
            if code:
                return None, text
    except (OSError, subprocess.TimeoutExpired) as error:
        return None, str(error)
    return python, None


def _run(command: list[str], text: str = "") -> tuple[int, str]:
    """Exit code, and the last line of what was said."""
    done = subprocess.run(
        command, input=text, capture_output=True, text=True, timeout=_LIMIT_SECONDS, check=False
    )
    lines = (done.stdout if not done.returncode else done.stderr).strip().splitlines()
    return done.returncode, lines[-1] if lines else ""


def alibi(
    python: Path, method: str, reference: Array, streams: dict[str, Array], **settings: Any
) -> dict[str, Any]:
    """Run CVM or MMD online over streams by name, each (n, S), stream by stream.

    ``fit_seconds``, ``us`` for each value, and by name ``stops``: the row of each alarm, stream by
    stream; one ends with the first at or after ``settings["ends"][name]``. ``failed`` says why not.
    """
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder) / "in.npz"
        np.savez(data, allow_pickle=False, reference=reference, **streams)
        job = json.dumps({"method": method, "names": list(streams), **settings})
        try:
            code, text = _run([str(python), str(WORKER), str(data)], job)
        except subprocess.TimeoutExpired:
            return {"failed": f"took longer than {_LIMIT_SECONDS} s"}
    if code:
        return {"failed": text}
    answer: dict[str, Any] = json.loads(text)
    return answer


def from_stops(stops: list[list[int]]) -> tuple[Array, Flags]:
    """Delays and early alarms of :func:`alibi`'s rows."""
    found = [min((s - BEFORE + 1 for s in each if s >= BEFORE), default=math.inf) for each in stops]
    early = [any(s < BEFORE for s in each) for each in stops]
    return np.array(found, np.float64), np.array(early, np.bool_)
