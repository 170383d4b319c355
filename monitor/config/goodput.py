"""Limits of language models' times, within which an answer is good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from understudy.common.fields import Seconds
from understudy.common.mlperf import PRESETS
from understudy.common.units import seconds
from understudy.monitor.config.section import Section

_TIMES = ("ttft", "tpot", "e2e")


class Goodput(Section):
    """The times within which an answer of a language model is good."""

    preset: Annotated[Literal[tuple(PRESETS)], Field()] | None = None  # type: ignore[valid-type]
    """MLPerf's limits of ttft and tpot for a model; those given beside it replace them."""
    ttft: Seconds | None = None
    """Largest time to the first token."""
    tpot: Seconds | None = None
    """Largest time per output token."""
    e2e: Seconds | None = None
    """Largest time to the last token."""

    @model_validator(mode="after")
    def _some(self) -> Goodput:
        if not any((self.preset, self.ttft, self.tpot, self.e2e)):
            raise ValueError(f"give at least one of preset, {', '.join(_TIMES)}")
        return self


def limits_of(declared: Mapping[str, Any] | None) -> tuple[tuple[str, float], ...]:
    """Columns of answers, each with its limit in seconds, by a Goodput as plain data."""
    if not declared:
        return ()
    given = {name: declared.get(name) for name in _TIMES}
    limits = {name: None if one is None else seconds(one) for name, one in given.items()}
    preset = PRESETS.get(str(declared.get("preset")))
    if preset is not None:
        for name, value in zip(_TIMES, preset, strict=False):
            limits[name] = value if limits[name] is None else limits[name]
    return tuple((f"{name}_seconds", value) for name, value in limits.items() if value is not None)
