"""Notification channels: whether their receivers can be reached, and accept the credentials."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace

from understudy.monitor.config.extensions import CHANNELS, implementation
from understudy.monitor.config.model import Config
from understudy.monitor.config.notify import Notification, missing_variables
from understudy.monitor.doctor.check import Check, fault, ok, skipped, warning
from understudy.monitor.errors import DeliveryError, UnknownFindingError
from understudy.monitor.findings.channels.base import Channel
from understudy.monitor.findings.finding import Finding, Signal
from understudy.monitor.findings.incident import Incident, incidents_of
from understudy.monitor.findings.post import Reply

_REJECTED = (401, 403, 407)
_TITLE = "Test message of `understudy doctor`: nothing is wrong"


def channels(config: Config, send_test: bool) -> Iterator[Check]:
    """Check every channel: by a request that shows no message, or with ``send_test`` by a test
    message, which opens and closes like a finding."""
    unset = {one for one, _ in missing_variables(config.notify)}
    for number, notification in enumerate(config.notify):
        subject = f"channel {notification.label}"
        path = f"notify[{number}]"
        if any(one.startswith(f"{path}.") for one in unset):
            yield skipped(subject, "an environment variable that it needs is not set")
            continue
        kind: type[Channel] = implementation(CHANNELS[notification.kind].code)
        channel = kind(notification)
        channel.runbooks = config.runbooks.url
        if send_test:
            yield asyncio.run(_tested(subject, channel, path, config.models[0].name))
        else:
            yield asyncio.run(_probed(subject, channel, path))


async def _probed(subject: str, channel: Channel, path: str) -> Check:
    try:
        reply = await channel.send_probe()
    except DeliveryError as error:
        return fault(
            subject, str(error), f"start the receiver, or correct {_address(channel, path)}"
        )
    answer = f"it answers {channel.probe.method} with {_answer(reply)}"
    if reply.status in _REJECTED:
        return fault(subject, f"{answer}: it rejects the credentials", _credentials(channel, path))
    if 300 <= reply.status < 400:
        return fault(
            subject,
            f"{answer}: redirects are not followed",
            f"give {_address(channel, path)} as it is after the redirect",
        )
    if channel.probe.accepts is not None:
        if channel.probe.accepts(reply):
            return ok(subject, "it can be reached, and accepts messages at this address")
        return fault(subject, answer, f"correct {_address(channel, path)}")
    if reply.status >= 500 and reply.status != 501:
        return warning(subject, answer, "look at the log of the receiver")
    return ok(subject, "it can be reached; --send-test shows whether it accepts messages")


async def _tested(subject: str, channel: Channel, path: str, model: str) -> Check:
    """Send a finding that opens, and that it has closed, as the service would."""
    log = logging.getLogger("understudy.monitor.findings.channels.base")
    log.disabled = True  # what it would say is in the check
    now = time.time()
    finding = _finding(channel.config, model, now)
    for closes in (False, True):
        if closes:
            # A receiver that limits the rate, and one that compares times, want some in between.
            await asyncio.sleep(channel.spacing_seconds + 0.1)
            now = time.time()
            finding = replace(
                finding, closed=now, changed=now, revision=2, event="closed", reason="end of test"
            )
        await channel.step(_OneFinding(finding), now)
        if channel.error is not None:
            rejected = any(f"answered {status}" in channel.error for status in _REJECTED)
            fix = _credentials(channel, path) if rejected else f"correct {_address(channel, path)}"
            return fault(subject, f"a test message was not accepted: {channel.error}", fix)
    return ok(subject, f"a test message was accepted: {_TITLE!r}, opened and closed")


class _OneFinding:
    """A ledger of one finding."""

    def __init__(self, finding: Finding) -> None:
        self._finding = finding

    def open(self) -> list[Finding]:
        return [self._finding] if self._finding.open else []

    def incidents(self) -> list[Incident]:
        return incidents_of(self.open())

    def incident(self, id_: str) -> Incident:
        found: Sequence[Incident] = incidents_of([self._finding])
        if id_ != found[0].id:
            raise UnknownFindingError(f"incident {id_!r} does not exist")
        return found[0]


def _finding(config: Notification, model: str, now: float) -> Finding:
    signal = Signal(
        key="doctor/test",
        kind="other",
        model=model,
        version="",
        segment="",
        severity=config.severity,
        title=_TITLE,
        advice="Nothing is to be done.",
    )
    id_ = f"doctor-{int(now)}-{os.getpid()}"
    return Finding(id_, "doctor", signal, signal, opened=now, seen=now, changed=now)


def _address(channel: Channel, path: str) -> str:
    """Where the address is; not the address itself, which may be a secret."""
    variable = channel.config.url_env
    return f"the environment variable {variable}" if variable else f"`{path}.url`"


def _credentials(channel: Channel, path: str) -> str:
    config = channel.config
    where = _address(channel, path)
    if config.token_env:
        return f"correct the token in the environment variable {config.token_env}"
    if "token_env" not in CHANNELS[config.kind].settings:
        return f"correct {where}"
    return f"correct {where}, or name the variable with the receiver's token in `{path}.token_env`"


def _answer(reply: Reply) -> str:
    return f"status {reply.status}" + (f": {reply.text}" if reply.text else "")
