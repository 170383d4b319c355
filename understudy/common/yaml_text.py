"""Reads YAML that people write: keys are texts, and no key is there twice."""

from __future__ import annotations

import re
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Any, TypeVar

import yaml

from understudy.common.text import visible
from understudy.common.unreadable import why_unreadable

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


_INDENTATION = "the indentation does not fit the lines before"
_UNCLOSED = "a quote is not closed"
_PLAIN = (
    ("mapping values are not allowed", "a ': ' does not fit here: put text that has one in quotes, "
     "or check the indentation"),
    ("cannot start any token", "no value begins with {}: put text in quotes, and indent with "
     "spaces"),
    ("could not find expected ':'", "a ':' is missing after a key"),
    ("did not find expected key", _INDENTATION),
    ("expected <block end>", _INDENTATION),
    ("did not find expected '-' indicator", _INDENTATION),
    ("found unexpected end of stream", _UNCLOSED),
    ("expected ',' or", "a ',' or a closing bracket is missing"),
    ("undefined alias", "{} is not defined: an anchor (&name) stands before its aliases (*name)"),
    ("expected the node content", "a value is missing"),
    ("did not find expected node content", "a value is missing"),
    ("unknown escape character", "not a valid escape in double quotes: use single quotes, or a "
     "double backslash"),
    ("could not determine a constructor for the tag", "the tag {} is not known"),
    ("expected <document start>", "the document has ended before: '---' begins another one"),
    ("expected '<document start>'", "the document has ended before: '---' begins another one"),
)  # fmt: skip
"""A part of what parsers say, and the same in plain words; ``{}`` is what they quote."""


def read_text(path: Path) -> str:
    """The text of a file. Raises YamlError with the reason where it cannot be read."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise YamlError(f"cannot be read: {why_unreadable(path, error)}") from error


def read_yaml(text: str) -> object:
    """The one document of a text. Raises YamlError."""
    return checked(lambda: yaml.load(text, Loader=_Loader))  # noqa: S506  # a SafeLoader


def read_documents(text: str) -> list[object]:
    """All documents of a text that are not empty. Raises YamlError."""
    found = checked(lambda: list(yaml.load_all(text, Loader=_Loader)))
    return [one for one in found if one is not None]


def checked(read: Callable[[], T], before: int = 0) -> T:
    """What a parser of PyYAML returns; ``before`` is the number of lines before its text in the
    file. Raises YamlError."""
    try:
        return read()
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + before + 1 if mark else 0
        where = f"line {line}, column {mark.column + 1}: " if mark else ""
        # What is valid YAML and yet refused, as a key that is there twice, comes from constructors.
        kind = "" if isinstance(error, yaml.constructor.ConstructorError) else "not valid YAML: "
        raise YamlError(visible(f"{where}{kind}{_plain(error.problem or str(error))}")) from error
    except (yaml.YAMLError, ValueError, OverflowError) as error:
        raise YamlError(visible(f"is not valid YAML: {' '.join(str(error).split())}")) from error
    except (TypeError, AttributeError) as error:
        raise YamlError("is not valid YAML: a value does not fit its tag") from error
    except RecursionError as error:
        raise YamlError("is nested too deeply") from error


def _plain(problem: str) -> str:
    """The problem in plain words, as far as it is known."""
    quoted = re.search(r"'((?:[^'\\]|\\.)*)'", problem)
    for part, words in _PLAIN:
        if part in problem:
            unnamed = "this alias" if "alias" in part else "this character"
            return words.format(repr(quoted[1]) if quoted is not None else unnamed)
    return problem
