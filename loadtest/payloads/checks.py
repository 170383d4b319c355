"""Checks of responses. A wrong response is a failure, however fast it was."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.loadtest.errors import PlanError

UNEXPECTED = "unexpected prediction"
"""What is wrong with a response that was read, and has not the values that its payload expects."""


@dataclass(slots=True)
class Checks:
    """``statuses`` that are allowed; ``schema`` of the body (JSON Schema); ``expected`` by payload:
    values by JSON pointer; numbers may differ by ``tolerance`` (absolute or relative, whichever is
    larger)."""

    statuses: tuple[int, ...] = ()
    schema: Mapping[str, Any] | None = None
    expected: Sequence[Mapping[str, Any]] = ()
    tolerance: float = 1e-6
    _validator: Any = None

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
    def needed(self) -> bool:
        """Whether there is anything to check beyond the success of HTTP."""
        return bool(self.statuses or self.schema is not None or any(self.expected))

    def __call__(self, payload: int, status: int, body: bytes) -> str:
        """What is wrong with a response, or an empty text; few different texts, since they are
        counted."""
        if self.statuses and status not in self.statuses:
            return f"status {status}"
        if not self.statuses and not 200 <= status < 400:
            return ""  # counted as a failure of HTTP
        expected = self.expected[payload] if payload < len(self.expected) else {}
        if self.schema is None and not expected:
            return ""
        try:
            response = json.loads(body)
        except ValueError:
            return "response is not JSON"
        if self.schema is not None:
            if self._validator is None:
                import jsonschema

                self._validator = jsonschema.Draft202012Validator(self.schema)
            if not self._validator.is_valid(response):
                return "response violates the schema"
        for pointer, wanted in expected.items():
            if not alike(at(response, pointer), wanted, self.tolerance):
                return UNEXPECTED
        return ""


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
