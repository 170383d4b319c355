"""From a YAML file to a :class:`Config`, or to a list of what is wrong with it."""

from __future__ import annotations

import difflib
import ssl
import types
import typing
from collections.abc import Hashable
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ValidationError

from monitor.config.model import Config
from monitor.errors import ConfigError

Problem = tuple[str, str]


class _Loader(yaml.SafeLoader):
    """YAML in which a key may stand only once in a mapping."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[Hashable] = set()
    for key_node, _ in node.value:
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, Hashable):
            continue
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} stands twice", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def load(path: Path) -> Config:
    """Read and check the file. Raises ConfigError with every problem that was found.

    Relative file names in it are taken from the file's own folder.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(str(path), [("", f"cannot be read: {_reason(error)}")]) from error
    return parse(text, str(path), path.resolve().parent)


def parse(text: str, source: str, base: Path) -> Config:
    """The same for a text; ``source`` names it in messages, ``base`` is the folder for files."""
    try:
        data = yaml.load(text, Loader=_Loader)  # noqa: S506 - a SafeLoader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ConfigError(source, [("", f"{where}{error.problem or error}")]) from error
    except yaml.YAMLError as error:
        raise ConfigError(source, [("", f"is no YAML: {error}")]) from error
    if not isinstance(data, dict):
        raise ConfigError(source, [("", "must hold a mapping with version, listen, models …")])
    try:
        config = Config.model_validate(data)
    except ValidationError as error:
        raise ConfigError(source, [_problem(item, data) for item in error.errors()]) from error
    config = _resolved(config, base)
    problems = _cross_checks(config)
    if problems:
        raise ConfigError(source, problems)
    return config


def _reason(error: Exception) -> str:
    return error.strerror or str(error) if isinstance(error, OSError) else "it is not UTF-8"


def _dotted(location: tuple[int | str, ...], data: object) -> str:
    """``challengers[0].mirror.rate``: as far as the file goes, and one step more for what is missing."""
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


def _problem(item: Any, data: object) -> Problem:
    location = item["loc"]
    path = _dotted(location, data)
    message = item["msg"].removeprefix("Value error, ")
    if item["type"] == "extra_forbidden":
        known = _keys_at(location[:-1])
        close = difflib.get_close_matches(str(location[-1]), known, n=1)
        hint = f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(sorted(known))}"
        return path, f"unknown key{hint}"
    if item["type"] == "missing":
        return path, "is required"
    value = item.get("input")
    if isinstance(value, (str, int, float, bool)) and repr(value) not in message:
        message = f"{message} (found {value!r})"
    return path, message[:1].lower() + message[1:]


def _keys_at(location: tuple[int | str, ...]) -> list[str]:
    """The keys that the configuration knows at this place."""
    model: type[BaseModel] = Config
    for step in location:
        if isinstance(step, int):
            continue
        for name, field in model.model_fields.items():
            if (field.alias or name) == step:
                nested = _model_in(field.annotation)
                if nested is None:
                    return []
                model = nested
    return [field.alias or name for name, field in model.model_fields.items()]


def _model_in(annotation: object) -> type[BaseModel] | None:
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if typing.get_origin(annotation) in (list, typing.Union, types.UnionType, typing.Annotated):
        for part in typing.get_args(annotation):
            found = _model_in(part)
            if found is not None:
                return found
    return None


def _resolved(config: Config, base: Path) -> Config:
    """The configuration with file names made absolute."""

    def absolute(name: str) -> str:
        return str(base / Path(name).expanduser())

    changes: dict[str, Any] = {"state_dir": absolute(config.state_dir)}
    tls = config.listen.tls
    if tls is not None:
        files = {"certificate": absolute(tls.certificate), "key": absolute(tls.key)}
        changes["listen"] = config.listen.model_copy(update={"tls": tls.model_copy(update=files)})

    def with_ca(upstream: Any) -> Any:
        if upstream.tls is None or upstream.tls.ca is None:
            return upstream
        ca = {"ca": absolute(upstream.tls.ca)}
        return upstream.model_copy(update={"tls": upstream.tls.model_copy(update=ca)})

    changes["champion"] = with_ca(config.champion)
    changes["challengers"] = [with_ca(challenger) for challenger in config.challengers]
    return config.model_copy(update=changes)


def _cross_checks(config: Config) -> list[Problem]:
    """What only shows when the sections are seen together, or with the files they name."""
    problems: list[Problem] = []
    arms = {config.champion.name: "champion"}
    for index, challenger in enumerate(config.challengers):
        path = f"challengers[{index}].name"
        if challenger.name in arms:
            problems.append((path, f"{challenger.name!r} is already the name of another arm"))
        arms[challenger.name] = path
    models: set[tuple[str, str]] = set()
    for index, model in enumerate(config.models):
        if (model.name, model.version) in models:
            message = f"{model.name!r} stands twice with version {model.version!r}"
            problems.append((f"models[{index}].name", message))
        models.add((model.name, model.version))
        if model.name == "other":
            problems.append((f"models[{index}].name", "'other' is what is no inference"))
    if not config.control.loopback and config.control.token_env is None:
        message = "is open to other machines: name a token in control.token_env"
        problems.append(("control.listen", f"{config.control.listen!r} {message}"))
    tls = config.listen.tls
    if tls is not None:
        try:
            ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER).load_cert_chain(tls.certificate, tls.key)
        except (OSError, ssl.SSLError) as error:
            message = f"{tls.certificate!r} and {tls.key!r} cannot be used: {error}"
            problems.append(("listen.tls", message))
    for path, upstream in (
        ("champion", config.champion),
        *((f"challengers[{i}]", challenger) for i, challenger in enumerate(config.challengers)),
    ):
        if upstream.tls is not None and upstream.tls.ca is not None:
            try:
                ssl.create_default_context(cafile=upstream.tls.ca)
            except (OSError, ssl.SSLError) as error:
                problems.append((f"{path}.tls.ca", f"{upstream.tls.ca!r} cannot be used: {error}"))
    return problems
