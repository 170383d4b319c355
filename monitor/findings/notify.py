"""Tells the channels of findings, in tasks of its own: nothing else waits for a receiver."""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

from understudy.monitor.config.extensions import CHANNELS, implementation
from understudy.monitor.config.notify import Notification, missing_variables
from understudy.monitor.config.runbooks import PUBLIC
from understudy.monitor.findings.channels.base import Channel, Source

log = logging.getLogger(__name__)

BEAT_SECONDS = 1.0


class Notifier:
    """All channels of the configuration.

    ``clock`` is unix time. Runs in :meth:`run`; the rest may be called at any time from the same
    event loop.
    """

    def __init__(
        self,
        configs: Sequence[Notification],
        source: Source,
        clock: Callable[[], float] = time.time,
        chance: random.Random | None = None,
        runbooks: str = PUBLIC,
    ) -> None:
        self.source = source
        self.runbooks = runbooks
        """URL of the pages about alerts."""
        self.channels: dict[str, Channel] = {}
        self._clock = clock
        self._chance = chance or random.Random()  # noqa: S311  # spreads retries
        self._busy: dict[str, asyncio.Task[None]] = {}
        self._wake = asyncio.Event()
        self.configure(configs, runbooks)

    def configure(self, configs: Sequence[Notification], runbooks: str = PUBLIC) -> None:
        """Go on with other channels; one of the same name and kind knows what was told. Messages
        link to the pages at the URL ``runbooks``."""
        before = self.channels
        self.runbooks = runbooks
        self.channels = {}
        for config in configs:
            old = before.get(config.label)
            if old is not None and old.config == config:
                self.channels[config.label] = old
                continue
            kind: type[Channel] = implementation(CHANNELS[config.kind].code)
            channel = kind(config, self._chance)
            if old is not None and type(old) is type(channel):
                channel.load_state(old.dump_state())
            self.channels[config.label] = channel
        for channel in self.channels.values():
            channel.runbooks = runbooks
        for path, problem in missing_variables(configs):
            log.warning("%s: %s: findings cannot be sent there", path, problem)
        self.wake()

    def wake(self) -> None:
        """Something has changed: look at once."""
        self._wake.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        try:
            while True:
                for channel in list(self.channels.values()):
                    if channel.name not in self._busy:
                        task = asyncio.create_task(self._serve(channel))
                        self._busy[channel.name] = task
                        task.add_done_callback(partial(self._done, channel.name))
                self._wake.clear()
                try:
                    async with asyncio.timeout(BEAT_SECONDS):
                        await self._wake.wait()
                except TimeoutError:
                    pass
        finally:
            for task in self._busy.values():
                task.cancel()

    def _done(self, name: str, _: asyncio.Task[None]) -> None:
        del self._busy[name]

    async def flush(self) -> None:
        """Send what is due and can be sent now; only when :meth:`run` does not run."""
        await asyncio.gather(*(self._serve(channel) for channel in self.channels.values()))

    async def _serve(self, channel: Channel) -> None:
        """Until nothing is due, or it has to wait."""
        try:
            while await channel.step(self.source, self._clock()):
                pass
        except Exception:
            # One channel's fault costs nobody else anything, nor the log its readability.
            channel.backoff.failed(self._clock(), 60.0)
            log.exception("notify: %s: a message could not be made", channel.name)

    def pending(self) -> dict[str, int]:
        """How many findings have something to tell that has not been told, by channel."""
        now = self._clock()
        return {n: channel.pending(self.source, now) for n, channel in self.channels.items()}

    def summary(self) -> list[dict[str, Any]]:
        """How the channels are, for the console. No address is shown: it may be a secret."""
        pending = self.pending()
        return [
            {
                "name": name,
                "kind": channel.config.kind,
                "pending": pending[name],
                "outcomes": dict(channel.outcomes),
                "error": channel.error,
            }
            for name, channel in self.channels.items()
        ]

    def dump_state(self) -> dict[str, Any]:
        """JSON-able: what each channel has told."""
        return {
            name: {"kind": channel.config.kind, **channel.dump_state()}
            for name, channel in self.channels.items()
        }

    def load_state(self, data: Mapping[str, Any]) -> None:
        """Undo :meth:`dump_state`, as far as that can be used: at worst something is told twice."""
        for name, channel in self.channels.items():
            known = data.get(name)
            if isinstance(known, Mapping) and known.get("kind") == channel.config.kind:
                channel.load_state(known)
