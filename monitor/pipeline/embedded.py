"""The embedded mode: records are evaluated in this process, and state is saved to disk."""

from __future__ import annotations

import asyncio
from typing import Any

from understudy.monitor.pipeline.mode import LabelIntake, StateSaver, Workers
from understudy.monitor.supervisor.control_line import ControlLine


class Embedded:
    """The :class:`understudy.monitor.pipeline.mode.Mode` that needs only this machine.

    State is saved every ``every`` seconds, and only then committed to the workers."""

    def __init__(self, saver: StateSaver, feedback: LabelIntake | None, every: float) -> None:
        self._saver = saver
        self._feedback = feedback
        self._every = every

    def summary(self) -> dict[str, Any] | None:
        """Nothing is published."""
        return None

    def evaluator_hint(self) -> str:
        """Empty: this process evaluates."""
        return ""

    async def run(self, workers: Workers, line: ControlLine) -> None:
        """Save and commit repeatedly, until cancelled."""
        while True:
            await asyncio.sleep(self._every)
            if workers.owns_run() and await self._saver.save():
                workers.commit(self._saver.saved)
                if self._feedback is not None:
                    await self._feedback.tidy(self._saver.saved_labels)

    async def stop(self) -> None:
        """Nothing to do: the caller has saved the state."""
