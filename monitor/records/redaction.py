"""Redaction rules: which fields of recorded payloads are hidden.

A rule is a glob over a dotted field name, as in ``ssn`` or ``customer.*``; names that look alike
(upper and lower case, wide letters, spaces at the ends, invisible characters) are the same. It
hides a field when it matches the field's whole path or any tail of it, so ``ssn`` also hides
``customer.ssn``, and everything inside of a hidden field is hidden with it. Items of a list have
the path of the list. A text that holds JSON is looked into, and so is ``name=value`` in a text, a
header or a request target.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from typing import Any
from urllib.parse import unquote_plus

import orjson

from understudy.monitor.records.credentials import (
    CREDENTIAL_FIELDS,
    CREDENTIAL_HEADERS,
    CREDENTIAL_QUERY,
    matcher,
    names_in,
)

REDACTED = "[redacted]"
_MAX_DEPTH = 64
_MAX_NAME = 256
_BETWEEN = re.compile(r"([&;,\s]+)")
"""Between the pairs of a text."""
_IN_TARGET = re.compile(r"([/?&;])")
_INDEX = re.compile(r"\[([^\[\]]*)\]")


def _folded(name: str) -> str:
    """The form of a name in which names that look alike are equal."""
    if not name.isascii():
        name = unicodedata.normalize("NFKC", name)
        name = "".join(c for c in name if unicodedata.category(c) != "Cf")
    return ".".join(key.strip() for key in name.casefold().split("."))


def _decoded(text: str) -> list[str]:
    """A text, and what it is after decoding it as part of a URL, until nothing changes."""
    found = [text]
    while len(found) < 4 and (decoded := unquote_plus(found[-1])) != found[-1]:
        found.append(decoded)
    return found


class _Hits:
    """Hidden fields, path and key of each: those of rules, and those of credentials alone."""

    __slots__ = ("credentials", "ruled")

    def __init__(self) -> None:
        self.ruled: list[tuple[str, str]] = []
        self.credentials: list[tuple[str, str]] = []

    def add(self, ruled: bool, path: str, key: str | None = None) -> None:
        found = self.ruled if ruled else self.credentials
        found.append((path, path.rpartition(".")[2] if key is None else key))


@dataclass(frozen=True, slots=True)
class Shown:
    """A redacted payload. ``hits`` are the fields that a rule hides: path and key of each; the key
    is empty when the whole payload was withheld because of it. ``credentials`` are the same of
    fields that are hidden without a rule."""

    data: Any
    hits: tuple[tuple[str, str], ...]
    credentials: tuple[tuple[str, str], ...] = ()

    def covered_by(self, names: Iterable[str]) -> bool:
        """Whether every hidden field is one of these decoded columns."""
        have = {name.lower() for name in names}
        return all(path.lower() in have or key.lower() in have for path, key in self.hits)


class Redaction:
    """Compiled rules. Without rules only credentials are hidden: the usual headers, query
    parameters and fields, and those that match the patterns given here. ``paths`` are the dotted
    paths of fields by the name of their column: a rule that hides one of the paths hides the name.
    """

    def __init__(
        self,
        rules: Iterable[str],
        paths: Mapping[str, Iterable[str]] | None = None,
        credential_headers: Iterable[str] = (),
        credential_query: Iterable[str] = (),
    ) -> None:
        self.rules = tuple(rules)
        self._paths = {name: tuple(of_name) for name, of_name in (paths or {}).items()}
        # Every rule is tried on every tail of a path.
        self._matches = (
            re.compile("|".join(translate(_folded(rule)) for rule in self.rules)).match
            if self.rules
            else None
        )
        self._known: dict[str, bool] = {}
        self._known_fields: dict[str, bool] = {}
        self._is_credential = matcher((*CREDENTIAL_HEADERS, *credential_headers))
        self._is_secret = matcher((*CREDENTIAL_QUERY, *credential_query))
        self._is_secret_field = matcher(
            (*CREDENTIAL_FIELDS, *credential_headers, *credential_query)
        )

    def columns(self, columns: Mapping[str, list[object]]) -> dict[str, object]:
        """Redacted columns; of a single row its cells."""
        return {
            name: self.value(name, cells[0] if len(cells) == 1 else cells)
            for name, cells in columns.items()
        }

    def hides(self, path: str) -> bool:
        """Whether the field at a dotted path is hidden."""
        return self._ruled(path) or self._is_credential_field(path)

    def _is_credential_field(self, path: str) -> bool:
        """Whether a key of a dotted path names a credential."""
        known = self._known_fields.get(path)
        if known is None:
            keys = _folded(path).encode("utf-8", "replace").split(b".")
            known = any(map(self._is_secret_field, keys))
            if len(self._known_fields) < 10_000 and len(path) < _MAX_NAME:
                self._known_fields[path] = known
        return known

    def _ruled(self, path: str) -> bool:
        """Whether a rule hides the field at a dotted path."""
        if self._matches is None:
            return False
        known = self._known.get(path)
        if known is None:
            known = any(self._decide(_folded(one)) for one in (path, *self._paths.get(path, ())))
            if len(self._known) < 10_000 and len(path) < _MAX_NAME:
                self._known[path] = known
        return known

    def _decide(self, path: str) -> bool:
        assert self._matches is not None
        keys = path.split(".")
        return any(
            self._matches(".".join(keys[start:end]))
            for end in range(1, len(keys) + 1)
            for start in range(end)
        )

    def value(self, name: str, value: Any) -> Any:
        """A named value: hidden, or with hidden fields inside it."""
        return REDACTED if self.hides(name) else self._inside(value, name, _Hits(), 0)

    def touches(self, columns: Mapping[str, Any]) -> bool:
        """Whether redaction would change any of the named values."""
        return any(self.value(name, value) != value for name, value in columns.items())

    def target(self, target: str) -> str:
        """A request target with parameters hidden by name, and segments after a hidden name."""
        if self._matches is None and "?" not in target:
            return target
        parts = _IN_TARGET.split(target)
        hide_next = in_query = False
        for place, part in enumerate(parts):
            if place % 2:  # what is between
                hide_next = hide_next and part == "/"
                in_query = in_query or part == "?"
                continue
            name, equals, value = part.partition("=")
            hidden = self._hides_encoded(name)
            if hide_next and part:
                parts[place] = REDACTED
            elif equals and (
                hidden or self._holds_hidden(value) or (in_query and self._names_secret(name))
            ):
                parts[place] = f"{name}={REDACTED}"
            hide_next = hidden and not equals
        return "".join(parts)

    def header(self, name: str, value: str) -> str:
        """The value of a header: hidden by its name, with or without ``x-``, or in part."""
        name = name.lower()
        names = (name, name.removeprefix("x-"), f"headers.{name}")
        if self._is_credential(name.encode("utf-8", "replace")) or any(map(self.hides, names)):
            return REDACTED
        return self.text(value)

    def text(self, text: str) -> str:
        """A text with hidden values: in JSON, if it is JSON; else of ``name=value`` and ``name:
        value``."""
        data = _json(text)
        if data is not None:
            shown = self.payload(data[0]).data
            return text if shown == data[0] else _dumped(shown)
        if self._matches is None:
            return text
        parts = _BETWEEN.split(text)
        hide_next = False
        for place in range(0, len(parts), 2):
            part = parts[place]
            if hide_next and part:
                parts[place], hide_next = REDACTED, False
                continue
            name, mark, value = _pair(part)
            if mark and self._hides_encoded(name):
                parts[place] = f"{name}{mark}{REDACTED if value else ''}"
                hide_next = not value
        return "".join(parts)

    def _hides_encoded(self, name: str) -> bool:
        """Whether a name is hidden, as in a URL: encoded, or with keys in brackets."""
        name = name.strip("\"'{}() ")
        if not 0 < len(name) < _MAX_NAME:
            return False
        return any(self.hides(_INDEX.sub(r".\1", one).strip(".")) for one in _decoded(name))

    def _names_secret(self, name: str) -> bool:
        """Whether a parameter of this name carries a credential."""
        encoded = (one.encode("utf-8", "replace") for one in _decoded(name))
        return any(self._is_secret(key) for one in encoded for key in names_in(one))

    def _holds_hidden(self, value: str) -> bool:
        """Whether a parameter's value holds hidden fields itself."""
        return any(self.text(one) != one for one in _decoded(value))

    def payload(self, data: Any) -> Shown:
        """A JSON payload with hidden keys at any depth, and hidden tensors of the V2 protocol.

        It is withheld as a whole when it contains a hidden name as a string: such a name refers to
        data elsewhere in the payload, as a column name of a table does.
        """
        hits = _Hits()
        data = self._inside(data, "", hits, 0)
        if any(not key for _, key in hits.ruled):
            data = REDACTED
        return Shown(data, tuple(hits.ruled), tuple(hits.credentials))

    def _inside(self, value: Any, path: str, hits: _Hits, depth: int) -> Any:
        if depth > _MAX_DEPTH:
            hits.add(self._matches is not None, path, "")
            return REDACTED
        if isinstance(value, dict):
            return self._object(value, path, hits, depth)
        if isinstance(value, list):
            return [self._inside(item, path, hits, depth + 1) for item in value]
        if isinstance(value, str):
            return self._string(value, path, hits)
        return value

    def _string(self, value: str, path: str, hits: _Hits) -> Any:
        if len(value) < _MAX_NAME and self._ruled(value):
            hits.ruled.append((value, ""))
            return REDACTED
        shown = self.text(value)
        if shown != value:
            hits.add(self._matches is not None, path)
        return shown

    def _object(self, value: dict[str, Any], path: str, hits: _Hits, depth: int) -> dict[str, Any]:
        name = value.get("name")
        if isinstance(name, str) and "data" in value and self.hides(name):
            hits.add(self._ruled(name), name)
            return {**value, "data": REDACTED}
        shown: dict[str, Any] = {}
        for key, item in value.items():
            inner = f"{path}.{key}" if path else str(key)
            if self.hides(inner):
                hits.add(self._ruled(inner), inner, str(key))
                shown[key] = REDACTED
            else:
                shown[key] = self._inside(item, inner, hits, depth + 1)
        return shown


def _json(text: str) -> tuple[Any] | None:
    """The object or list in a text; None for any other text."""
    if not text.lstrip().startswith(("{", "[")):
        return None
    try:
        return (orjson.loads(text),)
    except (orjson.JSONDecodeError, UnicodeEncodeError):
        return None


def _dumped(data: Any) -> str:
    return orjson.dumps(data).decode()


def _pair(part: str) -> tuple[str, str, str]:
    """Name, mark and value of ``name=value`` or ``name:value``."""
    ends = [place for place in (part.find("="), part.find(":")) if place > 0]
    if not ends:
        return part, "", ""
    end = min(ends)
    return part[:end], part[end], part[end + 1 :]
