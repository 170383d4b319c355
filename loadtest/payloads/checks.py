"""What an answer must be. A wrong answer is a failure, however quick it was."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from understudy.loadtest.errors import PlanError


@dataclass(slots=True)
class Checks:
    """``statuses`` that are allowed; ``schema`` of the body (JSON Schema); ``expected`` by payload:
    values by JSON pointer, numbers within ``tolerance`` (absolute, or relative to what is expected
    where that is more)."""

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
        """Whether there is anything to look at in an answer beyond HTTP's own success."""
        return bool(self.statuses or self.schema is not None or any(self.expected))

    def __call__(self, payload: int, status: int, body: bytes) -> str:
        """What is wrong with an answer, or an empty text. Names are few, since they are counted."""
        if self.statuses and status not in self.statuses:
            return f"status {status}"
        if not self.statuses and not 200 <= status < 400:
            return ""  # counted as HTTP's own failure
        expected = self.expected[payload] if payload < len(self.expected) else {}
        if self.schema is None and not expected:
            return ""
        try:
            answer = json.loads(body)
        except ValueError:
            return "answer is no JSON"
        if self.schema is not None:
            if self._validator is None:
                import jsonschema

                self._validator = jsonschema.Draft202012Validator(self.schema)
            if not self._validator.is_valid(answer):
                return "answer breaks the schema"
        for pointer, wanted in expected.items():
            if not alike(at(answer, pointer), wanted, self.tolerance):
                return "unexpected prediction"
        return ""


class _Nothing:
    """What a pointer finds where there is nothing."""


NOTHING = _Nothing()


def at(document: Any, pointer: str) -> Any:
    """The value at a JSON pointer (RFC 6901), or :data:`NOTHING`."""
    found = document
    if pointer in ("", "/"):
        return found
    for part in pointer.lstrip("/").split("/"):
        key = part.replace("~1", "/").replace("~0", "~")
        if isinstance(found, dict) and key in found:
            found = found[key]
        elif isinstance(found, list) and key.isdigit() and int(key) < len(found):
            found = found[int(key)]
        else:
            return NOTHING
    return found


def alike(found: Any, wanted: Any, tolerance: float) -> bool:
    """Whether an answer is what was expected, numbers within the tolerance, at any depth."""
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
