"""Keeps a process in a group, whatever happens to brokers, to others and to itself."""

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
    """Runs in one thread; :attr:`member` is who it is at present. Other threads look at it, and
    change it, through ``member.commands``. ``make`` joins the group."""

    def __init__(self, make: Callable[[], M]) -> None:
        self.member: M | None = None
        self.failures = 0
        self.error: str | None = None
        """Present trouble."""
        self.read: Counter[str] = Counter()
        """What members that are no more had taken, by sort."""
        self._make = make
        self._joined = False
        self._stop = threading.Event()

    def stop(self) -> None:
        """Finish, commit and leave; from any thread."""
        self._stop.set()

    def run(self, done: Callable[[M, int], bool] | None = None) -> None:
        """Go on until :meth:`stop`, or until ``done`` says so of the member and of how many
        messages there were last."""
        pause = 0.25
        while not self._stop.is_set():
            try:
                self._serve(done)
                pause = 0.25
            except Exception as error:
                if self._stop.is_set():
                    log.warning(
                        "ends without a commit, and who goes on begins where it did: %s", error
                    )
                    return
                if not isinstance(error, (KafkaError, UnderstudyError, OSError)):
                    log.exception("a fault of ours")
                self._trouble(error)
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
                    log.warning("goes on")
                    self.error = None
                if done is not None and done(member, count):
                    self._stop.set()
            member.leave()
        finally:
            self.member = None
            if member is not None:
                self.read += member.taken()
                member.abandon()

    def _trouble(self, error: BaseException) -> None:
        self.failures += 1
        text = str(error) or repr(error)
        what = "begins anew from what is committed" if self._joined else "waits until it can join"
        log.warning("%s: %s", what, text)
        self.error = text

    def taken(self) -> Counter[str]:
        """What was taken since the start, by sort."""
        member = self.member
        return self.read + (member.taken() if member is not None else Counter())
