"""Adds the sidecar to the pods of a stream of manifests. Pure functions.

The stream is what ``kubectl``, ``helm template`` and ``kustomize build`` write, and what Helm gives
to a post-renderer: YAML documents (or one JSON document), in which ``kind: List`` may hold more
objects. A document without a pod that gets the sidecar is returned as it came, with its comments.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from understudy.common.text import visible
from understudy.common.yaml_text import YamlError, checked
from understudy.monitor.errors import ConfigError
from understudy.monitor.inject.pod import INJECT, InjectionRefused, Sidecar, inject, not_injected

try:
    from yaml import CSafeLoader as _Base
except ImportError:  # PyYAML without libyaml
    from yaml import SafeLoader as _Base  # type: ignore[assignment]

_DOCUMENT = re.compile(r"^(?:---|\.\.\.)(?=\s|$)", re.MULTILINE)
"""A marker between documents: at the beginning of a line it cannot be anything else."""
_BLANK = re.compile(r"\A(?:[ \t]*\n)+")
_TAG = "tag:yaml.org,2002:"


class _Loader(_Base):
    """Reads plain scalars as Kubernetes does: without dates, base 60 and the value ``=``."""


_Loader.yaml_implicit_resolvers = {}

for _name, _pattern, _first in (
    ("merge", r"<<", "<"),
    ("null", r"~|null|Null|NULL|", "~nN\0"),
    ("bool", r"yes|Yes|YES|no|No|NO|true|True|TRUE|false|False|FALSE|on|On|ON|off|Off|OFF",
     "yYnNtTfFoO"),
    ("int", r"[-+]?(?:0b[01_]+|0x[0-9a-fA-F_]+|0[0-7_]*|[1-9][0-9_]*)", "-+0123456789"),
    ("float", r"[-+]?(?:\.[0-9]+|[0-9][0-9_]*(?:\.[0-9_]*)?)(?:[eE][-+]?[0-9]+)?"
     r"|[-+]?\.(?:inf|Inf|INF)|\.(?:nan|NaN|NAN)", "-+.0123456789"),
):  # fmt: skip
    _Loader.add_implicit_resolver(
        _TAG + _name, re.compile(f"(?:{_pattern})$"), [one.strip("\0") for one in _first]
    )


def _float(loader: _Loader, node: yaml.ScalarNode) -> float | str:
    value = loader.construct_yaml_float(node)
    # Digits such as those of a commit, 12e5678, are a text.
    return node.value if math.isinf(value) and "inf" not in node.value.lower() else value


_Loader.add_constructor(_TAG + "float", _float)


class _Dumper(yaml.SafeDumper):
    """Quotes every text that a reader of any version of YAML could take for something else."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _text(dumper: _Dumper, value: str) -> yaml.ScalarNode:
    plain = value[:1].isalpha() and value not in {"y", "Y", "n", "N"}
    style = "|" if "\n" in value else None if plain else '"'
    return dumper.represent_scalar(_TAG + "str", value, style=style)


_Dumper.add_representer(str, _text)


@dataclass
class Outcome:
    """Manifests with the sidecar, and what happened to each of their pods."""

    documents: list[str] = field(default_factory=list)
    """The text of each document, without markers between them."""
    objects: list[Any] = field(default_factory=list)
    injected: int = 0
    present: int = 0
    """Pods that had the sidecar before."""
    notes: list[str] = field(default_factory=list)
    """One sentence for each pod, and for each object that asks in the wrong place."""

    @property
    def text(self) -> str:
        """The stream of documents."""
        first = [one if one.endswith("\n") else one + "\n" for one in self.documents[:-1]]
        return "---\n".join([*first, *self.documents[-1:]])


def inject_manifests(text: str, sidecar: Sidecar, source: str) -> Outcome:
    """Add the sidecar to each pod that requests it; ``source`` names the input in errors.

    Raises ConfigError if the text is not a stream of Kubernetes objects, or if a pod requests the
    sidecar and cannot have it.
    """
    outcome = Outcome()
    start = 0
    for end, after in [*((m.start(), m.end()) for m in _DOCUMENT.finditer(text)), (len(text), 0)]:
        part = text[start:end]
        line = text.count("\n", 0, start)
        start = after
        if all(not row.strip() or row.startswith(("#", "%")) for row in part.splitlines()):
            continue
        one = _load(part, line, source)
        if one is None:
            continue
        if not isinstance(one, dict):
            first = line + 1 + part[: -len(part.lstrip())].count("\n")
            raise ConfigError(source, [("", f"line {first}: not a Kubernetes object")])
        before = outcome.injected
        for single in _objects(one):
            _inject_object(single, sidecar, source, outcome)
        outcome.objects.append(one)
        changed = outcome.injected > before or visible(part, lines=True) != part
        outcome.documents.append(_dump(one) if changed else _BLANK.sub("", part))
    return outcome


def _dump(one: Any) -> str:
    """YAML in which characters that a terminal would obey are escapes, inside quotes."""
    text = yaml.dump(one, Dumper=_Dumper, sort_keys=False, allow_unicode=True, width=1000)
    if visible(text, lines=True) != text:
        text = yaml.dump(one, Dumper=_Dumper, sort_keys=False, width=1000)
    return text


def _load(text: str, line: int, source: str) -> Any:
    plain = text.removeprefix("\ufeff")
    try:
        return checked(lambda: yaml.load(plain, Loader=_Loader), line)  # noqa: S506  # a SafeLoader
    except YamlError as error:
        raise ConfigError(source, [("", str(error))]) from error


def _objects(one: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The objects of a document: itself, or the items of a list of any kind."""
    pending = [one]
    while pending:
        one = pending.pop()
        items = one.get("items")
        if str(one.get("kind", "")).endswith("List") and isinstance(items, list):
            pending += [item for item in reversed(items) if isinstance(item, dict)]
        else:
            yield one


def _pods(one: dict[str, Any]) -> list[tuple[str, dict[str, Any]]]:
    """Every pod and pod template in an object, with its path: whatever has ``spec.containers``."""
    found: list[tuple[str, dict[str, Any]]] = []
    pending: list[tuple[str, Any]] = [("", one)]
    while pending:
        path, value = pending.pop()
        if isinstance(value, list):
            pending += [(f"{path}[{i}]", item) for i, item in enumerate(value)]
            continue
        if not isinstance(value, dict):
            continue
        spec = value.get("spec")
        if isinstance(spec, dict) and isinstance(spec.get("containers"), list):
            found.append((path, value))
            continue
        pending += [(f"{path}.{key}".removeprefix("."), item) for key, item in value.items()]
    return sorted(found, key=lambda pair: pair[0])


def _inject_object(one: dict[str, Any], sidecar: Sidecar, source: str, outcome: Outcome) -> None:
    metadata = one.get("metadata") or {}
    name = f"{one.get('kind')} {metadata.get('name') or metadata.get('generateName') or ''}".strip()
    pods = _pods(one)
    for path, pod in pods:
        label = f"{name} ({path})" if len(pods) > 1 else name
        reason = not_injected(pod)
        if reason is not None:
            outcome.present += reason.present
            outcome.notes.append(f"{label}: skipped: {reason.text}")
            continue
        try:
            result = inject(pod, sidecar)
        except InjectionRefused as error:
            raise ConfigError(source, [(label, str(error))]) from error
        pod.clear()
        pod.update(result.pod)
        outcome.injected += 1
        outcome.notes.append(f"{label}: injected; the model server is {result.model!r}")
        outcome.notes += [f"{label}: warning: {warning}" for warning in result.warnings]
    annotations = metadata.get("annotations") or {}
    if INJECT in annotations and not pods:
        outcome.notes.append(f"{name}: skipped: it has no pod template (spec.containers)")
    elif INJECT in annotations and all(pod is not one for _, pod in pods):
        outcome.notes.append(
            f"{name}: warning: {INJECT} is an annotation of the object and has no effect there;"
            " put it on the pod template (spec.template.metadata.annotations)"
        )
