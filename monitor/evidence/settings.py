"""Settings of the evaluation plane, taken from the validated configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from pydantic import ValidationError

from understudy.common.codecs.spec import Classes
from understudy.common.problems import problems
from understudy.monitor.config.goodput import limits_of
from understudy.monitor.config.model import Config
from understudy.monitor.config.token_cost import prices_of
from understudy.monitor.errors import ConfigError
from understudy.monitor.evidence.prediction_stats import DEFAULT_BUCKETS, MAX_CLASSES


@dataclass(frozen=True, slots=True)
class ModelSettings:
    """One declared model. The ``json_*`` are pairs of name and JSON pointer."""

    name: str
    version: str
    protocol: str
    features: tuple[str, ...]
    predictions: tuple[str, ...]
    json_features: tuple[tuple[str, str], ...] = ()
    json_predictions: tuple[tuple[str, str], ...] = ()
    read: bool = True
    classes: Classes | None = None
    match: tuple[str, ...] = ()
    """Of settings of models that are not listed: patterns for their names, in which ``*`` is any
    text."""
    most: int = 0
    """The most such models."""
    limits: tuple[tuple[str, float], ...] = ()
    """Columns of a language model's answers, each with the time within which one is good."""
    prices: tuple[float, float, float] | None = None
    """Of one token of a prompt, of a cached one, and of an answer."""


@dataclass(frozen=True, slots=True)
class Settings:
    """Settings of the evaluation plane.

    ``arms`` are the arm names, champion first. ``control_host`` and ``control_port`` are where
    the API listens; ``control_hosts`` are patterns of other names that it answers for.
    """

    models: tuple[ModelSettings, ...]
    arms: tuple[str, ...]
    state_dir: Path
    control_host: str
    control_port: int
    token_env: str | None
    keep: int
    redact: tuple[str, ...]
    prediction_buckets: tuple[float, ...] = DEFAULT_BUCKETS
    max_classes: int = MAX_CLASSES
    save_seconds: float = 2.0
    control_hosts: tuple[str, ...] = ()
    credential_headers: tuple[str, ...] = ()
    credential_query: tuple[str, ...] = ()
    """Patterns of names, besides the usual ones."""
    history_bytes: int = 64 * 1024 * 1024
    """Largest size of the history of what was measured."""
    document: Mapping[str, Any] = field(default_factory=dict)
    """The whole configuration as plain data."""

    def config(self) -> Config:
        """The validated configuration. Raises ConfigError when the document is incomplete."""
        try:
            return Config.model_validate(self.document)
        except ValidationError as error:
            raise ConfigError("configuration", problems(error, self.document, Config)) from error

    @property
    def match(self) -> ModelSettings | None:
        """Those of all models that are not listed; None if there are no others."""
        return next((model for model in self.models if model.match), None)

    @classmethod
    def load(cls, path: Path) -> Settings:
        """Read the JSON that the supervisor wrote. Raises ConfigError."""
        try:
            return cls.from_json(json.loads(path.read_bytes()))
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise ConfigError(str(path), [("", f"{type(error).__name__}: {error}")]) from error

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Settings:
        """From the configuration as plain JSON; missing keys get their default."""
        control = data.get("control") or {}
        listen = control.get("listen", "127.0.0.1:9090")
        if isinstance(listen, dict):
            listen = listen.get("address") or f"{listen.get('host')}:{listen.get('port')}"
        host, _, port = str(listen).rpartition(":")
        records = data.get("records") or {}
        evaluation = data.get("evaluation") or {}
        if not isinstance(evaluation, dict):
            evaluation = {}
        credentials = data.get("credentials") or {}
        return cls(
            models=tuple(_model(model) for model in data.get("models") or []),
            arms=(
                str((data.get("champion") or {}).get("name", "champion")),
                *(str(challenger["name"]) for challenger in data.get("challengers") or []),
            ),
            state_dir=Path(data.get("state_dir") or "understudy-state"),
            control_host=host.strip("[]") or "127.0.0.1",
            control_port=int(port),
            token_env=control.get("token_env"),
            keep=int(records.get("keep", 200)),
            redact=tuple(str(rule) for rule in records.get("redact") or ()),
            prediction_buckets=tuple(evaluation.get("prediction_buckets") or DEFAULT_BUCKETS),
            control_hosts=_hosts(data),
            credential_headers=tuple(credentials.get("headers") or ()),
            credential_query=tuple(credentials.get("query") or ()),
            history_bytes=int((data.get("history") or {}).get("max_size", 64 * 1024 * 1024)),
            document=data,
        )


def _hosts(data: Mapping[str, Any]) -> tuple[str, ...]:
    """Names of the API: those declared, and those of the links to it."""
    declared = (data.get("control") or {}).get("hosts") or ()
    links = [channel.get("link") for channel in data.get("notify") or ()]
    links.append((data.get("kafka") or {}).get("evaluators"))
    names = [urlsplit(link).hostname for link in links if link]
    return tuple(str(name).lower() for name in (*declared, *names) if name)


def _model(data: dict[str, Any]) -> ModelSettings:
    mapping, classes = data.get("json") or {}, data.get("classes")
    return ModelSettings(
        str(data.get("name", "other")),
        str(data.get("version", "")),
        str(data.get("protocol", "auto")),
        tuple(data.get("features") or ()),
        tuple(data.get("predictions") or ()),
        tuple((mapping.get("features") or {}).items()),
        tuple((mapping.get("predictions") or {}).items()),
        bool(data.get("read", True)),
        Classes(str(classes["of"]), tuple(map(str, classes.get("labels") or ())))
        if classes
        else None,
        tuple((data.get("match") or {}).get("names") or ()),
        int((data.get("match") or {}).get("most") or 0),
        limits_of(data.get("goodput")),
        prices_of(data.get("cost")),
    )
