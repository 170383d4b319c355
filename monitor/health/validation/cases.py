"""Validation cases from a file, and the check of responses. JSON lines, one case each:

* ``{"name", "kind": "golden", "request", "expect": {name: value}, "tolerance"}``
* ``{"name", "kind": "invariance", "request", "other", "tolerance"}``: two requests, the same
  response
* ``{"name", "kind": "directional", "request", "other", "prediction", "direction": "up"|"down"}``:
  the response to ``other`` must not change in the wrong direction
* ``{"name", "kind": "malformed", "request"}``: must be rejected with 4xx
* ``{"name", "kind": "labelled", "request", "label", "prediction", "threshold"}``: the share of
  correct responses is an accuracy

``request`` is the payload in the model's protocol, or a text that is sent unchanged.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from understudy.common.codecs import Table
from understudy.common.files import FileError, json_lines
from understudy.monitor.errors import ValidationCaseError

KINDS = ("golden", "invariance", "directional", "malformed", "labelled")
MOST = 10_000
_TOLERANCE = 1e-6


@dataclass(frozen=True, slots=True)
class Case:
    """``bodies`` are the payloads to send, one or two; ``rule`` is the rest of the line."""

    name: str
    kind: str
    bodies: tuple[bytes, ...]
    rule: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Answer:
    """A response: ``status`` is HTTP's, 0 without a response; ``table`` the decoded predictions, or
    None."""

    status: int
    table: Table | None
    seconds: float
    error: str = ""


def load_cases(path: Path) -> list[Case]:
    """All cases of a file. Raises ValidationCaseError that names the line."""
    cases: list[Case] = []
    try:
        for number, _, value in json_lines(path):
            try:
                cases.append(_case(value, number))
            except ValidationCaseError as error:
                raise ValidationCaseError(f"{path}: line {number}: {error}") from error
    except FileError as error:
        raise ValidationCaseError(str(error)) from error
    if not 0 < len(cases) <= MOST:
        raise ValidationCaseError(f"{path}: must contain between 1 and {MOST:,} cases")
    return cases


def _case(data: Any, number: int) -> Case:
    if not isinstance(data, dict):
        raise ValidationCaseError("must be an object")
    kind = data.get("kind", "golden")
    if kind not in KINDS:
        raise ValidationCaseError(f"kind: {kind!r} is not one of {', '.join(KINDS)}")
    needed = {
        "golden": ("request", "expect"),
        "invariance": ("request", "other"),
        "directional": ("request", "other", "prediction", "direction"),
        "malformed": ("request",),
        "labelled": ("request", "label", "prediction"),
    }[kind]
    for name in needed:
        if name not in data:
            raise ValidationCaseError(f"{name}: is required for a {kind} case")
    if kind == "golden" and not isinstance(data["expect"], dict):
        raise ValidationCaseError("expect: must be an object of values by name")
    if kind == "directional" and data["direction"] not in ("up", "down"):
        raise ValidationCaseError(f"direction: {data['direction']!r} is neither up nor down")
    bodies = tuple(
        data[name].encode() if isinstance(data[name], str) else orjson.dumps(data[name])
        for name in ("request", "other")
        if name in data
    )
    rule = {key: value for key, value in data.items() if key not in ("request", "other")}
    return Case(str(data.get("name", f"line {number}")), kind, bodies, rule)


def check(case: Case, answers: tuple[Answer, ...]) -> str:
    """Why the responses to a case are wrong; an empty text if they are right."""
    if case.kind == "malformed":
        status = answers[0].status
        if 400 <= status < 500:
            return ""
        return f"got status {status}, expected a rejection" if status else answers[0].error
    for answer in answers:
        if answer.status != 200 or answer.table is None:
            return answer.error or f"got status {answer.status}"
    tables = [answer.table for answer in answers if answer.table is not None]
    tolerance = float(case.rule.get("tolerance", _TOLERANCE))
    if case.kind == "golden":
        return _golden(tables[0], case.rule["expect"], tolerance)
    if case.kind == "labelled":
        return _labelled(tables[0], case.rule)
    if case.kind == "invariance":
        a, b = tables
        if a.names != b.names or a.rows != b.rows:
            return "the responses have different columns or rows"
        for index, (x, y) in enumerate(zip(a.values, b.values, strict=True)):
            if not _near(x, y, tolerance):
                return f"{a.names[index % len(a.names)]}: {x!r} and {y!r} for equivalent requests"
        return ""
    name = str(case.rule["prediction"])
    first, second = (_cell(table, name) for table in tables)
    if not isinstance(first, (int, float)) or not isinstance(second, (int, float)):
        return f"{name}: is not a number"
    change = second - first if case.rule["direction"] == "up" else first - second
    if change < -tolerance:
        return f"{name} went from {first:g} to {second:g}, not {case.rule['direction']}"
    return ""


def _golden(table: Table, expect: Mapping[str, Any], tolerance: float) -> str:
    for name, wanted in expect.items():
        if name not in table.names:
            return f"{name}: is not in the response, which has {', '.join(table.names)}"
        cells = table.column(name)
        wanted_cells = wanted if isinstance(wanted, list) else [wanted]
        if len(cells) != len(wanted_cells):
            return f"{name}: {len(cells)} rows instead of {len(wanted_cells)}"
        for have, want in zip(cells, wanted_cells, strict=True):
            if not _near(have, want, tolerance):
                return f"{name}: {have!r} instead of {want!r}"
    return ""


def _labelled(table: Table, rule: Mapping[str, Any]) -> str:
    payload = _cell(table, str(rule["prediction"]))
    label, threshold = rule["label"], rule.get("threshold")
    if threshold is not None:
        right = isinstance(payload, (int, float)) and (payload > float(threshold)) == bool(label)
    else:
        right = _near(payload, label, _TOLERANCE)
    return "" if right else f"{payload!r} for a label of {label!r}"


def _cell(table: Table, name: str) -> object:
    return table.column(name)[0] if name in table.names and table.rows else None


def _near(a: object, b: object, tolerance: float) -> bool:
    numbers = isinstance(a, (int, float)) and isinstance(b, (int, float))
    if numbers and not isinstance(a, bool) and not isinstance(b, bool):
        return math.isclose(float(a), float(b), rel_tol=tolerance, abs_tol=tolerance)  # type: ignore[arg-type]
    return a == b
