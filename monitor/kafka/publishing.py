"""The evaluation plane where records are evaluated elsewhere: it decodes, and hands on to Kafka."""

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
from understudy.monitor.records.record import OK, ROLE_PRIMARY, Record
from understudy.monitor.routing.routes import Routes
from understudy.monitor.supervisor.control_line import ControlLine
from understudy.shadow.state import Config

log = logging.getLogger(__name__)

STOP_SECONDS = 4.0
"""How long Kafka may take for what is left when the service stops."""


class Publishing:
    """The :class:`understudy.monitor.pipeline.mode.Mode` that hands records on to Kafka."""

    def __init__(self, publisher: Publisher, settings: Settings) -> None:
        self.publisher = publisher
        self.steering: RouteFollower | None = None
        """None until :meth:`run` has begun."""
        self._settings = settings

    def summary(self) -> dict[str, Any] | None:
        """What is published, which routes are in force, and who evaluates."""
        reader = self.steering.reader if self.steering is not None else None
        return {
            **self.publisher.summary(),
            "evaluators": self.publisher.kafka.evaluators,
            "routes": {
                "epoch": reader.board.epoch if reader is not None else -1,
                "controller": reader.board.who if reader is not None else "",
                "caught_up": reader is not None and reader.caught_up,
                "error": reader.error if reader is not None else None,
            },
        }

    def elsewhere(self) -> str:
        """Where the evaluators are."""
        where = self.publisher.kafka.evaluators or "(kafka.evaluators would say where)"
        return f"records are evaluated by `understudy evaluate`: ask the evaluators {where}"

    async def run(self, workers: Workers, line: ControlLine) -> None:
        """Spool, publish and commit; take over the routes that evaluators decide on."""
        self.publisher.start()
        self.steering = RouteFollower(self.publisher.kafka, self._settings, line)
        self.steering.reader.start()
        await _publish(
            self.publisher, lambda: workers.commit(self.publisher.committed), workers.owns_run
        )

    async def stop(self) -> None:
        """Hand on what is left, as far as Kafka takes it."""
        if self.steering is not None:
            await asyncio.to_thread(self.steering.reader.stop)
        await self.publisher.stop(STOP_SECONDS)


class PublishingPipeline(Pipeline):
    """Takes records in for the publisher. Findings and experiments are matters of evaluators."""

    publisher: Config[Publisher]

    def __init__(self, settings: Settings, publisher: Publisher) -> None:
        super().__init__(settings)
        self.publisher = publisher

    def _hand_over(self, names: Names, records: Sequence[Record]) -> None:
        publisher = self.publisher
        if not publisher.decodes:
            for record in records:
                publisher.add_raw(names, record)
            return
        rows = list(self._decoded(names, records))
        for record, of_request, of_response in rows:
            if type(of_request) is Undecodable and record.role == ROLE_PRIMARY:
                self._count(names, record, "request", of_request)
            if type(of_response) is Undecodable and record.outcome == OK:
                self._count(names, record, "response", of_response)
        publisher.extend(names, rows, time.time())

    def flush(self) -> None:
        """Everything was handed on."""

    def _count(self, names: Names, record: Record, part: str, why: Undecodable) -> None:
        model, version, _ = names.model(record.model)
        self.undecodable[model, version, names.arm(record.arm), part, why.reason] += 1


class PublishingSaver:
    """What is saved is the spool. In the place of
    :class:`understudy.monitor.pipeline.state.Saver`."""

    def __init__(self, publisher: Publisher) -> None:
        self._publisher = publisher
        self.failures = 0
        self.saved_labels = 0

    @property
    def error(self) -> str | None:
        """Why the spool cannot be written."""
        return self._publisher.error

    @property
    def saved(self) -> dict[tuple[str, int], int]:
        """Last batch on disk, by (run, slot)."""
        return self._publisher.committed

    async def save(self) -> bool:
        """Have on disk what was taken in. False when that failed."""
        done = await self._publisher.flush()
        self.failures += not done
        return done


class PublishingFeedback:
    """Hands labels on to Kafka."""

    def __init__(self, publisher: Publisher) -> None:
        self.listeners: list[Callable[[Sequence[Label], float], None]] = []
        self._publisher = publisher

    def configure(self, horizon: float, max_bytes: int, max_rows: int) -> None:
        """Bounds are those of evaluators."""

    async def add(self, labels: Sequence[Label]) -> list[str]:
        """Keep labels. All of them wait: whether their predictions are there, evaluators know.

        Raises StateError, and none has been taken then.
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
        """Nothing is kept here."""

    def summary(self) -> dict[str, Any]:
        """How many were handed on."""
        return {"labels": {"orphan": self._publisher.labels}, "error": self._publisher.error}

    async def flush(self) -> bool:
        """Nothing waits in memory."""
        return True

    async def close(self) -> None:
        """The publisher is closed by who made it."""


class RouteFollower:
    """Takes over the routes that evaluators decide on: to disk first, then to the workers."""

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
        told = asyncio.run_coroutine_threadsafe(self._line.routes(), self._loop).result()
        if not told.ok:
            raise StateError(f"the workers did not get the new routes: {told.error}")
        log.info("routes of epoch %d are in force", self.reader.board.epoch)
        return True


async def _publish(
    publisher: Publisher, commit: Callable[[], None], owns: Callable[[], bool]
) -> None:
    """Flush again and again, and commit what is on disk."""
    trouble = ""
    while True:
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(publisher.early.wait(), publisher.kafka.linger)
        try:
            if owns() and await publisher.flush():
                commit()
            trouble = ""
        except Exception as error:
            # Once, not at each flush.
            if repr(error) != trouble:
                log.exception("records could not be handed on")
            trouble = repr(error)
