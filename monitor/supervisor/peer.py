"""A process that the supervisor looks after, and the control line of JSON between them.

The supervisor sends commands, the other process sends events; when one end closes, that process has
ended.
"""

from __future__ import annotations

import asyncio
import json
import logging
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

from understudy.monitor.supervisor.limits import Limits

log = logging.getLogger(__name__)

OnEvent = Callable[["Peer", dict[str, Any]], None]

LONGEST_LINE = 1 << 20
HUNG, MEMORY = "hung", "memory"
"""Reasons to kill a child."""


class Peer(ABC):
    """The other end of a control line: a child, or a process in another container.

    ``limits`` may be replaced; priority and memory are those of the next start then.
    """

    def __init__(
        self, name: str, on_event: OnEvent, on_change: Callable[[], None], limits: Limits
    ) -> None:
        self.name = name
        self.restarts = 0
        self.ready = False
        self.responsive = True
        """False once it has been silent for :data:`SUSPECT_SECONDS`."""
        self.killed = {HUNG: 0, MEMORY: 0}
        """How often it was killed, by reason."""
        self.last_kill: dict[str, Any] | None = None
        """When it was killed the last time (``at``, unix time), and why (``text``)."""
        self.limits = limits
        self._on_event = on_event
        self._on_change = on_change
        self._writer: asyncio.StreamWriter | None = None

    @property
    def works(self) -> bool:
        """Whether it is ready and responds."""
        return self.ready and self.responsive

    def tell(self, message: dict[str, Any]) -> None:
        """Send a command; no effect while the peer is down (it starts with the newest files)."""
        if self._writer is not None and not self._writer.is_closing():
            self._writer.write(json.dumps(message).encode() + b"\n")

    @abstractmethod
    def check(self, elapsed: float) -> None:
        """Look whether it hangs or takes too much memory, ``elapsed`` seconds after the last time,
        and have it replaced then."""

    @abstractmethod
    async def stop(self, patience: float) -> None:
        """Drain and end it within ``patience`` seconds."""

    @abstractmethod
    def kill(self) -> None:
        """End it at once."""

    async def _listen(self, reader: asyncio.StreamReader) -> None:
        """Handle events until the line ends. Raises ValueError when it breaks the protocol."""
        while text := await reader.readline():
            event = json.loads(text)
            if not isinstance(event, dict):
                raise ValueError(f"{text[:80]!r} is not an event")
            if event.get("event") == "ready":
                self.ready = True
            try:
                self._on_event(self, event)
            except Exception:  # an internal error must not end a working peer
                log.exception("%s: %s could not be handled", self.name, event)
