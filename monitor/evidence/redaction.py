"""Redaction rules, applied to column names as well as to JSON paths.

A model that maps plain JSON names its columns itself: a rule for ``customer.*`` has to hide the
column ``age`` whose pointer is ``/customer/age``, wherever that column is shown.
"""

from __future__ import annotations

from collections.abc import Iterable

from understudy.monitor.config.model import Config
from understudy.monitor.evidence.decoding import dotted
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.records.redaction import Redaction


def redaction_of(config: Config) -> Redaction:
    """The redaction of a configuration, by column name and by path."""
    mapped = [model.json_ for model in config.models if model.json_ is not None]
    parts = [part for json_ in mapped for part in (json_.features, json_.predictions)]
    pointers = [pair for part in parts for pair in part.items()]
    credentials = config.credentials
    return _redaction(config.records.redact, pointers, credentials.headers, credentials.query)


def redaction_of_settings(settings: Settings) -> Redaction:
    """The redaction of an evaluation plane's settings, by column name and by path."""
    pointers = [p for m in settings.models for p in (*m.json_features, *m.json_predictions)]
    return _redaction(
        settings.redact, pointers, settings.credential_headers, settings.credential_query
    )


def _redaction(
    rules: Iterable[str],
    pointers: Iterable[tuple[str, str]],
    headers: Iterable[str],
    query: Iterable[str],
) -> Redaction:
    paths: dict[str, set[str]] = {}
    for name, pointer in pointers:
        paths.setdefault(name, set()).update(dotted([(name, pointer)]).values())
    return Redaction(rules, paths, headers, query)
