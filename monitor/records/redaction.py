"""Redaction rules: which fields of recorded payloads are hidden.

A rule is a glob over a dotted field name, as in ``ssn`` or ``customer.*``; upper and lower case are
the same. It hides a field when it matches the field's whole path or any tail of it, so ``ssn`` also
hides ``customer.ssn``, and everything inside of a hidden field is hidden with it. Items of a list
have the path of the list.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from fnmatch import translate
from typing import Any
from urllib.parse import unquote_plus

REDACTED = "[redacted]"
_MAX_DEPTH = 64
_MAX_NAME = 256


@dataclass(frozen=True, slots=True)
class Shown:
    """A redacted payload. ``hits`` are the hidden fields: path and key of each; the key is empty
    when the whole payload was withheld because of it."""

    data: Any
    hits: tuple[tuple[str, str], ...]

    def covered_by(self, names: Iterable[str]) -> bool:
        """Whether every hidden field is one of these decoded columns."""
        have = {name.lower() for name in names}
        return all(path.lower() in have or key.lower() in have for path, key in self.hits)


class Redaction:
    """Compiled rules. Without rules nothing is hidden. ``paths`` are the dotted paths of fields by
    the name of their column: a rule that hides one of the paths hides the name."""

    def __init__(
        self, rules: Iterable[str], paths: Mapping[str, Iterable[str]] | None = None
    ) -> None:
        self.rules = tuple(rules)
        self._paths = {name: tuple(of_name) for name, of_name in (paths or {}).items()}
        # Every rule is tried on every tail of a path.
        self._matches = (
            re.compile("|".join(translate(rule.lower()) for rule in self.rules)).match
            if self.rules
            else None
        )
        self._known: dict[str, bool] = {}

    def columns(self, columns: Mapping[str, list[object]]) -> dict[str, object]:
        """Redacted columns; of a single row its cells."""
        return {
            name: self.value(name, cells[0] if len(cells) == 1 else cells)
            for name, cells in columns.items()
        }

    def hides(self, path: str) -> bool:
        """Whether the field at a dotted path is hidden."""
        if self._matches is None:
            return False
        known = self._known.get(path)
        if known is None:
            known = any(self._decide(one.lower()) for one in (path, *self._paths.get(path, ())))
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
        return REDACTED if self.hides(name) else self._inside(value, name, [], 0)

    def touches(self, columns: Mapping[str, Any]) -> bool:
        """Whether redaction would change any of the named values."""
        return any(self.value(name, value) != value for name, value in columns.items())

    def target(self, target: str) -> str:
        """A request target with query parameters hidden by name."""
        path, mark, query = target.partition("?")
        if not mark or self._matches is None:
            return target
        parts = []
        for part in query.split("&"):
            name, equals, _ = part.partition("=")
            hidden = equals and self.hides(unquote_plus(name))
            parts.append(f"{name}={REDACTED}" if hidden else part)
        return path + mark + "&".join(parts)

    def payload(self, data: Any) -> Shown:
        """A JSON payload with hidden keys at any depth, and hidden tensors of the V2 protocol.

        It is withheld as a whole when it contains a hidden name as a string: such a name refers to
        data elsewhere in the payload, as a column name of a table does.
        """
        hits: list[tuple[str, str]] = []
        data = self._inside(data, "", hits, 0)
        if any(not key for _, key in hits):
            return Shown(REDACTED, tuple(hits))
        return Shown(data, tuple(hits))

    def _inside(self, value: Any, path: str, hits: list[tuple[str, str]], depth: int) -> Any:
        if self._matches is None:
            return value
        if depth > _MAX_DEPTH:
            hits.append((path, ""))
            return REDACTED
        if isinstance(value, dict):
            return self._object(value, path, hits, depth)
        if isinstance(value, list):
            return [self._inside(item, path, hits, depth + 1) for item in value]
        if isinstance(value, str) and len(value) < _MAX_NAME and self.hides(value):
            hits.append((value, ""))
            return REDACTED
        return value

    def _object(
        self, value: dict[str, Any], path: str, hits: list[tuple[str, str]], depth: int
    ) -> dict[str, Any]:
        name = value.get("name")
        if isinstance(name, str) and "data" in value and self.hides(name):
            hits.append((name, name))
            return {**value, "data": REDACTED}
        shown: dict[str, Any] = {}
        for key, item in value.items():
            inner = f"{path}.{key}" if path else str(key)
            if self.hides(inner):
                hits.append((inner, str(key)))
                shown[key] = REDACTED
            else:
                shown[key] = self._inside(item, inner, hits, depth + 1)
        return shown
