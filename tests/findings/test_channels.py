"""Webhooks against a real receiver: content, timing, single delivery, and retries."""

from __future__ import annotations

import asyncio
import json
import random
from dataclasses import replace
from typing import Any

import pytest

from tests.support.channel_driving import START, config, drive, events
from tests.support.patience import eventually, patient
from tests.support.signals import signal
from tests.support.webhook_receiver import Receiver, receiver
from understudy.monitor.config.notify import Notification
from understudy.monitor.findings.backoff import Backoff
from understudy.monitor.findings.channels import base
from understudy.monitor.findings.channels.webhook import Webhook
from understudy.monitor.findings.finding import Contribution
from understudy.monitor.findings.ledger import Findings
from understudy.monitor.findings.limits import Limits
from understudy.monitor.findings.notify import Notifier


def test_each_change_is_sent_once(there: Receiver) -> None:
    findings = Findings(Limits(hold=10))
    channel = Webhook(config(there))
    findings.report("watch", [signal()], START)
    for second in range(5):
        drive(channel, findings, START + second)
        findings.report("watch", [signal()], START + second)
    assert events(there) == ["opened"]
    findings.report("watch", [signal(severity="critical")], START + 6)
    drive(channel, findings, START + 6)
    findings.acknowledge(findings.open()[0].id, "ada", "known", START + 7)
    drive(channel, findings, START + 7)
    findings.report("watch", [], START + 8)
    findings.report("watch", [], START + 18)
    drive(channel, findings, START + 18)
    drive(channel, findings, START + 19)
    findings.report("watch", [signal()], START + 20)
    drive(channel, findings, START + 20)
    assert events(there) == ["opened", "updated", "acknowledged", "closed", "reopened"]
    told = [request.json for request in there.requests]
    assert len({one["delivery"] for one in told}) == 5
    assert {one["finding"]["id"] for one in told} == {findings.open()[0].id}
    assert told[1]["change"] == "severity changed from warning to critical"
    assert told[0]["finding"]["features"][0]["detail"] == "median 12, was 54"
    assert told[3]["finding"]["state"] == "closed"
    assert channel.outcomes == {"delivered": 5}
    assert channel.notified.keys() == {findings.open()[0].incident}


def test_only_severe_and_unsilenced_findings_are_sent(there: Receiver) -> None:
    findings = Findings()
    channel = Webhook(config(there))
    findings.silence("quality/*", START + 100, "ada", "", START)
    mild = signal("drift/delays/1/x=1/", severity="info")
    quiet = signal("quality/delays/1//", kind="quality")
    findings.report("watch", [mild, quiet], START)
    drive(channel, findings, START)
    assert there.requests == []
    assert channel.pending(findings, START) == 0
    findings.report("watch", [replace(mild, severity="warning"), quiet], START + 1)
    drive(channel, findings, START + 1)
    assert [r.json["finding"]["key"] for r in there.requests] == [mild.key]
    assert events(there) == ["opened"]
    drive(channel, findings, START + 101)
    assert [r.json["finding"]["key"] for r in there.requests] == [mild.key, quiet.key]


def test_unacknowledged_findings_are_repeated(there: Receiver) -> None:
    findings = Findings()
    channel = Webhook(config(there, repeat="1h"))
    findings.report("watch", [signal()], START)
    for minute in range(0, 130, 10):
        drive(channel, findings, START + 60 * minute)
    assert events(there) == ["opened", "reminder", "reminder"]
    findings.acknowledge(findings.open()[0].id, "ada", "", START + 7800)
    for minute in range(130, 400, 10):
        drive(channel, findings, START + 60 * minute)
    assert events(there)[3:] == ["acknowledged"]


def test_many_changes_while_the_receiver_is_away_become_one_message(there: Receiver) -> None:
    findings = Findings(Limits(update_interval=0))
    channel = Webhook(config(there))
    there.answers = [(503, {}, b"back soon")]
    now = START
    for step in range(50):
        value = Contribution(f"f{step}", 1.0)
        findings.report("watch", [signal(features=(value,))], now)
        drive(channel, findings, now)
        now += 10
    tries = len(there.requests)
    assert 3 <= tries <= 12  # of 50: it waits longer and longer
    assert channel.outcomes == {"failed": tries}
    assert channel.error == "answered 503: back soon"
    there.answers = [(200, {}, b"")]
    drive(channel, findings, now + 600)
    assert len(there.requests) == tries + 1
    assert there.requests[-1].json["finding"]["features"][0]["name"] == "f49"
    assert there.requests[-1].json["event"] == "opened"
    assert channel.error is None
    # A finding that opened and closed during the outage is not sent at all.
    channel.backoff.failed(now + 600, 600.0)
    other = signal("quality/delays/1//", kind="quality")
    findings.report("watch", [signal(), other], now + 700)
    findings.report("watch", [signal()], now + 701)
    findings.report("watch", [signal()], now + 1001)
    drive(channel, findings, now + 2000)
    assert other.key not in [r.json["finding"]["key"] for r in there.requests]


def test_retry_after_is_honoured(there: Receiver) -> None:
    findings = Findings()
    channel = Webhook(config(there))
    findings.report("watch", [signal()], START)
    there.answers = [(429, {"Retry-After": "120"}, b""), (200, {}, b"")]
    for second in range(0, 119):
        drive(channel, findings, START + second)
    assert len(there.requests) == 1
    drive(channel, findings, START + 121)
    assert channel.outcomes == {"failed": 1, "delivered": 1}


def test_a_refused_message_is_not_resent(there: Receiver) -> None:
    findings = Findings()
    channel = Webhook(config(there))
    findings.report("watch", [signal()], START)
    there.answers = [(400, {}, b"no\nthanks"), (200, {}, b"")]
    for second in range(10):
        drive(channel, findings, START + second)
    assert len(there.requests) == 1
    assert channel.outcomes == {"refused": 1}
    assert channel.error == "answered 400: no thanks"
    findings.report("watch", [signal(severity="critical")], START + 20)
    drive(channel, findings, START + 20)
    assert channel.outcomes == {"refused": 1, "delivered": 1}


def test_a_failing_message_does_not_block_others(there: Receiver) -> None:
    findings = Findings()
    channel = Webhook(config(there))
    both = [signal(severity="critical"), signal("quality/fares/1//", kind="quality", model="fares")]
    findings.report("watch", both, START)
    there.answers = [(500, {}, b""), (200, {}, b""), (500, {}, b"")]
    for second in range(0, 5000, 10):
        drive(channel, findings, START + second)
    keys = [request.json["finding"]["key"] for request in there.requests]
    assert keys[:2] == [both[0].key, both[1].key]
    assert channel.outcomes["delivered"] == 1


@pytest.mark.parametrize("address", ["http://127.0.0.1:1/", "http://nobody.invalid/"])
def test_unreachable_receivers_are_reported(address: str) -> None:
    findings = Findings()
    channel = Webhook(Notification.model_validate({"kind": "webhook", "url": address}))
    findings.report("watch", [signal()], START)
    drive(channel, findings, START)
    assert channel.outcomes == {"failed": 1}
    assert channel.error
    assert channel.pending(findings, START) == 1


def test_a_hanging_receiver_delays_no_other_channel() -> None:
    with receiver() as slow, receiver() as quick:
        slow.hang.set()
        channels = [
            config(slow, name="slow", timeout="10m"),
            config(quick, name="quick"),
        ]
        findings = Findings()
        notifier = Notifier(channels, findings)

        async def run() -> None:
            task = asyncio.create_task(notifier.run())
            findings.report("watch", [signal()], START)
            notifier.wake()
            async with asyncio.timeout(patient(30)):
                while not notifier.channels["quick"].outcomes:
                    await asyncio.sleep(0.005)
            # The loop is never held up.
            for _ in range(20):
                await asyncio.sleep(0.005)
            assert notifier.channels["slow"].outcomes == {}
            assert notifier.channels["quick"].outcomes == {"delivered": 1}
            assert [one["pending"] for one in notifier.summary()] == [1, 0]
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(run())


def test_a_delivery_to_a_hanging_receiver_fails_at_its_limit() -> None:
    with receiver() as slow:
        slow.hang.set()
        findings = Findings()
        notifier = Notifier([config(slow, name="slow", timeout="300ms")], findings)

        async def run() -> None:
            task = asyncio.create_task(notifier.run())
            findings.report("watch", [signal()], START)
            notifier.wake()
            async with asyncio.timeout(patient(30)):
                while "failed" not in notifier.channels["slow"].outcomes:
                    await asyncio.sleep(0.005)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task

        asyncio.run(run())
        assert notifier.channels["slow"].error == f"127.0.0.1:{slow.port}: no answer within 0.3 s"
        assert [one["pending"] for one in notifier.summary()] == [1]


def test_a_restart_neither_repeats_nor_forgets(there: Receiver) -> None:
    findings = Findings(Limits(hold=0))
    both = [signal(), signal("quality/fares/1//", kind="quality", model="fares")]
    configs = [config(there)]
    notifier = Notifier(configs, findings, clock=lambda: START)
    findings.report("watch", both[:1], START)
    asyncio.run(notifier.flush())
    findings.report("watch", both, START + 1)
    saved = json.loads(json.dumps({"f": findings.dump_state(), "n": notifier.dump_state()}))
    findings = Findings.from_state(saved["f"], findings.limits)
    notifier = Notifier(configs, findings, clock=lambda: START + 10)
    notifier.load_state(saved["n"])
    assert notifier.pending() == {"webhook": 1}
    asyncio.run(notifier.flush())
    assert events(there) == ["opened", "opened"]
    assert [r.json["finding"]["key"] for r in there.requests] == [s.key for s in both]
    # Another configuration of the same channel knows what was told; another kind does not.
    notifier.configure([config(there, severity="info")])
    assert notifier.pending() == {"webhook": 0}
    notifier.load_state({"webhook": {"kind": "slack", "told": {}}})
    notifier.load_state({"webhook": {"kind": "webhook", "told": {"x": 3, "y": {}}, "outcomes": 1}})
    notifier.load_state({"webhook": "nothing"})


def test_old_closings_are_dropped(there: Receiver) -> None:
    findings = Findings(Limits(hold=0, grace=0, history=2))
    channel = Webhook(config(there))
    three = [signal(f"drift/m{n}/1//", model=f"m{n}") for n in range(3)]
    findings.report("watch", three, START)
    drive(channel, findings, START)
    findings.report("watch", [], START + 1)
    # One has left the history, two closed more than a day ago.
    drive(channel, findings, START + 100_000)
    assert channel.outcomes == {"delivered": 3, "dropped": 3}
    assert channel.notified == {}


def test_a_receiver_knows_a_bounded_number_of_findings(
    there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(base, "MAX_NOTIFIED", 3)
    findings = Findings(Limits(hold=0))
    channel = Webhook(config(there))
    signals = [signal(f"drift/m{n}/1//", model=f"m{n}") for n in range(5)]
    findings.report("watch", signals, START)
    for second in range(5):
        drive(channel, findings, START + second)
    assert len(there.requests) == 3
    told = {r.json["finding"]["key"] for r in there.requests}
    findings.report("watch", [s for s in signals if s.key not in told], START + 10)
    drive(channel, findings, START + 10)
    drive(channel, findings, START + 11)
    assert sorted(events(there)[3:]) == ["closed"] * 3 + ["opened"] * 2


def test_a_fault_of_one_channel_is_logged_and_isolated(
    there: Receiver, caplog: pytest.LogCaptureFixture
) -> None:
    class Broken(Findings):
        def open(self) -> Any:
            raise RuntimeError("broken")

    notifier = Notifier([config(there)], Broken(), clock=lambda: START)
    asyncio.run(notifier.flush())
    asyncio.run(notifier.flush())
    assert caplog.text.count("could not be made") == 1


def test_backs_off_and_returns() -> None:
    backoff = Backoff(1.0, 300.0, random.Random(1))
    now = 0.0
    waits = []
    for _ in range(14):
        assert backoff.ready(now)
        wait = backoff.failed(now)
        assert not backoff.ready(now + 0.99 * wait)
        now += wait
        waits.append(wait)
    for number, wait in enumerate(waits):
        full = min(300.0, 2.0**number)
        assert full / 2 <= wait <= full
    assert len({round(wait, 6) for wait in waits[9:]}) == 5
    # A clock that was set back by a day does not keep it waiting for a day.
    assert backoff.ready(now - 86_400)
    backoff.succeeded()
    assert backoff.ready(now - 86_400)
    assert backoff.failed(now) <= 1.0
    assert backoff.failed(now, 5000.0) == 600.0


def test_the_loop_runs_until_it_is_cancelled(there: Receiver) -> None:
    findings = Findings()
    notifier = Notifier([config(there)], findings)

    async def run() -> None:
        task = asyncio.create_task(notifier.run())
        for n in range(3):
            several = [signal(f"drift/m{m}/1//", model=f"m{m}") for m in range(n + 1)]
            findings.report("watch", several, START)
            notifier.wake()
            await asyncio.to_thread(eventually, lambda n=n: len(there.requests) == n + 1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(run())
    assert events(there) == ["opened"] * 3
