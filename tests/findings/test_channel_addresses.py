"""Delivery: messages are signed, certificates are checked, and addresses stay secret."""

from __future__ import annotations

import asyncio
import json
import ssl
from pathlib import Path

import pytest

from tests.support.certificates import self_signed
from tests.support.channel_driving import START, config, drive
from tests.support.signals import signal
from tests.support.webhook_receiver import Receiver, receiver
from understudy.monitor.findings.channels.webhook import Webhook, signature
from understudy.monitor.findings.ledger import Findings
from understudy.monitor.findings.notify import Notifier


def test_messages_are_signed_with_a_key_of_the_environment(
    there: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    findings = Findings()
    channel = Webhook(
        config(there, secret_env="HOOK_KEY", token_env="HOOK_TOKEN", labels={"team": "pricing"})
    )
    findings.report("watch", [signal()], START)
    monkeypatch.delenv("HOOK_KEY", raising=False)
    drive(channel, findings, START)
    assert there.requests == []
    assert channel.error == "the environment variable HOOK_KEY is not set"
    monkeypatch.setenv("HOOK_KEY", "a key")
    monkeypatch.setenv("HOOK_TOKEN", "a token")
    drive(channel, findings, START + 5)
    (request,) = there.requests
    stamp = request.headers["x-understudy-timestamp"]
    assert request.headers["x-understudy-signature"] == signature(b"a key", stamp, request.body)
    assert request.headers["authorization"] == "Bearer a token"
    assert request.headers["x-understudy-event"] == "opened"
    assert request.headers["x-understudy-delivery"] == request.json["delivery"]
    assert request.json["labels"] == {"team": "pricing"}
    assert signature(b"another", stamp, request.body) != request.headers["x-understudy-signature"]
    # As `printf '1790000000.{}' | openssl dgst -sha256 -hmac k` has it.
    assert signature(b"k", "1790000000", b"{}") == (
        "sha256=d60b033fc3709a5047203b501bd57fde2e3a2b8c29c7f98f9361b9fbc125835f"
    )


def test_the_address_is_never_shown(there: Receiver, monkeypatch: pytest.MonkeyPatch) -> None:
    there.answers = [(404, {}, b"no_service")]
    monkeypatch.setenv("SLACK_URL", there.url + "/services/secret")
    notifier = Notifier([config(kind="slack", url_env="SLACK_URL")], findings := Findings())
    findings.report("watch", [signal()], START)
    asyncio.run(notifier.flush())
    shown = json.dumps([notifier.summary(), notifier.dump_state()])
    assert "no_service" in shown
    assert "secret" not in shown


@pytest.mark.parametrize(
    "address",
    ["ftp://a.example/", "http://", "http://a b/", "http://u:p@a.example/", "http://a:x/", "ä"],
)
def test_an_invalid_address_in_the_environment_is_reported(
    address: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_URL", address)
    channel = Webhook(config(url_env="HOOK_URL"))
    findings = Findings()
    findings.report("watch", [signal()], START)
    drive(channel, findings, START)
    assert channel.outcomes == {"failed": 1}
    assert "url" in str(channel.error)


def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    authority, key = self_signed(tmp_path, "receiver", "localhost")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(authority, key)
    findings = Findings()
    findings.report("watch", [signal()], START)
    with receiver(tls) as there:
        wrong = Webhook(config(there))
        drive(wrong, findings, START)
        assert wrong.outcomes == {"failed": 1}
        assert "certificate" in str(wrong.error)
        right = Webhook(config(there, tls={"ca": str(authority)}))
        drive(right, findings, START)
        assert right.outcomes == {"delivered": 1}
        any_ = Webhook(config(there, tls={"verify": False}))
        drive(any_, findings, START)
        assert any_.outcomes == {"delivered": 1}
        none = Webhook(config(there, tls={"ca": str(tmp_path / "nothing.pem")}))
        drive(none, findings, START)
        assert "cannot be used" in str(none.error)
