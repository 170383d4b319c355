"""Keeps an evaluator in its group, whatever happens to brokers, to others and to itself."""

from __future__ import annotations

import logging
import threading
import time
from typing import Any

from kafka import KafkaConsumer
from kafka.errors import KafkaError

from monitor.config.model import Config
from monitor.errors import KafkaTroubleError, UnderstudyError
from monitor.evaluator.member import Member
from monitor.evaluator.places import places
from monitor.evaluator.topics import Options

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 5.0


def partitions_there(options: Options, patience: float = 15.0) -> dict[str, int]:
    """Number of partitions of each topic that an evaluator needs.

    Raises KafkaTroubleError when no broker answers within ``patience`` seconds, or when topics are
    missing.
    """
    addresses = ", ".join(options.kafka.bootstrap)
    try:
        client = {**options.client(), "bootstrap_timeout_ms": int(patience * 1000)}
        consumer = KafkaConsumer(**client, enable_auto_commit=False)
    except (KafkaError, OSError, ValueError) as error:
        raise KafkaTroubleError(
            f"Kafka cannot be reached at {addresses}: {error}; see kafka.bootstrap"
        ) from error
    topics = options.topics
    needed = (topics.records, topics.labels, topics.evidence, topics.state, topics.dead)
    try:
        there = consumer.topics()
        found = {t: len(consumer.partitions_for_topic(t) or ()) for t in needed if t in there}
    except (KafkaError, OSError) as error:
        raise KafkaTroubleError(f"Kafka at {addresses} does not answer: {error}") from error
    finally:
        consumer.close(timeout_ms=1000)
    missing = [topic for topic in needed if not found.get(topic)]
    if missing:
        raise KafkaTroubleError(
            f"topics are missing: {', '.join(missing)}; `understudy kafka init` creates them"
        )
    if found[topics.records] != found[topics.labels]:
        raise KafkaTroubleError(
            f"{topics.records} and {topics.labels} must have the same number of partitions, not "
            f"{found[topics.records]} and {found[topics.labels]}"
        )
    return found


class Evaluator:
    """Runs in one thread; :attr:`member` is who it is at present, for those who show it. They hold
    ``member.lock`` while they look."""

    def __init__(self, config: Config, options: Options) -> None:
        self.config = config
        self.options = options
        self.member: Member | None = None
        self.failures = 0
        self.error: str | None = None
        """Present trouble."""
        self.records = 0
        """Taken by members that are no more."""
        self._stop = threading.Event()
        self._partitions: dict[str, int] = {}

    def check(self, patience: float = 15.0) -> None:
        """Raises KafkaTroubleError for a cluster that cannot be used."""
        self._partitions = partitions_there(self.options, patience)

    def stop(self) -> None:
        """Finish, commit and leave; from any thread."""
        self._stop.set()

    def run(self) -> None:
        """Evaluate until :meth:`stop`."""
        pause = 0.25
        while not self._stop.is_set():
            try:
                self._serve()
                pause = 0.25
            except Exception as error:
                if not isinstance(error, (KafkaError, UnderstudyError, OSError)):
                    log.exception("a fault of ours")
                self._trouble(error)
                self._stop.wait(pause)
                pause = min(2.0 * pause, _LONGEST_PAUSE)

    def _serve(self) -> None:
        if not self._partitions:
            self.check()
        member: Member | None = None
        try:
            member = self.member = Member(self.config, self.options, self._partitions)
            while not self._stop.is_set():
                commits = member.commits
                member.step()
                if member.commits > commits and self.error is not None:
                    log.warning("goes on")
                    self.error = None
            member.leave()
        finally:
            self.member = None
            if member is not None:
                self.records += member.records
                member.abandon()

    def _trouble(self, error: BaseException) -> None:
        self.failures += 1
        text = str(error) or repr(error)
        log.warning("begins anew from what is committed: %s", text)
        self.error = text

    def wait(self, seconds: float) -> None:
        """Until it is over or ``seconds`` have passed."""
        end = time.monotonic() + seconds
        while self.member is not None and time.monotonic() < end:
            time.sleep(0.05)


def status(evaluator: Evaluator) -> dict[str, Any]:
    """What it owns, how far it is and what was wrong, as JSON."""
    member = evaluator.member
    found: dict[str, Any] = {
        "instance": evaluator.options.instance,
        "group": evaluator.options.group,
        "failures": evaluator.failures,
        "error": evaluator.error,
        "records": evaluator.records,
        "partitions": [],
        "judges": [],
    }
    if member is None:
        return found
    with member.lock:
        found["records"] += member.records
        found["commits"] = member.commits
        found["dead"] = dict(member.dead)
        found["lag"] = member.lag()
        found["judged_at"] = {str(place): member.owner(place) for place in places(member.evidence)}
        found["partitions"] = [
            {
                "partition": number,
                "records": one.records,
                "labels": one.labels,
                "complete": one.complete,
                "duplicates": one.sources.duplicates,
                "missing": one.sources.missing,
                "sources": len(one.sources.by_run),
            }
            for number, one in sorted(member.inputs.items())
        ]
        found["judges"] = [
            {
                "place": number,
                "models": [model.name for model in one.config.models],
                "experiments": [declared.name for declared in one.config.experiments],
                "judged": one.now or None,
                "rows": one.rows,
                "late": one.late,
                "waiting": one.waiting,
            }
            for number, one in sorted(member.judges.items())
        ]
    return found
