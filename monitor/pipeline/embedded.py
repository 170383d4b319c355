"""Records are evaluated in this process: state is saved to disk, and then committed to the
workers."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from understudy.monitor.labels.service import LabelService

if TYPE_CHECKING:
    from understudy.monitor.pipeline.plane import Plane
    from understudy.monitor.supervisor.control_line import ControlLine


class Embedded:
    """The :class:`understudy.monitor.pipeline.mode.Mode` that needs nothing but this machine."""

    def summary(self) -> dict[str, Any] | None:
        """Nothing is published."""
        return None

    def elsewhere(self) -> str:
        """Nobody else evaluates."""
        return ""

    async def run(self, plane: Plane, line: ControlLine) -> None:
        """Save and commit every ``records.save_every``."""
        while True:
            await asyncio.sleep(plane.settings.save_seconds)
            if plane.owns_run() and await plane.saver.save():
                plane.server.commit(plane.saver.saved)
                if isinstance(plane.feedback, LabelService):
                    await plane.feedback.tidy(plane.saver.saved_labels)

    async def stop(self) -> None:
        """The state was saved by who ran this."""
