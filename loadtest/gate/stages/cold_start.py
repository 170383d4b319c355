"""The cold-start stage: time from the start of a server to its first good response."""

from __future__ import annotations

import contextlib
import subprocess
import time
from typing import Annotated

import numpy as np
from pydantic import Field

from understudy.common.fields import Seconds
from understudy.loadtest.engine.pool import Loop
from understudy.loadtest.errors import LoadTestError
from understudy.loadtest.gate.context import GateContext, StageKind
from understudy.loadtest.gate.plan import Long, Part, Stage
from understudy.loadtest.gate.result import StageResult
from understudy.loadtest.gate.verdict import Criterion, pass_or_fail, reasons
from understudy.loadtest.gate.words import seconds
from understudy.loadtest.statistics.intervals import mean


class ColdStart(Part):
    """From the start of a process to its first good answer."""

    command: list[str] = Field(min_length=1)
    within: Seconds | None = None
    repeats: Annotated[int, Field(ge=1, le=50)] = 3
    timeout: Long = 120.0


def run_cold_start(gate: GateContext, stage: Stage, settings: ColdStart) -> StageResult:
    """Start the server repeatedly, and measure the time to its first good response."""
    times = []
    for _ in range(settings.repeats):
        begun = time.monotonic()
        try:
            process = subprocess.Popen(
                settings.command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )  # fmt: skip
        except OSError as error:
            raise LoadTestError(f"cold_start: {settings.command[0]}: {error.strerror}") from error
        try:
            times.append(_first_response(gate, process, begun, settings.timeout))
        finally:
            process.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(10.0)
            if process.poll() is None:
                process.kill()
                process.wait()
    interval = mean(times)
    result = StageResult(stage.name, stage.kind, "shown")
    result.data["cold_start"] = {
        "seconds": times,
        "mean": float(np.mean(times)),
        "low": interval.low if interval else None,
        "high": interval.high if interval else None,
    }
    result.facts = [f"first response after {seconds(max(times))} at the latest"]
    if settings.within is not None:
        worst = max(times)
        verdict = pass_or_fail(worst <= settings.within)
        result.criteria = [
            Criterion("first response within", settings.within, worst, verdict, unit="seconds")
        ]
        result.verdict = verdict
        result.why = reasons(result.criteria)
    return result


def _first_response(
    gate: GateContext, process: subprocess.Popen[bytes], begun: float, timeout: float
) -> float:
    while time.monotonic() - begun < timeout:
        if process.poll() is not None:
            raise LoadTestError(f"cold_start: the server exited with code {process.returncode}")
        with contextlib.suppress(LoadTestError):
            outcome = gate.drive(Loop(1, 1, 1, 2.0), seconds=0.0, timeout=2.0)
            if outcome.count and not outcome.failed:
                # When the request ended, on the clock of the load.
                ended = outcome.begun + float((outcome.due + outcome.latency)[-1])
                return ended - (time.time() - (time.monotonic() - begun))
        time.sleep(0.02)
    raise LoadTestError(f"cold_start: no good response within {timeout:g} s")


def _lacks(gate: GateContext, stage: Stage, wanted: ColdStart) -> str:
    return "" if wanted.within is not None else "within"


COLD_START = StageKind(ColdStart, run_cold_start, lacks=_lacks)
