"""The part of the configuration that declares notification channels."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import AfterValidator, Field, model_validator

from understudy.common.fields import Seconds
from understudy.monitor.config.extensions import CHANNEL_SETTINGS, CHANNELS
from understudy.monitor.config.fields import File, Name, Url, Variable
from understudy.monitor.config.section import Section

LabelName = Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]{0,62}$", examples=["team"])]
LabelValue = Annotated[str, Field(min_length=1, max_length=128, examples=["pricing"])]

OWN_LABELS = frozenset(("alertname", "model", "version", "segment", "kind", "severity", "key"))
"""Labels of alerts that are set here and not by the configuration."""
MAX_CHANNELS = 20
RESEND_SECONDS = 60.0
LEAST_RESEND_SECONDS = 0.5
LEAST_REPEAT_SECONDS = 60.0

if TYPE_CHECKING:
    Kind = str
else:
    Kind = Literal[*CHANNELS]


def _accepted_by(setting: str) -> str:
    """The kinds that accept a setting, as a list in a sentence."""
    kinds = [name for name, one in CHANNELS.items() if setting in one.settings]
    return " and ".join(filter(None, (", ".join(kinds[:-1]), kinds[-1])))


def _only(setting: str, text: str) -> str:
    """The description of a setting that not all kinds accept."""
    return f"{_accepted_by(setting)}: {text}"


class NotifyTls(Section):
    """TLS verification of a receiver."""

    ca: File | None = None
    """PEM file with trusted CAs; default: the system's."""
    verify: bool = True
    """False accepts any certificate; for tests only."""


class Notification(Section):
    """A notification channel for findings that open, change and close."""

    kind: Kind = Field(
        description=", ".join(f"`{name}` {one.text}" for name, one in CHANNELS.items()) + "."
    )
    name: Name | None = None
    """Name in metrics and logs; default: its kind. Required if a kind occurs twice."""
    url: Url | None = None
    """URL of the receiver. For alertmanager, its root, such as http://127.0.0.1:9093."""
    url_env: Variable | None = None
    """Environment variable with the URL, if the URL itself is a secret."""
    secret_env: Variable | None = Field(
        default=None,
        description=_only(
            "secret_env", "environment variable with the key that signs requests (HMAC-SHA256)."
        ),
    )
    token_env: Variable | None = Field(
        default=None,
        description=_only("token_env", "environment variable with a bearer token."),
    )
    severity: Literal["info", "warning", "critical"] = "warning"
    """Minimum severity to send."""
    repeat: Seconds | None = Field(
        default=None,
        description=_only(
            "repeat",
            "send a reminder of an open, unacknowledged finding after this time; default: never.",
        ),
    )
    resend: Seconds | None = Field(
        default=None,
        description=_only(
            "resend",
            "interval at which open findings are sent again; default: 60 s. Alertmanager resolves "
            "them after four intervals without an update.",
        ),
    )
    timeout: Seconds = 10.0
    """Timeout of a receiver, from connecting to the response."""
    labels: dict[LabelName, LabelValue] = Field(
        default={},
        max_length=20,
        examples=[{"team": "pricing"}],
        description=_only("labels", "labels to add."),
    )
    link: Url | None = None
    """Public URL of the control address, for links in messages."""
    tls: NotifyTls | None = None
    """TLS verification, for an https URL."""

    @property
    def label(self) -> str:
        """Name in metrics and logs."""
        return self.name or self.kind

    @model_validator(mode="after")
    def _consistent(self) -> Notification:
        if (self.url is None) == (self.url_env is None):
            raise ValueError("give either url or url_env")
        for name in CHANNEL_SETTINGS:
            if getattr(self, name) and name not in CHANNELS[self.kind].settings:
                raise ValueError(f"{name} is for {_accepted_by(name)}, not for {self.kind}")
        for name, least in (("repeat", LEAST_REPEAT_SECONDS), ("resend", LEAST_RESEND_SECONDS)):
            given = getattr(self, name)
            if given is not None and given < least:
                raise ValueError(f"{name} must be at least {least:g} s (found {given:g} s)")
        own = OWN_LABELS & set(self.labels)
        if own:
            raise ValueError(f"labels: {sorted(own)[0]} is set by Understudy itself")
        if self.tls is not None and self.url is not None and not self.url.startswith("https:"):
            raise ValueError("tls is given, but the url is not https")
        return self


def _named(channels: list[Notification]) -> list[Notification]:
    labels = [channel.label for channel in channels]
    twice = sorted({label for label in labels if labels.count(label) > 1})
    if twice:
        raise ValueError(f"two channels are called {twice[0]!r}: give them different names")
    return channels


Notify = Annotated[list[Notification], AfterValidator(_named), Field(max_length=MAX_CHANNELS)]
"""The channels, in any order."""


def resolved(channels: Sequence[Notification], absolute: Callable[[str], str]) -> list[Any]:
    """The channels with file names made absolute."""
    return [
        channel.model_copy(update={"tls": channel.tls.model_copy(update={"ca": absolute(ca)})})
        if channel.tls is not None and (ca := channel.tls.ca) is not None
        else channel
        for channel in channels
    ]


def missing_variables(channels: Sequence[Notification]) -> list[tuple[str, str]]:
    """Problems ``(path, message)`` for environment variables that are named and not set."""
    return [
        (f"notify[{number}].{field}", f"the environment variable {variable} is not set")
        for number, channel in enumerate(channels)
        for field in ("url_env", "secret_env", "token_env")
        if (variable := getattr(channel, field)) and not os.environ.get(variable)
    ]
