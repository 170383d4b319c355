"""Lists the limits of a model of pydantic, as texts with their units."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel


def limits_of(model: BaseModel, *, given: bool = False) -> Iterator[tuple[str, str]]:
    """(path, text) of each duration, share and rate of ``model``, such as ``("timeout", "30s")``.

    ``given``: only what its file sets, without defaults.
    """
    dumped = model.model_dump(by_alias=True)
    for name, field in type(model).model_fields.items():
        key = field.alias or name
        if not given or name in model.model_fields_set:
            yield from _limits(key, getattr(model, name), dumped[key], given)


def _limits(path: str, value: Any, text: Any, given: bool) -> Iterator[tuple[str, str]]:
    if isinstance(value, BaseModel):
        for inner, limit in limits_of(value, given=given):
            yield f"{path}.{inner}", limit
    elif isinstance(value, dict):
        for name, one in value.items():
            yield from _limits(f"{path}.{name}", one, text[name], given)
    elif isinstance(value, (list, tuple)):
        for number, one in enumerate(value):
            yield from _limits(f"{path}[{number}]", one, text[number], given)
    elif isinstance(value, (int, float)) and isinstance(text, str):
        yield path, text
