"""Keeps a process in its consumer group: rejoins after every failure."""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable
from typing import Generic, TypeVar

from kafka.errors import KafkaError

from understudy.monitor.errors import UnderstudyError
from understudy.monitor.kafka.membership import Membership

log = logging.getLogger(__name__)

_LONGEST_PAUSE = 5.0
M = TypeVar("M", bound=Membership)


class RetryingConsumer(Generic[M]):
    """Runs in one thread. ``make`` joins the group; :attr:`member` is the current membership, which
    other threads read and change through ``member.commands``."""

    def __init__(self, make: Callable[[], M]) -> None:
        self.member: M | None = None
        self.failures = 0
        self.error: str | None = None
        """The current error."""
        self.ended_counts: Counter[str] = Counter()
        """Items processed by memberships that have ended, by kind."""
        self._make = make
        self._joined = False
        self._stop = threading.Event()

    def stop(self) -> None:
        """Commit, leave the group and end :meth:`run`; from any thread."""
        self._stop.set()

    def run(self, done: Callable[[M, int], bool] | None = None) -> None:
        """Run until :meth:`stop`, or until ``done(member, count)`` is true, where ``count`` is the
        number of messages of the last step."""
        pause = 0.25
        while not self._stop.is_set():
            try:
                self._serve(done)
                pause = 0.25
            except Exception as error:
                if self._stop.is_set():
                    log.warning(
                        "stopped without a commit; the next start resumes from the last one: %s",
                        error,
                    )
                    return
                if not isinstance(error, (KafkaError, UnderstudyError, OSError)):
                    log.exception("unexpected error in the consumer")
                self._report(error)
                self._stop.wait(pause)
                pause = min(2.0 * pause, _LONGEST_PAUSE)

    def _serve(self, done: Callable[[M, int], bool] | None) -> None:
        member: M | None = None
        try:
            member = self.member = self._make()
            member.ending = self._stop
            self._joined = True
            while not self._stop.is_set():
                commits = member.commits
                count = member.step()
                if self.error is not None and (member.commits > commits or member.idle):
                    log.warning("recovered")
                    self.error = None
                if done is not None and done(member, count):
                    self._stop.set()
            member.leave()
        finally:
            self.member = None
            if member is not None:
                self.ended_counts += member.counts()
                member.abandon()

    def _report(self, error: BaseException) -> None:
        self.failures += 1
        text = str(error) or repr(error)
        what = "restarting from the last commit" if self._joined else "waiting to join the group"
        log.warning("%s: %s", what, text)
        self.error = text

    def counts(self) -> Counter[str]:
        """Number of items processed since the start, by kind."""
        member = self.member
        return self.ended_counts + (member.counts() if member is not None else Counter())
