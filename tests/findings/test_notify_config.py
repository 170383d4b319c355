"""The configuration of channels: what is rejected, and with which messages."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import TypeAdapter, ValidationError

from understudy.monitor.config.notify import Notification, Notify, missing_variables, resolved

CHANNELS: TypeAdapter[list[Notification]] = TypeAdapter(Notify)
HOOK = {"kind": "webhook", "url": "https://hooks.example/understudy"}


def test_a_complete_configuration_is_accepted() -> None:
    channels = CHANNELS.validate_python(
        [
            {
                "kind": "alertmanager",
                "url": "http://127.0.0.1:9093",
                "token_env": "ALERTMANAGER_TOKEN",
                "resend": "30s",
                "labels": {"team": "pricing"},
            },
            {**HOOK, "secret_env": "HOOK_KEY", "severity": "info", "repeat": "4h"},
            {**HOOK, "name": "second", "tls": {"ca": "ca.pem"}},
            {"kind": "slack", "url_env": "SLACK_URL", "severity": "critical"},
        ]
    )
    assert [channel.label for channel in channels] == ["alertmanager", "webhook", "second", "slack"]
    assert channels[1].repeat == 4 * 3600
    # As the supervisor hands it on.
    dumped = CHANNELS.dump_python(channels, mode="json")
    assert CHANNELS.validate_python(dumped) == channels
    moved = resolved(channels, lambda name: f"/etc/{name}")
    assert moved[2].tls is not None
    assert moved[2].tls.ca == "/etc/ca.pem"
    assert moved[3] == channels[3]


@pytest.mark.parametrize(
    ("channel", "words"),
    [
        ({"kind": "webhook"}, "give either url or url_env"),
        ({**HOOK, "url_env": "X"}, "give either url or url_env"),
        ({**HOOK, "kind": "mail"}, "'alertmanager', 'webhook' or 'slack'"),
        ({**HOOK, "kind": "slack", "secret_env": "X"}, "secret_env is for webhook, not for slack"),
        ({**HOOK, "kind": "slack", "token_env": "X"}, "token_env is for alertmanager and webhook"),
        ({**HOOK, "kind": "alertmanager", "repeat": "1h"}, "repeat is for webhook and slack"),
        ({**HOOK, "resend": "1m"}, "resend is for alertmanager"),
        ({**HOOK, "kind": "slack", "labels": {"a": "b"}}, "labels is for alertmanager and webhook"),
        ({**HOOK, "labels": {"severity": "b"}}, "severity is set by Understudy itself"),
        ({**HOOK, "labels": {"a-b": "c"}}, "should match pattern"),
        ({**HOOK, "severity": "bad"}, "'info', 'warning' or 'critical'"),
        ({**HOOK, "url": "http://u:p@a/"}, "must not contain credentials"),
        ({**HOOK, "url": "nowhere"}, "not a valid URL"),
        ({**HOOK, "url": "http://a/", "tls": {"verify": False}}, "the url is not https"),
        ({**HOOK, "secret_env": "xoxb-123"}, "name of an environment variable"),
        ({**HOOK, "secret": "x"}, "not permitted"),
        ({**HOOK, "repeat": "1s"}, "repeat must be at least 60 s"),
        ({"kind": "alertmanager", "url": "http://a", "resend": "1ms"}, "at least 0.5 s"),
        ({**HOOK, "timeout": 0}, "greater than 0"),
    ],
)
def test_invalid_channels_are_rejected(channel: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError) as caught:
        CHANNELS.validate_python([channel])
    assert words in str(caught.value)


def test_channel_names_must_be_unique() -> None:
    with pytest.raises(ValidationError, match="two channels are called 'webhook'"):
        CHANNELS.validate_python([HOOK, HOOK])


def test_unset_variables_are_reported(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOT_THERE", raising=False)
    monkeypatch.setenv("THERE", "x")
    channels = CHANNELS.validate_python(
        [{**HOOK, "secret_env": "THERE"}, {"kind": "slack", "url_env": "NOT_THERE"}]
    )
    assert missing_variables(channels) == [
        ("notify[1].url_env", "the environment variable NOT_THERE is not set")
    ]
