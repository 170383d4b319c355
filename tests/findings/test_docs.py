"""The documentation of findings agrees with the code."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import yaml
from pydantic import TypeAdapter

from tests.support.signals import signal
from tests.support.webhook_receiver import receiver
from understudy.monitor.api.findings import document
from understudy.monitor.config.notify import Notification, Notify
from understudy.monitor.findings.channels.webhook import Webhook
from understudy.monitor.findings.ledger import Findings
from understudy.monitor.findings.limits import Limits
from understudy.monitor.findings.service import FindingsService
from understudy.monitor.telemetry.findings import finding_families

PAGE = (Path(__file__).parents[2] / "docs" / "findings.md").read_text()
START = 1_790_000_000.0


def blocks(language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_every_field_and_metric_is_described() -> None:
    service = FindingsService(None)
    service.ledger.report("watch", [signal()], START)
    shown = document(service.ledger.open()[0], START)
    named = set(re.findall(r"`([a-z_]+)`", PAGE))
    assert set(shown) - named == {"age_seconds", "opened_at", "links"}
    for family in finding_families(service, ()):
        total = "_total" if family.type == "counter" else ""
        assert f"`{family.name}{total}`" in PAGE


def test_documented_numbers_are_the_defaults() -> None:
    limits = Limits()
    assert (limits.hold, limits.grace, limits.update_interval) == (300, 3600, 60)
    assert (limits.max_open, limits.max_openings, limits.history) == (20, 30, 1000)
    for words in ("(5 minutes", "within an hour", "once a minute", "at most 20", "At most 30"):
        assert words in PAGE
    assert "the last 1,000 closed findings" in PAGE


def test_the_channels_of_the_example_are_accepted() -> None:
    example = next(yaml.safe_load(block) for block in blocks("yaml") if "notify:" in block)
    channels = TypeAdapter(Notify).validate_python(example["notify"])
    assert [channel.kind for channel in channels] == ["alertmanager", "webhook", "slack"]


def test_the_receiver_of_the_example_tells_genuine_messages(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("HOOK_KEY", "a key")
    namespace: dict[str, Any] = {}
    exec(blocks("python")[0], namespace)
    namespace["time"] = SimpleNamespace(time=lambda: START)
    genuine = namespace["genuine"]
    with receiver() as there:
        config = {"kind": "webhook", "url": there.url, "secret_env": "HOOK_KEY"}
        findings = Findings()
        findings.report("watch", [signal()], START)
        asyncio.run(Webhook(Notification.model_validate(config)).step(findings, START))
        (request,) = there.requests
    headers = {
        "X-Understudy-Timestamp": request.headers["x-understudy-timestamp"],
        "X-Understudy-Signature": request.headers["x-understudy-signature"],
    }
    assert genuine(b"a key", headers, request.body)
    assert not genuine(b"another", headers, request.body)
    assert not genuine(b"a key", headers, request.body + b" ")
    later = {**headers, "X-Understudy-Timestamp": str(int(START) + 1)}
    assert not genuine(b"a key", later, request.body)
