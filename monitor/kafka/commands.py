"""Calls from other threads, run by the consumer's thread between messages."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from understudy.monitor.errors import LostError

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Command:
    future: Future[Any]
    call: Callable[[], Any]
    reads: bool

    def run(self) -> None:
        if not self.future.set_running_or_notify_cancel():
            return  # the caller has cancelled it
        try:
            self.future.set_result(self.call())
        except Exception as error:
            self.future.set_exception(error)


class CommandQueue:
    """Runs calls in order. A call's result or exception is set on its future."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._waiting: deque[_Command] = deque()
        self._closed = False

    def submit(self, call: Callable[[], T], reads: bool = False) -> Future[T]:
        """Queue a call; from any thread. One that only ``reads`` may run while partitions are taken
        over. The future raises LostError if the consumer ends first."""
        future: Future[T] = Future()
        with self._lock:
            if not self._closed:
                self._waiting.append(_Command(future, call, reads))
                return future
        future.set_exception(LostError("the membership has ended"))
        return future

    def run(self, only_reading: bool = False) -> None:
        """Run the queued calls, or only those that read; on the consumer's thread. Never raises."""
        with self._lock:
            due = [one for one in self._waiting if one.reads or not only_reading]
            self._waiting = deque(one for one in self._waiting if only_reading and not one.reads)
        for command in due:
            command.run()

    def close(self) -> None:
        """The consumer ends: fail the queued calls, and all later ones, with LostError."""
        with self._lock:
            self._closed = True
            waiting, self._waiting = self._waiting, deque()
        for command in waiting:
            if command.future.set_running_or_notify_cancel():
                command.future.set_exception(LostError("the membership has ended"))
