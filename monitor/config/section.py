"""What every mapping of the configuration file has in common."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Section(BaseModel):
    """Unknown keys are refused: a misspelt limit must not silently be no limit.

    Values are taken strictly: ``rate: true`` is no number, ``version: 1`` is no text.
    """

    model_config = ConfigDict(
        extra="forbid", frozen=True, strict=True, use_attribute_docstrings=True
    )
