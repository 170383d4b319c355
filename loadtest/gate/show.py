"""Progress on the terminal: a live line while a stage runs, a permanent one after it."""

from __future__ import annotations

import sys

from understudy.common.screen import Live, Text, console
from understudy.loadtest.engine.outcome import Outcome
from understudy.loadtest.gate.plan import Stage
from understudy.loadtest.gate.result import StageResult

_STYLES = {
    "passed": "green", "failed": "red", "invalid": "yellow", "not measured": "yellow",
    "shown": "cyan",
}  # fmt: skip


class SilentProgress:
    """Shows nothing."""

    def stage(self, stage: Stage, number: int, count: int) -> None:
        """A stage starts; it is ``number`` of ``count``."""

    def update(self, outcome: Outcome, elapsed: float, seconds: float) -> None:
        """More requests have ended; ``elapsed`` and ``seconds`` are of the stage."""

    def note(self, text: str) -> None:
        """Show a message."""

    def done(self, result: StageResult) -> None:
        """A stage has ended."""


class Terminal(SilentProgress):
    """Writes to standard error; without a terminal, only the permanent lines."""

    def __init__(self) -> None:
        self._console = console(stderr=True)
        self._live: Live | None = None
        self._name = ""

    def stage(self, stage: Stage, number: int, count: int) -> None:
        """A stage starts; it is ``number`` of ``count``."""
        self._name = f"[{number}/{count}] {stage.name}"
        if sys.stderr.isatty():
            self._live = Live(Text(f"{self._name} …"), console=self._console, transient=True)
            self._live.start()

    def update(self, outcome: Outcome, elapsed: float, seconds: float) -> None:
        """More requests have ended; ``elapsed`` and ``seconds`` are of the stage."""
        if self._live is None:
            return
        of = f" of {seconds:.0f}" if seconds else ""
        median, tail = outcome.latencies.quantile(0.5), outcome.latencies.quantile(0.99)
        latency = ""
        if median is not None and tail is not None:
            latency = f", p50 {median * 1e3:.1f} ms, p99 {tail * 1e3:.1f} ms"
        failed = f", {outcome.failed:,} failed" if outcome.failed else ""
        self._live.update(
            Text(f"{self._name}  {elapsed:.0f}{of} s, {outcome.count:,} answers{latency}{failed}")
        )

    def note(self, text: str) -> None:
        """Show a message."""
        self._console.print(f"    {text}")

    def done(self, result: StageResult) -> None:
        """A stage has ended."""
        if self._live is not None:
            self._live.stop()
            self._live = None
        line = Text(f"{self._name}  ")
        line.append(result.verdict, _STYLES[result.verdict])
        outcome = result.outcome
        if outcome is not None and outcome.count:
            tail = outcome.quantile(0.99)
            line.append(f"  {outcome.count:,} requests, {outcome.rate:,.0f}/s")
            if tail is not None and outcome.count >= 100:
                line.append(f", p99 {tail * 1e3:.1f} ms")
            if outcome.failed:
                line.append(f", {outcome.failed:,} failed")
            if outcome.retried:
                line.append(f", {outcome.retried:,} sent again on a new connection")
        self._console.print(line)
        for text in result.facts:
            self._console.print(f"    {text}")
        for why in result.why:
            self._console.print(f"    {why}")
