"""Limits of language models' times, within which an answer is good."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from understudy.common.fields import Seconds
from understudy.common.units import seconds
from understudy.monitor.config.section import Section

PRESETS = {
    "llama2-70b": (2.0, 0.2),
    "llama2-70b-interactive": (0.45, 0.04),
    "llama3.1-8b": (2.0, 0.1),
    "llama3.1-8b-interactive": (0.5, 0.03),
    "llama3.1-405b": (6.0, 0.175),
    "llama3.1-405b-interactive": (4.5, 0.08),
    "deepseek-r1": (2.0, 0.08),
    "deepseek-r1-interactive": (1.5, 0.015),
    "gpt-oss-120b": (3.0, 0.08),
    "gpt-oss-120b-interactive": (2.0, 0.02),
    "mixtral-8x7b": (2.0, 0.2),
}
"""MLPerf Inference's limits for ttft and tpot in seconds, by scenario: server, and interactive."""
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
