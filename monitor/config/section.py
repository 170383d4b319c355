"""What every mapping of the configuration file has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Unknown keys are refused: a misspelt limit must not silently be no limit.

    Types are strict: ``rate: true`` is not a number, ``version: 1`` is not a text.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )
