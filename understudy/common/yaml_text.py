"""Reads YAML that people write: keys are texts, and no key is there twice."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from understudy.common.text import visible

T = TypeVar("T")
_MERGE = "tag:yaml.org,2002:merge"


class YamlError(ValueError):
    """A text that is not valid YAML; the message names the line."""


class _Loader(yaml.SafeLoader):
    """YAML loader that requires text keys and rejects duplicate keys."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Hashable, Any]:
    seen: set[str] = set()
    for key_node, _ in node.value:
        if key_node.tag == _MERGE:
            continue
        key = loader.construct_object(key_node, deep=True)
        if not isinstance(key, str):
            raise yaml.constructor.ConstructorError(
                None, None, f"the key {key!r} is not text; write it in quotes", key_node.start_mark
            )
        if key in seen:
            raise yaml.constructor.ConstructorError(
                None, None, f"duplicate key {key!r}", key_node.start_mark
            )
        seen.add(key)
    return loader.construct_mapping(node, deep=True)


_Loader.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def read_text(path: Path) -> str:
    """The text of a file. Raises YamlError with the reason where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise YamlError(f"cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise YamlError("cannot be read: it is not UTF-8") from error


def read_yaml(text: str) -> object:
    """The one document of a text. Raises YamlError."""
    return _checked(lambda: yaml.load(text, Loader=_Loader))  # noqa: S506  # a SafeLoader


def read_documents(text: str) -> list[object]:
    """All documents of a text that are not empty. Raises YamlError."""
    found = _checked(lambda: list(yaml.load_all(text, Loader=_Loader)))
    return [one for one in found if one is not None]


def _checked(read: Callable[[], T]) -> T:
    try:
        return read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        # What is valid YAML and yet refused, as a key that is there twice, comes from constructors.
        kind = "" if isinstance(error, yaml.constructor.ConstructorError) else "not valid YAML: "
        raise YamlError(visible(f"{where}{kind}{error.problem or error}")) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise YamlError(visible(f"is not valid YAML: {' '.join(str(error).split())}")) from error
    except (TypeError, AttributeError) as error:
        raise YamlError("is not valid YAML: a value does not fit its tag") from error
    except RecursionError as error:
        raise YamlError("is nested too deeply") from error
