"""Results of earlier gates, from their JSON files: what a comparison needs of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from understudy.common.problems import problems
from understudy.common.unreadable import why_unreadable
from understudy.loadtest.engine.histogram import BUCKETS
from understudy.loadtest.errors import PlanError
from understudy.loadtest.gate.result import FORMAT
from understudy.loadtest.gate.verdict import Verdict

Count = Annotated[int, Field(ge=0)]
Figure = Annotated[float, Field(ge=0.0, allow_inf_nan=False)]


class _Stored(BaseModel):
    model_config = ConfigDict(strict=True, extra="ignore")


class _Load(_Stored):
    requests: Count
    failed: Count
    rate: Figure
    error_rate: Figure | None


class _Histogram(_Stored):
    buckets: list[Annotated[list[Count], Field(min_length=2, max_length=2)]]
    total: Figure
    largest: Figure

    @model_validator(mode="after")
    def _within(self) -> _Histogram:
        for index, _ in self.buckets:
            if index >= BUCKETS:
                raise ValueError(f"buckets: {index:,} is not one of the {BUCKETS:,} buckets")
        return self


class _Capacity(_Stored):
    low: Figure | None
    high: Figure | None


class _UntilBreak(_Stored):
    holds: Figure | None
    breaks: Figure | None


class _ColdStart(_Stored):
    seconds: Annotated[list[Figure], Field(min_length=1)]


_ABSENT: Any = Field(default=None)
"""A key may be absent, and is not null."""


class _Stage(_Stored):
    name: str
    kind: str
    verdict: Verdict
    why: list[str]
    late: bool = False
    load: _Load = _ABSENT
    histogram: _Histogram = _ABSENT
    capacity: _Capacity = _ABSENT
    until_break: _UntilBreak = _ABSENT
    cold_start: _ColdStart = _ABSENT

    @model_validator(mode="after")
    def _whole(self) -> _Stage:
        if (self.load is None) != (self.histogram is None):
            raise ValueError("has one of load and histogram, and needs both")
        return self


class _Environment(_Stored):
    cores: Count | None
    cores_usable: Count


class _Report(_Stored):
    stages: list[_Stage]
    environment: _Environment


def read(path: Path) -> dict[str, Any]:
    """Read the result of a gate from a JSON file. Raises PlanError, which names the keys that are
    damaged."""
    try:
        report = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise PlanError(f"{path}: cannot be read: {why_unreadable(path, error)}") from error
    again = f"understudy gate … --json-file {path}"
    if not isinstance(report, dict) or report.get("format") != FORMAT:
        raise PlanError(f"{path}: is not a gate result; write one: {again}")
    try:
        _Report.model_validate(report)
    except ValidationError as error:
        found = "; ".join(f"{key}: {text}" for key, text in problems(error, report, _Report)[:5])
        raise PlanError(
            f"{path}: is damaged, or of another version: {found}; write it again: {again}"
        ) from None
    return report
