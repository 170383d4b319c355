"""The evaluation plane with ``evaluation: kafka``: it decodes records and publishes them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import time
from collections.abc import Callable, Sequence
from typing import Any

from understudy.monitor.config.kafka import Kafka
from understudy.monitor.errors import StateError
from understudy.monitor.evidence.decoding import Undecodable
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.kafka.publisher import Publisher
from understudy.monitor.kafka.routes import RouteReader
from understudy.monitor.labels.label import Label
from understudy.monitor.labels.store import Joined
from understudy.monitor.pipeline.mode import Workers
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import OK, OPEN, ROLE_PRIMARY, Record
from understudy.monitor.routing.routes import Routes
from understudy.monitor.supervisor.control_line import ControlLine
from understudy.shadow.state import Config

log = logging.getLogger(__name__)

STOP_SECONDS = 4.0
"""How long publishing the remaining records may take when the service stops."""


class Publishing:
    """The :class:`understudy.monitor.pipeline.mode.Mode` that publishes records to Kafka."""

    def __init__(self, publisher: Publisher, settings: Settings) -> None:
        self.publisher = publisher
        self.steering: RouteFollower | None = None
        """None until :meth:`run` has started."""
        self._settings = settings

    def summary(self) -> dict[str, Any] | None:
        """For the status: what is published, the active routes, and the evaluators' address."""
        reader = self.steering.reader if self.steering is not None else None
        return {
            **self.publisher.summary(),
            "evaluators": self.publisher.kafka.evaluators,
            "routes": {
                "epoch": reader.table.epoch if reader is not None else -1,
                "controller": reader.table.who if reader is not None else "",
                "caught_up": reader is not None and reader.caught_up,
                "error": reader.error if reader is not None else None,
            },
        }

    def evaluator_hint(self) -> str:
        """Names the evaluators, for requests that this service cannot answer."""
        where = self.publisher.kafka.evaluators
        at = f"at {where}" if where else "(set kafka.evaluators to show their address here)"
        return f"records are evaluated by `understudy evaluate`: ask the evaluators {at}"

    async def run(self, workers: Workers, line: ControlLine) -> None:
        """Spool, publish and commit; apply the routes that evaluators publish."""
        self.publisher.start()
        self.steering = RouteFollower(self.publisher.kafka, self._settings, line)
        self.steering.reader.start()
        await _publish(
            self.publisher, lambda: workers.commit(self.publisher.committed), workers.owns_run
        )

    async def stop(self) -> None:
        """Publish what is left, for up to :data:`STOP_SECONDS`."""
        if self.steering is not None:
            await asyncio.to_thread(self.steering.reader.stop)
        await self.publisher.stop(STOP_SECONDS)


class PublishingPipeline(Pipeline):
    """Passes records to the publisher; evaluators compute findings and experiments."""

    publisher: Config[Publisher]

    def __init__(self, settings: Settings, publisher: Publisher) -> None:
        super().__init__(settings)
        self.publisher = publisher

    def _take_records(self, names: Names, records: Sequence[Record]) -> None:
        publisher = self.publisher
        if not publisher.decodes:
            for record in records:
                publisher.add_raw(names, record)
            return
        rows = list(self._decoded(names, records))
        for record, of_request, of_response in rows:
            if record.outcome == OPEN:
                continue
            if type(of_request) is Undecodable and record.role == ROLE_PRIMARY:
                self._count(names, record, "request", of_request)
            if type(of_response) is Undecodable and record.outcome == OK:
                self._count(names, record, "response", of_response)
        publisher.extend(names, rows, time.time())

    def flush(self) -> None:
        """Nothing waits: records are passed on as they arrive."""


class PublishingSaver:
    """Saves the spool; takes the place of :class:`understudy.monitor.pipeline.state.Saver`."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self.failures = 0
        self.saved_labels = 0

    @property
    def error(self) -> str | None:
        """Why the spool cannot be written; None if it can."""
        return self._publisher.error

    @property
    def saved(self) -> dict[tuple[str, int], int]:
        """Number of the last batch on disk, by (run, slot)."""
        return self._publisher.committed

    async def save(self) -> bool:
        """Write all received records to disk. False when that failed."""
        done = await self._publisher.flush()
        self.failures += not done
        return done


class PublishingFeedback:
    """Publishes labels to Kafka."""

    def __init__(self, publisher: Publisher) -> None:
        self.listeners: list[Callable[[Sequence[Label], float], None]] = []
        self._publisher = publisher

    def configure(self, horizon: float, max_bytes: int, max_rows: int, settle: float = 0.0) -> None:
        """No limits here: evaluators apply them."""

    async def add(self, labels: Sequence[Label]) -> list[str]:
        """Publish labels. All count as ``orphan``: only evaluators know their predictions.

        Raises StateError if the spool cannot be written; no label has been accepted then.
        """
        await self._publisher.add_labels(labels)
        now = time.time()
        for listener in self.listeners:
            listener(labels, now)
        return ["orphan"] * len(labels)

    async def take(self, after: int) -> list[Joined]:
        """Evaluators join labels to predictions."""
        return []

    async def tidy(self, saved_seq: int) -> None:
        """Nothing to delete."""

    def summary(self) -> dict[str, Any]:
        """Number of labels published."""
        return {"labels": {"orphan": self._publisher.labels}, "error": self._publisher.error}

    async def flush(self) -> bool:
        """Nothing waits in memory."""
        return True

    async def close(self) -> None:
        """Nothing to close: the mode closes the publisher."""


class RouteFollower:
    """Applies the routes that evaluators publish: to disk first, then to the workers."""

    def __init__(self, kafka: Kafka, settings: Settings, line: ControlLine) -> None:
        self._settings = settings
        self._line = line
        self._loop = asyncio.get_running_loop()
        self.reader = RouteReader(kafka, self._apply)

    def _apply(self, routes: Routes) -> bool:
        """On the reader's thread."""
        try:
            routes.save(self._settings.state_dir)
        except OSError as error:
            raise StateError(f"{self._settings.state_dir}: {error}") from error
        reloaded = asyncio.run_coroutine_threadsafe(self._line.routes(), self._loop).result()
        if not reloaded.ok:
            raise StateError(f"the workers did not get the new routes: {reloaded.error}")
        log.info("routes of epoch %d are active", self.reader.table.epoch)
        return True


async def _publish(
    publisher: Publisher, commit: Callable[[], None], owns: Callable[[], bool]
) -> None:
    """Flush repeatedly, and commit what is on disk."""
    last_error = ""
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(publisher.early.wait(), publisher.kafka.linger)
        try:
            if owns() and await publisher.flush():
                commit()
            last_error = ""
        except Exception as error:
            # Once, not at each flush.
            if repr(error) != last_error:
                log.exception("records could not be published")
            last_error = repr(error)
