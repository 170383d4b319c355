"""Says in plain words what is wrong in a file, by the errors of the pydantic model that reads it.

Each problem is the dotted path of a key and a message with the value and what is allowed. The words
and addresses of pydantic itself never reach a user.
"""

from __future__ import annotations

import types
import typing
from collections.abc import Iterable
from typing import Any

from pydantic import BaseModel, ValidationError

from understudy.common.text import did_you_mean, visible
from understudy.common.units import (
    BYTES,
    HOUR,
    RATES,
    SECONDS,
    quantity,
    write_rate,
    write_seconds,
    write_share,
)

Problem = tuple[str, str]
"""Dotted path and message."""

NOT_SHOWN = "not_shown"
"""Type of errors whose value may be a secret and must not be repeated in a message."""

_SECRETS = ("token", "password", "secret", "api_key")
_LONGEST_VALUE = 80
_KINDS = {
    "bool_type": "must be a valid boolean: true or false",
    "bool_parsing": "must be a valid boolean: true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "int_parsing_size": "must be a smaller whole number",
    "float_type": "must be a number",
    "float_parsing": "must be a number",
    "finite_number": "must be a finite number",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "string_type": "must be text; write it in quotes",
    "path_type": "must be the name of a file",
    "none_required": "must be empty",
}
"""What is expected, by pydantic's type of an error."""
_BOUNDS = {
    "greater_than": ("gt", "must be greater than"),
    "greater_than_equal": ("ge", "must be greater than or equal to"),
    "less_than": ("lt", "must be less than"),
    "less_than_equal": ("le", "must be less than or equal to"),
}
_LENGTHS = {
    "too_short": ("min_length", "must have at least", "entry", "entries"),
    "too_long": ("max_length", "must have at most", "entry", "entries"),
    "string_too_short": ("min_length", "must have at least", "character", "characters"),
    "string_too_long": ("max_length", "must have at most", "character", "characters"),
}


def problems(error: ValidationError, data: object, root: type[BaseModel]) -> list[Problem]:
    """Every problem, one for each key, for the mapping ``data`` read from the file.

    ``root`` is the model of the whole file.
    """
    found: dict[str, list[tuple[bool, str]]] = {}
    for item in error.errors(include_url=False):
        path, message = problem(item, data, root)
        of_value = item["type"] in ("value_error", NOT_SHOWN)
        found.setdefault(path, []).append((of_value, message))
    return [(path, _alternatives(said)) for path, said in found.items()]


def _alternatives(said: list[tuple[bool, str]]) -> str:
    """One message for a value that is none of several kinds; one of our own is the clearest."""
    own = [message for of_value, message in said if of_value]
    messages = list(dict.fromkeys(own or (message for _, message in said)))
    if len(messages) == 1:
        return messages[0]
    ends = {message.rpartition(" (found ")[2] for message in messages}
    starts = [message.rpartition(" (found ")[0] for message in messages]
    if len(ends) == 1 and all(start.startswith("must be ") for start in starts):
        kinds = " or ".join(start.removeprefix("must be ").partition(";")[0] for start in starts)
        return f"must be {kinds} (found {ends.pop()}"
    return "; or ".join(messages)


def problem(item: Any, data: object, root: type[BaseModel] | None = None) -> Problem:
    """One entry of ``ValidationError.errors()``; without ``root``, known keys are not named."""
    location: tuple[int | str, ...] = item["loc"]
    path = dotted(location, data)
    kind = item["type"]
    if kind == "extra_forbidden":
        return path, unknown_key(str(location[-1]), known_keys(location[:-1], root))
    if kind == "missing":
        return path, "is required"
    if kind == NOT_SHOWN:
        return path, item["msg"]
    value = _written(location, data, item.get("input"))
    if value is None:
        return path, "is empty: give it a value, or remove the key"
    if kind == "value_error":
        # Our own messages contain the value already; messages about a section need none.
        return path, item["msg"].removeprefix("Value error, ")
    return path, f"{_expected(item, location, root, value)} (found {_short(value)})"


def dotted(location: Iterable[int | str], data: object) -> str:
    """``challengers[0].mirror.rate``: as far as the file goes, and a step more for what is missing.

    Steps beyond that are names of pydantic's own, as of the branches of a union.
    """
    path = ""
    for step in location:
        if isinstance(step, int):
            path += f"[{step}]"
        elif isinstance(data, dict):
            name = visible(step)
            path += f".{name}" if path else name
        else:
            break
        try:
            data = data[step]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            data = None
    return path


def known_keys(location: Iterable[int | str], root: type[BaseModel] | None) -> list[str]:
    """The keys that the model knows at this place, sorted."""
    if root is None:
        return []
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


def unknown_key(key: str, known: list[str]) -> str:
    """The message about a key that is not one of ``known``."""
    if key in _SECRETS:
        names = "; name that in token_env" if "token_env" in known else ""
        return f"secrets must not be in the file: use an environment variable{names}"
    listed = f"; known: {', '.join(known)}" if known else ""
    return f"unknown key{did_you_mean(key, known) or listed}"


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


def _written(location: Iterable[int | str], data: object, given: object) -> object:
    """The value as it stands in the file; ``given``, which may have been parsed, where there is
    none at the place."""
    for step in location:
        try:
            data = data[step]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            return given
    return given if isinstance(data, (dict, list)) else data


def _expected(
    item: Any, location: tuple[int | str, ...], root: type[BaseModel] | None, value: object
) -> str:
    kind = item["type"]
    context = item.get("ctx") or {}
    if kind in _KINDS:
        return _KINDS[kind]
    if kind in _BOUNDS:
        name, words = _BOUNDS[kind]
        return f"{words} {_bound(context[name], value)}"
    if kind in _LENGTHS:
        name, words, one, several = _LENGTHS[kind]
        number = context[name]
        if number == 1:
            return f"{words} one {one}"
        return f"{words} {number:,} {several}"
    if kind in ("model_type", "model_attributes_type", "dict_type", "mapping_type"):
        keys = known_keys(location, root) if kind.startswith("model") else []
        also = "host:port, or " if location == ("listen",) else ""
        also = "text, or " if location[-2:-1] == ("headers",) else also
        return f"must be {also}a mapping" + (f" with {', '.join(keys)}" if keys else "")
    if kind == "literal_error":
        choices = [choice.strip("'") for choice in context["expected"].split("'")[1::2]]
        return f"must be {context['expected']}{did_you_mean(str(item['input']), choices)}"
    if kind == "string_pattern_mismatch":
        return f"must match pattern '{context['pattern']}'"
    return "is not a valid value"


def _bound(limit: Any, value: object) -> str:
    """A limit in the kind of unit in which the value is written."""
    if not isinstance(limit, (int, float)):
        return str(limit)
    found = quantity(value) if isinstance(value, str) else None
    if found is not None and limit:
        unit = found[1]
        if unit in SECONDS:
            written = write_seconds(float(limit))
            return f"{limit:.12g}s ({written})" if limit >= HOUR else written
        if unit == "%":
            return write_share(float(limit))
        if unit in RATES:
            return write_rate(float(limit))
        if unit.removesuffix("/s") in BYTES:
            return f"{limit}B{'/s' if unit.endswith('/s') else ''}"
    return f"{limit:.12g}" if isinstance(limit, float) else str(limit)


def _short(value: object) -> str:
    text = visible(repr(value))
    return text if len(text) <= _LONGEST_VALUE else text[:_LONGEST_VALUE] + " …"
