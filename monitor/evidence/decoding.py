"""Decoding of records: chooses the rules of the model that a record belongs to."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from understudy.common.codecs import (
    Decoded,
    ModelSpec,
    Reason,
    Table,
    Undecodable,
    decode_exchange,
)
from understudy.monitor.evidence.settings import ModelSettings, Settings
from understudy.monitor.records.record import OPEN, Record

__all__ = ["Decoder", "Table", "Undecodable"]

_UNKNOWN = "unknown"
_MAX_SPECS = 1024
_NOT_FINISHED = Undecodable(Reason.NOT_CAPTURED, "the request has not finished")
_NOT_READ = Undecodable(Reason.NOT_READ)


def _spec(model: ModelSettings) -> ModelSpec:
    return ModelSpec(
        model.name,
        model.version,
        model.protocol,
        model.features,
        model.predictions,
        model.json_features,
        model.json_predictions,
        model.classes,
        model.limits,
        model.prices,
    )


class Decoder:
    """Decodes records by the configured rules of their model, as named in a worker's NAMES frame.

    The record of a mirrored request has no request body, since it is the champion's. Where the wire
    format is detected from the request, the answer to a mirrored request is decoded in the format
    of the model's last request.
    """

    def __init__(self, settings: Settings) -> None:
        self._configured = {(m.name, m.version): m for m in settings.models}
        self._match = settings.match
        self._unread = frozenset(key for key, m in self._configured.items() if not m.read)
        self._others_read = self._match is None or self._match.read
        self._specs: dict[tuple[str, str, str], ModelSpec] = {}
        self._seen: dict[tuple[str, str, str], str] = {}

    def expected(self, key: tuple[str, str]) -> tuple[str, ...]:
        """Names of the features that a request of (model, version) should have."""
        model = self._configured.get(key, self._match)
        return model.features or tuple(name for name, _ in model.json_features) if model else ()

    def pointers(self, key: tuple[str, str]) -> tuple[dict[str, str], dict[str, str]]:
        """The dotted paths of the features and predictions of (model, version), by name.

        Empty unless the model's configuration maps plain JSON.
        """
        model = self._configured.get(key, self._match)
        if model is None:
            return {}, {}
        return dotted(model.json_features), dotted(model.json_predictions)

    def decode(
        self, named: tuple[str, str, str], record: Record
    ) -> tuple[Table | Undecodable, Table | Undecodable]:
        """Features and predictions of a record; ``named`` is (model, version, protocol)."""
        if record.outcome == OPEN:
            return _NOT_FINISHED, _NOT_FINISHED
        if named[:2] in self._unread or not (self._others_read or named[:2] in self._configured):
            return _NOT_READ, _NOT_READ
        spec = self._specs.get(named)
        if spec is None:
            spec = self._make(named)
        decoded = _decode(spec, record)
        if spec.protocol == "auto":
            if record.request_body is not None:
                if decoded.protocol != _UNKNOWN:
                    self._seen[named] = decoded.protocol
            elif decoded.protocol == _UNKNOWN and named in self._seen:
                decoded = _decode(replace(spec, protocol=self._seen[named]), record)
        return decoded.features, decoded.predictions

    def _make(self, named: tuple[str, str, str]) -> ModelSpec:
        model = self._configured.get(named[:2])
        # A worker may still be one configuration behind or ahead.
        if model is None and self._match is not None:
            model = replace(self._match, name=named[0], version=named[1])
        spec = _spec(model) if model is not None else ModelSpec(*named)
        if len(self._specs) >= _MAX_SPECS:
            self._specs.clear()
            self._seen.clear()
        self._specs[named] = spec
        return spec


def dotted(pointers: Iterable[tuple[str, str]]) -> dict[str, str]:
    """JSON pointers as dotted paths, by name; steps into a list are left out of the path."""
    return {
        name: ".".join(
            step.replace("~1", "/").replace("~0", "~")
            for step in pointer.split("/")[1:]
            if step != "*" and not step.isdecimal()
        )
        for name, pointer in pointers
    }


def _decode(spec: ModelSpec, record: Record) -> Decoded:
    return decode_exchange(
        spec,
        record.target,
        record.request_headers,
        record.request_body,
        record.status,
        record.response_headers,
        record.response_body,
        record.duration_ns * 1e-9,
        record.events,
    )
