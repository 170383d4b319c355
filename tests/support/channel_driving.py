"""Channels that are driven step by step, and what reached the receiver."""

from __future__ import annotations

import asyncio
from typing import Any

from tests.support.webhook_receiver import Receiver
from understudy.monitor.config.notify import Notification
from understudy.monitor.findings.channels.base import Channel
from understudy.monitor.findings.ledger import Findings

START = 1_790_000_000.0


def config(there: Receiver | None = None, kind: str = "webhook", **more: Any) -> Notification:
    url = {"url": there.url + "/hook"} if there is not None else {}
    return Notification.model_validate({"kind": kind, **url, **more})


def drive(channel: Channel, findings: Findings, now: float) -> int:
    """Send all that is due; how many steps did something."""

    async def run() -> int:
        steps = 0
        while await channel.step(findings, now):
            steps += 1
        return steps

    return asyncio.run(run())


def events(there: Receiver) -> list[str]:
    return [request.json["event"] for request in there.requests]
