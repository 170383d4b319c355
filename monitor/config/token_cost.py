"""Prices of a language model's tokens."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from understudy.monitor.config.section import Section

PER = 1e6
"""Prices are those of so many tokens, as price lists have them."""
Price = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class TokenCost(Section):
    """Prices of a million tokens, in any currency. They are the same for all arms."""

    prompt: Price = 0.0
    """Of a prompt."""
    cached: Price | None = None
    """Of those of a prompt that the server had in its cache; default: as the others."""
    output: Price = 0.0
    """Of an answer, with those of reasoning."""

    @model_validator(mode="after")
    def _some(self) -> TokenCost:
        if not self.prompt and not self.output:
            raise ValueError("give the price of at least one of prompt, output")
        return self


def prices_of(declared: Mapping[str, Any] | None) -> tuple[float, float, float] | None:
    """Prices of one token of a prompt, of a cached one, and of an answer, by a TokenCost as plain
    data."""
    if not declared:
        return None
    prompt, cached = float(declared.get("prompt") or 0.0), declared.get("cached")
    output = float(declared.get("output") or 0.0)
    return prompt / PER, (prompt if cached is None else float(cached)) / PER, output / PER
