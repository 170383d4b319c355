"""Checks of responses. A wrong response is a failure, however fast it was."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from understudy.common.codecs import ModelSpec, Reason, Undecodable, detect
from understudy.common.codecs.body import parsed
from understudy.common.codecs.detect import FORMATS
from understudy.common.codecs.spec import Parser
from understudy.loadtest.engine.answer import http_error, succeeded
from understudy.loadtest.engine.stream import ReadStream
from understudy.loadtest.errors import PlanError
from understudy.loadtest.payloads import openai
from understudy.loadtest.payloads.request import Payload

OPENAI = "openai"

UNEXPECTED = "unexpected prediction"
"""What is wrong with a response that was read, and has not the values that its payload expects."""


@dataclass(slots=True)
class Checks:
    """``statuses`` that are allowed, by default 2xx; ``schema`` of the body (JSON Schema);
    ``formats`` by payload: see :func:`format_of`, a response of 2xx has to have a prediction in
    this format, by the rules of the service's codecs; ``rows`` by payload: for how many rows,
    see :func:`rows_of`; ``expected`` by payload: values by JSON pointer; numbers may differ by
    ``tolerance`` (absolute or relative, whichever is larger); ``parsers`` of bodies by payload, by
    default of JSON."""

    statuses: tuple[int, ...] = ()
    schema: Mapping[str, Any] | None = None
    expected: Sequence[Mapping[str, Any]] = ()
    formats: Sequence[str | None] = ()
    tolerance: float = 1e-6
    rows: Sequence[int | None] = ()
    parsers: Sequence[Parser] = ()
    _validator: Any = field(default=None, init=False)

    def __post_init__(self) -> None:
        if self.schema is not None:
            try:
                import jsonschema
            except ImportError as error:
                raise PlanError(
                    "checks.schema needs jsonschema: pip install 'understudy-serving[load]'"
                ) from error
            try:
                jsonschema.Draft202012Validator.check_schema(self.schema)
            except jsonschema.SchemaError as error:
                raise PlanError(f"checks.schema: {error.message}") from error

    @property
    def body(self) -> bool:
        """Whether the body is read."""
        return any(self.formats) or self.schema is not None or any(self.expected)

    @property
    def timed(self) -> bool:
        """Whether responses may be streams of a language model, whose times are read."""
        return OPENAI in self.formats

    def prepare(self) -> None:
        """Import and build what the first response needs: the validator takes a second of CPU, in
        which no request would be sent."""
        if self.schema is not None and self._validator is None:
            import jsonschema

            self._validator = jsonschema.Draft202012Validator(self.schema)
            self._validator.is_valid({})

    def looks_at(self, payload: int) -> bool:
        """Whether the responses to a payload are looked at, and not only their status."""
        expects = payload < len(self.expected) and bool(self.expected[payload])
        return self.schema is not None or expects or self._format(payload) is not None

    def _format(self, payload: int) -> str | None:
        return self.formats[payload] if payload < len(self.formats) else None

    def read(
        self,
        payload: int,
        status: int,
        headers: bytes,
        pieces: Sequence[bytes],
        times: Sequence[int],
    ) -> ReadStream:
        """What is wrong with a response, and the times of one that is a stream of a language
        model."""
        events = b"text/event-stream" in headers.lower() and 200 <= status < 300
        if not events or self._format(payload) != OPENAI:
            return ReadStream(self(payload, status, headers, b"".join(pieces)))
        if self.statuses and status not in self.statuses:
            return ReadStream(f"status {status}")
        found = openai.streamed(pieces, times)
        expects = payload < len(self.expected) and bool(self.expected[payload])
        if not found.error and (expects or self.schema is not None):
            # Neither can be met by events: a plan that asks for them is to hear of it.
            error = self(payload, status, headers, b"".join(pieces))
            return ReadStream(error, found.stream, found.gaps)
        return found

    def read_left(self, payload: int, pieces: Sequence[bytes], times: Sequence[int]) -> ReadStream:
        """The times of what came of a stream before its client left."""
        return openai.left(pieces, times)

    def __call__(self, payload: int, status: int, headers: bytes, body: bytes) -> str:
        """What is wrong with a response, or an empty text; few different texts, since they are
        counted."""
        if status not in self.statuses:
            error = http_error(status, headers)
            if error or self.statuses:
                return error or f"status {status}"
        form = self._format(payload) if succeeded(status) else None
        rows = self.rows[payload] if payload < len(self.rows) else None
        answered: int | None = None
        expected = self.expected[payload] if payload < len(self.expected) else {}
        if form is None and self.schema is None and not expected:
            return ""
        response = None
        if form != OPENAI or b"text/event-stream" not in headers.lower():
            parse = self.parsers[payload] if payload < len(self.parsers) else parsed
            response = parse(headers, body)
            if isinstance(response, Undecodable):
                return _unread(response)
        if form == OPENAI:
            error = openai.wrong(headers, body, response)
            if error:
                return error
            answered = openai.rows_of_response(response)
        elif form is not None:
            found = FORMATS[form].decode_response(response, ModelSpec("", protocol=form))
            if isinstance(found, Undecodable):
                return _unread(found)
            answered = found.rows
        if rows is not None and answered is not None and answered != rows:
            return f"{answered:,} rows in the response to {rows:,}"
        if self.schema is not None:
            self.prepare()
            if not self._validator.is_valid(response):
                return "response violates the schema"
        for pointer, wanted in expected.items():
            if not alike(at(response, pointer), wanted, self.tolerance):
                return UNEXPECTED
        return ""


_UNREAD = {
    Reason.EMPTY: "response is empty, or has an empty prediction",
    Reason.NOT_JSON: "response is not JSON",
    Reason.TRUNCATED: "response is truncated",
    Reason.WRONG_SHAPE: "no prediction in the response",
    Reason.ERROR_RESPONSE: "an error in a 2xx response",
}


def _unread(found: Undecodable) -> str:
    detail = f": {found.detail}" if found.detail else ""
    return _UNREAD.get(found.reason, "response cannot be read") + detail


def format_of(path: str, declared: str) -> str | None:
    """What the responses to requests to ``path`` look like: a wire format of the codecs, or
    :data:`OPENAI`, or None where that is not known.

    ``declared`` is ``auto`` (by the path), ``none``, or a format. A path that asks for no
    prediction, such as one of health, has none.
    """
    known = detect.by_path(path)
    if known == detect.NOT_INFERENCE or declared == "none":
        return None
    if declared != "auto":
        return declared
    return OPENAI if openai.PATHS.fullmatch(path.partition("?")[0]) else known


def rows_of(form: str | None, request: Payload) -> int | None:
    """For how many rows a request in this format asks for predictions; None where that is not
    known."""
    if form is None or not request.body:
        return None
    headers = "\r\n".join(f"{name}: {value}" for name, value in request.headers.items())
    parse = detect.look_up(request.path)[1][0]
    value = parse(headers.encode("latin-1", "replace"), request.body)
    if isinstance(value, Undecodable):
        return None
    if form == OPENAI:
        return openai.rows_of_request(value)
    found = FORMATS[form].decode_request(value, ModelSpec("", protocol=form))
    return None if isinstance(found, Undecodable) else found.rows


class _Nothing:
    """Type of :data:`NOTHING`, the value of a pointer to a missing element."""


NOTHING = _Nothing()


def at(document: Any, pointer: str) -> Any:
    """The value at a JSON pointer (RFC 6901), or :data:`NOTHING`."""
    result = document
    if pointer in ("", "/"):
        return result
    for part in pointer.lstrip("/").split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(result, dict) and key in result:
            result = result[key]
        elif isinstance(result, list) and key.isdigit() and int(key) < len(result):
            result = result[int(key)]
        else:
            return NOTHING
    return result


def alike(found: Any, wanted: Any, tolerance: float) -> bool:
    """Whether ``found`` equals ``wanted``, with numbers within ``tolerance`` at any depth."""
    numbers = isinstance(wanted, (int, float)) and not isinstance(wanted, bool)
    if numbers and isinstance(found, (int, float)) and not isinstance(found, bool):
        if math.isnan(found) or math.isnan(wanted):
            return math.isnan(found) and math.isnan(wanted)
        return bool(abs(found - wanted) <= max(tolerance, tolerance * abs(wanted)))
    if isinstance(wanted, list) and isinstance(found, list):
        return len(wanted) == len(found) and all(
            alike(f, w, tolerance) for f, w in zip(found, wanted, strict=True)
        )
    if isinstance(wanted, dict) and isinstance(found, dict):
        return wanted.keys() == found.keys() and all(
            alike(found[k], wanted[k], tolerance) for k in wanted
        )
    return type(found) is type(wanted) and bool(found == wanted)
