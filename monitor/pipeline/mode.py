"""Where records are evaluated: in this process, or by others who read them from Kafka.

The evaluation plane is the same in both modes but for what a :class:`Mode` does. The embedded one
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
    """What a mode needs to know of the workers, whose records it takes in."""

    def owns_run(self) -> bool:
        """False when another service has taken over the directories."""

    def commit(self, saved: Mapping[tuple[str, int], int]) -> None:
        """Tell the workers which of their batches are durable: the last one by (run, slot)."""


class Mode(Protocol):
    """What differs between evaluating records and publishing them."""

    def summary(self) -> dict[str, Any] | None:
        """What is published and who evaluates it, for the status; None if this process does."""

    def elsewhere(self) -> str:
        """A sentence that names who to ask for findings and experiments; empty if this process."""

    async def run(self, workers: Workers, line: ControlLine) -> None:
        """Make what was taken in durable and commit it to the workers, until cancelled."""

    async def stop(self) -> None:
        """Hand on what is left; called once, after :meth:`run` was cancelled."""


class StateSaver(Protocol):
    """Makes durable what was taken in."""

    failures: int
    saved_labels: int

    @property
    def error(self) -> str | None:
        """Why the last attempt failed; None when all is well."""

    @property
    def saved(self) -> dict[tuple[str, int], int]:
        """The last batch that is durable, by (run, slot)."""

    async def save(self) -> bool:
        """Make durable what was taken in. False when that failed."""


class LabelIntake(Protocol):
    """Takes labels and rewards that clients post."""

    listeners: list[Callable[[Sequence[Label], float], None]]

    def configure(self, horizon: float, max_bytes: int, max_rows: int) -> None:
        """Change the limits: seconds, bytes, rows."""

    async def add(self, labels: Sequence[Label]) -> list[str]:
        """Keep labels; what became of each. Raises StateError, and none has been taken then."""

    async def take(self, after: int) -> list[Joined]:
        """Labels that were joined to predictions here, with a number above ``after``. Raises
        StateError."""

    async def tidy(self, saved_seq: int) -> None:
        """Forget the joined labels up to a number, which are part of a saved state."""

    def summary(self) -> dict[str, Any]:
        """Counts for the status."""

    async def flush(self) -> bool:
        """Have on disk what waits in memory. False when that failed."""

    async def close(self) -> None:
        """Stop; what was taken is on disk."""
