"""Turns pydantic's errors into messages that name the key, the value and the valid values."""

from __future__ import annotations

import difflib
import types
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel

from understudy.monitor.config.checks import Problem
from understudy.monitor.config.fields import NOT_SHOWN
from understudy.monitor.config.model import Config

_SECRETS = ("token", "password", "secret", "api_key")
_LONGEST_VALUE = 80


def problem(item: Any, data: object, root: type[BaseModel] = Config) -> Problem:
    """One entry of ``ValidationError.errors()``, for the mapping ``data`` read from the file.

    ``root`` is the model of the whole file.
    """
    location: tuple[int | str, ...] = item["loc"]
    path = dotted(location, data)
    kind = item["type"]
    if kind == "extra_forbidden":
        return path, _unknown(str(location[-1]), known_keys(location[:-1], root))
    if kind == "missing":
        return path, "is required"
    value = item.get("input")
    if kind == NOT_SHOWN:
        return path, item["msg"]
    if value is None:
        return path, "is empty: give it a value, or remove the key"
    if kind == "value_error":
        # Our own messages contain the value already; messages about a section need none.
        return path, item["msg"].removeprefix("Value error, ")
    return path, f"{_expected(item, location, root)} (found {_short(value)})"


def dotted(location: Iterable[int | str], data: object) -> str:
    """``challengers[0].mirror.rate``: as far as the file goes, and a step more for what is missing.

    Steps beyond that are names of pydantic's own, as of the branches of a union.
    """
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif isinstance(data, dict):
            path += f".{step}" if path else step
        else:
            break
        try:
            data = data[step]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            data = None
    return path


def known_keys(location: Iterable[int | str], root: type[BaseModel] = Config) -> list[str]:
    """The keys that the configuration knows at this place, sorted."""
    section = root
    steps = iter(location)
    for step in steps:
        for name, field in section.model_fields.items():
            if (field.alias or name) == step:
                nested = _section_in(field.annotation)
                if nested is None:
                    return []
                if typing.get_origin(field.annotation) is dict:
                    next(steps, None)  # any key
                section = nested
                break
    return sorted(field.alias or name for name, field in section.model_fields.items())


def _section_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    containers = (list, dict, typing.Union, types.UnionType, typing.Annotated)
    if typing.get_origin(annotation) in containers:
        for part in typing.get_args(annotation):
            found = _section_in(part)
            if found is not None:
                return found
    return None


def _unknown(key: str, known: list[str]) -> str:
    close = difflib.get_close_matches(key, known, n=1)
    if key in _SECRETS:
        names = "; name that in token_env" if "token_env" in known else ""
        return f"secrets must not be in the file: use an environment variable{names}"
    if close:
        return f"unknown key; did you mean {close[0]!r}?"
    return f"unknown key; known: {', '.join(known)}"


def _expected(item: Any, location: tuple[int | str, ...], root: type[BaseModel]) -> str:
    kind = item["type"]
    if kind in ("model_type", "model_attributes_type", "dict_type"):
        keys = known_keys(location, root) if kind != "dict_type" else []
        also = "host:port, or " if location == ("listen",) else ""
        also = "text, or " if location[-2:-1] == ("headers",) else also
        return f"must be {also}a mapping" + (f" with {', '.join(keys)}" if keys else "")
    if kind == "list_type":
        return "must be a list"
    if kind == "too_short":
        return "must have at least one entry"
    if kind == "string_type":
        return "must be text; write it in quotes"
    if kind == "literal_error":
        message = f"must be {item['ctx']['expected']}"
        choices = [choice.strip("'") for choice in item["ctx"]["expected"].split("'")[1::2]]
        close = difflib.get_close_matches(str(item["input"]), choices, n=1)
        return message + (f"; did you mean {close[0]!r}?" if close else "")
    text: str = item["msg"]
    return text.replace("Input should", "must").replace("String should", "must")


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + " …"
