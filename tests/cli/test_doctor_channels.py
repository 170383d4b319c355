"""``understudy doctor`` and notification channels: reachable, credentials, test messages."""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.ports import free_port
from tests.support.webhook_receiver import Receiver, receiver
from understudy.monitor.cli.main import main


@pytest.fixture
def there() -> Iterator[Receiver]:
    with receiver() as made:
        yield made


def checked(folder: Path, *words: str, **channel: Any) -> dict[str, Any]:
    """What doctor says of one channel."""
    file = folder / "understudy.yaml"
    address = f"http://127.0.0.1:{free_port()}"
    document = {
        "version": 1,
        "listen": f"127.0.0.1:{free_port()}",
        "control": {"listen": f"127.0.0.1:{free_port()}"},
        "workers": 1,
        "state_dir": str(folder / "state"),
        "models": [{"name": "delays", "read": False}],
        "champion": {"url": address},
        "notify": [channel],
    }
    file.write_text(json.dumps(document))
    done = CliRunner().invoke(main, ["doctor", str(file), "--json", *words])
    found = json.loads(done.stdout)
    (one,) = [one for one in found["checks"] if one["subject"].startswith("channel ")]
    assert one["status"] in ("ok", "skipped") or one["fix"], one
    assert isinstance(one, dict)
    return one


def test_a_webhook_is_asked_without_a_message(there: Receiver, tmp_path: Path) -> None:
    there.answers = [(405, {}, b"")]
    found = checked(tmp_path, kind="webhook", url=there.url)
    assert (found["status"], found["subject"]) == ("ok", "channel webhook")
    assert "--send-test" in found["text"]
    assert [(one.method, one.body) for one in there.requests] == [("HEAD", b"")]


@pytest.mark.parametrize("status", [401, 403])
def test_rejected_credentials_name_their_variable(
    there: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    monkeypatch.setenv("HOOK_TOKEN", "s3cret")
    there.answers = [(status, {}, b"no")]
    for words in ((), ("--send-test",)):
        found = checked(tmp_path, *words, kind="webhook", url=there.url, token_env="HOOK_TOKEN")
        assert found["status"] == "fault"
        assert "HOOK_TOKEN" in found["fix"]
        assert "s3cret" not in json.dumps(found)
    assert {one.headers["authorization"] for one in there.requests} == {"Bearer s3cret"}


def test_a_receiver_that_is_away_or_elsewhere_is_a_fault(there: Receiver, tmp_path: Path) -> None:
    away = f"http://127.0.0.1:{free_port()}/T000/secret"
    for words in ((), ("--send-test",)):
        found = checked(tmp_path, *words, kind="slack", url=away)
        assert found["status"] == "fault"
        assert "Connection refused" in found["text"]
        assert "notify[0].url" in found["fix"]
        assert "secret" not in json.dumps(found), "the address of a Slack channel is a secret"
    there.answers = [(302, {"Location": "http://elsewhere"}, b"")]
    found = checked(tmp_path, kind="webhook", url=there.url)
    assert (found["status"], "redirects" in found["text"]) == ("fault", True)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (400, b"no_text", "ok"),
        (400, b"invalid_payload", "ok"),
        (400, b'{"id":"web.incoming_webhook.text.app_error","message":"No text specified."}', "ok"),
        (400, b'{"success":false,"error":"body-empty"}', "ok"),
        (400, b'{"id":"web.incoming_webhook.invalid.app_error"}', "fault"),
        (403, b"invalid_token", "fault"),
        (404, b"no_service", "fault"),
        (410, b"channel_is_archived", "fault"),
        (200, b"<html>a wiki</html>", "fault"),
    ],
)
def test_an_empty_message_shows_whether_a_slack_address_is_right(
    there: Receiver, tmp_path: Path, status: int, body: bytes, expected: str
) -> None:
    there.answers = [(status, {}, body)]
    found = checked(tmp_path, kind="slack", url=there.url)
    assert found["status"] == expected, found
    assert [(one.method, one.body) for one in there.requests] == [("POST", b"{}")]


def test_alertmanager_is_asked_for_its_status(there: Receiver, tmp_path: Path) -> None:
    found = checked(tmp_path, kind="alertmanager", url=there.url)
    assert found["status"] == "ok"
    there.answers = [(404, {}, b"page not found")]
    found = checked(tmp_path, kind="alertmanager", url=there.url)
    assert found["status"] == "fault"
    assert "page not found" in found["text"]
    asked = {(one.method, one.path) for one in there.requests}
    assert asked == {("GET", "/api/v2/status")}


def test_a_test_message_opens_and_closes(
    there: Receiver, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOOK_KEY", "key")
    found = checked(
        tmp_path, "--send-test", kind="webhook", url=there.url, secret_env="HOOK_KEY",
        severity="critical",
    )  # fmt: skip
    assert found["status"] == "ok", found
    first, second = there.requests
    assert [one.json["event"] for one in there.requests] == ["opened", "closed"]
    assert "nothing is wrong" in first.json["text"]
    assert first.json["finding"]["model"] == "delays"
    assert first.json["incident"]["id"] == second.json["incident"]["id"]
    stamp = first.headers["x-understudy-timestamp"].encode()
    signed = hmac.new(b"key", stamp + b"." + first.body, sha256).hexdigest()
    assert first.headers["x-understudy-signature"] == f"sha256={signed}"


def test_a_rejected_test_message_is_a_fault(there: Receiver, tmp_path: Path) -> None:
    for status in (400, 500):
        there.answers = [(status, {}, b"unknown field")]
        found = checked(tmp_path, "--send-test", kind="webhook", url=there.url)
        assert found["status"] == "fault"
        assert f"answered {status}: unknown field" in found["text"]


def test_a_missing_variable_is_named_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("HOOK_URL", raising=False)
    found = checked(tmp_path, kind="slack", url_env="HOOK_URL")
    assert found["status"] == "skipped"
