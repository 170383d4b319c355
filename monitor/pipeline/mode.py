"""Where records are evaluated: in this process, or by evaluators that read them from Kafka.

A :class:`Mode` is all that differs between the two. The embedded one
is :class:`understudy.monitor.pipeline.embedded.Embedded`, the publishing one
:class:`understudy.monitor.kafka.publishing.Publishing`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from understudy.monitor.labels.label import Label
from understudy.monitor.labels.store import Joined
from understudy.monitor.supervisor.control_line import ControlLine


class Workers(Protocol):
    """What a mode needs of the workers whose records it receives."""

    def owns_run(self) -> bool:
        """False when another service has taken over the directories."""

    def commit(self, saved: Mapping[tuple[str, int], int]) -> None:
        """Tell the workers the number of the last durable batch, by (run, slot)."""


class Mode(Protocol):
    """What differs between evaluating records and publishing them."""

    def summary(self) -> dict[str, Any] | None:
        """For the status: what is published and who evaluates it; None if this process does."""

    def evaluator_hint(self) -> str:
        """A sentence that names the evaluators, for 404 responses; empty if embedded."""

    async def run(self, workers: Workers, line: ControlLine) -> None:
        """Make received records durable and commit them to the workers, until cancelled."""

    async def stop(self) -> None:
        """Publish what is left; called once, after :meth:`run` was cancelled."""


class StateSaver(Protocol):
    """Makes received records durable."""

    failures: int
    saved_labels: int

    @property
    def error(self) -> str | None:
        """Why the last attempt failed; None if it succeeded."""

    @property
    def saved(self) -> dict[tuple[str, int], int]:
        """Number of the last durable batch, by (run, slot)."""

    async def save(self) -> bool:
        """Make received records durable. False when that failed."""


class LabelIntake(Protocol):
    """Accepts labels and rewards that clients post."""

    listeners: list[Callable[[Sequence[Label], float], None]]

    def configure(self, horizon: float, max_bytes: int, max_rows: int, settle: float = 0.0) -> None:
        """Change the limits: ``horizon`` in seconds, size of the store in bytes and in rows, and
        the time in seconds for which labels may be corrected before they count."""

    async def add(self, labels: Sequence[Label]) -> list[str]:
        """Store labels; the outcome of each. Raises StateError; then none was accepted."""

    async def take(self, after: int) -> list[Joined]:
        """Labels that were joined to their predictions, with a number above ``after``. Raises
        StateError."""

    async def tidy(self, saved_seq: int) -> None:
        """Delete joined labels up to number ``saved_seq``: the saved state includes them."""

    def summary(self) -> dict[str, Any]:
        """Counts for the status."""

    async def flush(self) -> bool:
        """Write to disk what waits in memory. False when that failed."""

    async def close(self) -> None:
        """Stop; all accepted labels are on disk."""
