"""The saved state: one JSON file, versioned, replaced as a whole.

It holds the last batch of each worker slot, and the accumulators after exactly those batches. It
does not hold payloads, traces, or anything that is in the workers' shared statistics.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import orjson

from understudy.common.durable import read_document, replace_document
from understudy.monitor.errors import StateError
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.records.slots import Slots

log = logging.getLogger(__name__)

VERSION = 2
FILE_NAME = "evaluation.json"


def capture(slots: Slots, pipeline: Pipeline) -> dict[str, Any]:
    """The state as plain data. Call it between batches: both parts must match."""
    return {"version": VERSION, "slots": slots.dump_state(), "pipeline": pipeline.dump_state()}


def write(path: Path, state: dict[str, Any]) -> None:
    """Replace the file. Raises OSError."""
    replace_document(path, orjson.dumps(state))


def restore(path: Path, run: str, pipeline: Pipeline) -> Slots:
    """Load the file into ``pipeline`` and return the slots of ``run``.

    Without a file the state is empty. Raises StateError when the file cannot be used.
    """
    try:
        data = read_document(path)
    except FileNotFoundError:
        return Slots()
    except ValueError as error:
        raise StateError(f"{path}: not a saved state: {error}") from error
    except OSError as error:
        raise StateError(f"{path}: {error}") from error
    try:
        state = orjson.loads(data)
        version = state["version"]
        parts = state["pipeline"], state["slots"]
    except (orjson.JSONDecodeError, KeyError, TypeError) as error:
        raise StateError(f"{path}: not a saved state: {error!r}") from error
    if version != VERSION:
        raise StateError(f"{path}: version {version!r}, this program reads version {VERSION}")
    try:
        slots = Slots.from_state(parts[1], run)
        pipeline.load_state(parts[0])
    except StateError:
        raise
    except Exception as error:  # whatever the file holds
        raise StateError(f"{path}: not a saved state: {error!r}") from error
    return slots


class Saver:
    """Saves the state to ``path`` if it changed, and tells which batches are durable.

    ``before_write`` writes to disk what belongs to the state but is in other files; it returns
    False when that failed. When either fails nothing is committed: workers keep their batches, as
    far as they have room, and evaluation continues. ``failures`` counts failed attempts; ``error``
    is the current error.
    """

    def __init__(
        self,
        path: Path,
        slots: Slots,
        pipeline: Pipeline,
        before_write: Callable[[], Awaitable[bool]] | None = None,
    ) -> None:
        self.path = path
        self._before_write = before_write
        self.slots = slots
        self.pipeline = pipeline
        self.failures = 0
        self.error: str | None = None
        self.saved: dict[tuple[str, int], int] = {}
        """Number of the last batch in the saved file, by (run, slot)."""
        self.saved_labels = 0
        """Number of the last joined label in the saved file."""
        self._saved_version: tuple[int, ...] | None = None
        self._lock = asyncio.Lock()

    async def save(self) -> bool:
        """Save now if something changed. False when it failed."""
        async with self._lock:
            last = {key: slot.last_seq for key, slot in self.slots}
            labels = self.pipeline.labels
            version = self.pipeline.version
            if (last, labels, version) == (self.saved, self.saved_labels, self._saved_version):
                return True
            state = capture(self.slots, self.pipeline)
            if self._before_write is not None and not await self._before_write():
                self.failures += 1
                return False
            try:
                await asyncio.to_thread(self._write, state)
            except OSError as error:
                self.failures += 1
                if self.error is None:
                    log.error(
                        "%s: state cannot be saved: %s; evaluation continues", self.path, error
                    )
                self.error = f"{self.path}: {error}"
                return False
            if self.error is not None:
                log.warning("%s: recovered, state is saved", self.path)
                self.error = None
            self.saved = last
            self.saved_labels = state["pipeline"]["labels"]
            self._saved_version = version
            return True

    def _write(self, state: dict[str, Any]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        write(self.path, state)
