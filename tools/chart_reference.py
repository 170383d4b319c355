"""The chart's ``values.schema.json`` and ``README.md``, from the comments of its ``values.yaml``.

A comment directly above a key describes it, in Markdown; a line ``# @ {…}`` in it adds to the key's
JSON Schema. A mapping whose keys have comments is one of ours, and takes no other keys; a mapping
whose keys have none is handed to Kubernetes as it is. The sidecar's configuration has the program's
own schema, without what the chart has to know itself, so that ``helm install`` refuses a misspelt
key before anything runs. ``make docs`` writes all of it.
"""

from __future__ import annotations

import copy
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from understudy.monitor.config.schema import json_schema

CHART = Path(__file__).resolve().parents[1] / "helm" / "understudy"
LIBRARY = CHART / "charts" / "understudy-lib"
SECRET = "(^|_)(TOKEN|PASSWORD|PASSWD|SECRET|SECRET_KEY|API_?KEY|ACCESS_KEY|PRIVATE_KEY)$"  # noqa: S105  # a pattern
"""Names of environment variables whose values have to come from a Secret."""
_TYPES = {
    bool: "boolean",
    int: "integer",
    float: "number",
    str: "string",
    dict: "object",
    list: "array",
}


@dataclass
class Value:
    """A key of ``values.yaml``."""

    path: str
    default: Any
    text: str
    extra: dict[str, Any]
    children: list[Value] = field(default_factory=list)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]


def read(path: Path) -> list[Value]:
    """The keys of a file. Raises AssertionError when one of ours has no comment."""
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    node = yaml.compose(text)
    assert isinstance(node, yaml.MappingNode)
    return list(_values(node, lines, "", yaml.safe_load(text)))


def _comment(lines: list[str], line: int) -> tuple[str, dict[str, Any]]:
    """What stands above a line, and what that adds to the schema."""
    words: list[str] = []
    extra: dict[str, Any] = {}
    while line and lines[line - 1].lstrip().startswith("#"):
        line -= 1
        said = lines[line].strip().lstrip("#").strip()
        if said.startswith("@"):
            extra = yaml.safe_load(said[1:])
        else:
            words.insert(0, said)
    return " ".join(words), extra


def _values(node: yaml.MappingNode, lines: list[str], path: str, data: Any) -> Iterator[Value]:
    for key, inner in node.value:
        here = f"{path}.{key.value}" if path else key.value
        text, extra = _comment(lines, key.start_mark.line)
        assert text, f"{here} has no comment"
        value = Value(here, data[key.value], text, extra)
        if isinstance(inner, yaml.MappingNode) and not inner.flow_style and "$ref" not in extra:
            first = inner.value[0][0].start_mark.line
            if _comment(lines, first)[0]:
                value.children = list(_values(inner, lines, here, data[key.value]))
        yield value


def _schema(value: Value) -> dict[str, Any]:
    said: dict[str, Any] = {"description": value.text}
    if "$ref" not in value.extra:
        said["type"] = _TYPES[type(value.default)]
    if value.children:
        said["additionalProperties"] = False
        said["properties"] = {child.name: _schema(child) for child in value.children}
        return said
    return said | {"default": value.default} | value.extra


def config_definitions() -> dict[str, Any]:
    """``Config`` and what it refers to: the program's schema, as the chart takes it."""
    schema = copy.deepcopy(json_schema())
    definitions: dict[str, Any] = schema["$defs"]
    properties = schema["properties"]
    # The chart's own: ports, token, folder and drain follow from other values.
    del properties["control"], properties["state_dir"], definitions["Control"]
    del definitions["Limits"]["properties"]["drain"]
    del definitions["Listen"]["properties"]["address"]
    definitions["Listen"]["required"] = ["tls"]
    properties["listen"] = {"$ref": "#/$defs/Listen"}
    definitions["Champion"]["required"].remove("url")
    for value in properties.values():
        value.pop("default", None)  # the defaults of the program, not those of the chart
    definitions["Config"] = {
        "type": "object",
        "description": schema["description"],
        "additionalProperties": False,
        "properties": properties,
    }
    return definitions


def definitions() -> dict[str, Any]:
    """Schemas that several values refer to."""
    env = {
        "type": "object",
        "description": "An environment variable; secrets come from Secrets.",
        "required": ["name"],
        "additionalProperties": False,
        "properties": {
            "name": {"type": "string"},
            "value": {"type": "string"},
            "valueFrom": {"type": "object"},
        },
        "if": {"properties": {"name": {"pattern": SECRET}}},
        "then": {"required": ["valueFrom"], "properties": {"value": False}},
    }
    plan = {
        "type": "object",
        "description": "A plan of `understudy gate`.",
        "properties": {"stages": {"type": "array", "minItems": 1}},
    }
    return {"EnvVar": env, "Plan": plan, **config_definitions()}


def schema_of(folder: Path) -> str:
    """The text of a chart's ``values.schema.json``."""
    values = read(folder / "values.yaml")
    used = definitions()
    if not any(value.name == "gate" for value in values):
        del used["Plan"]
    schema = {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": f"Values of the chart {folder.name}",
        "description": "Written by `make docs` from the comments of values.yaml; change these instead.",
        "type": "object",
        "additionalProperties": False,
        "properties": {value.name: _schema(value) for value in values}
        # What Helm itself puts there, or reads there in a chart that depends on this one.
        | {
            "enabled": {
                "description": "Condition for charts that depend on this one.",
                "type": "boolean",
            }
        }
        | {"global": {"description": "Helm's global values; not used.", "type": "object"}}
        | {"understudy-lib": {"description": "Values of the library; not used.", "type": "object"}},
        "$defs": used,
    }
    return json.dumps(schema, indent=1, ensure_ascii=False) + "\n"


def _kind(value: Value) -> str:
    if value.extra.get("enum"):
        return ", ".join(f"`{choice}`" for choice in value.extra["enum"])
    if (reference := value.extra.get("$ref", "")).endswith("/Config"):
        return "mapping, as [understudy.yaml](../../docs/configuration.md)"
    if reference.endswith("/Plan"):
        return "mapping, as [a plan](../../docs/gate.md)"
    names = {"string": "text", "object": "mapping", "array": "list"}
    kind = value.extra.get("type", _TYPES[type(value.default)])
    name = " or ".join(names.get(one, one) for one in ([kind] if isinstance(kind, str) else kind))
    low, high = value.extra.get("minimum"), value.extra.get("maximum")
    if low is not None:
        name += f", {low} to {high}" if high is not None else f", {low} or more"
    return name


def _default(value: Value) -> str:
    if value.default in ("", {}, []):
        return "–"
    text = value.default if isinstance(value.default, str) else json.dumps(value.default)
    return f"`{text}`".replace("|", "\\|")


def _rows(values: list[Value]) -> Iterator[str]:
    for value in values:
        if value.children:
            yield from _rows(value.children)
            continue
        text = re.sub(r"\s+", " ", value.text).replace("|", "\\|")
        yield f"| `{value.path}` | {_kind(value)} | {_default(value)} | {text} |"


def readme() -> str:
    """The text of the chart's ``README.md``: the introduction, then all values."""
    introduction = (CHART / "README.head.md").read_text(encoding="utf-8")
    parts = [introduction.rstrip()]
    plain = []
    for value in read(CHART / "values.yaml"):
        if not value.children:
            plain.append(value)
    head = "\n| value | kind | default | meaning |\n| --- | --- | --- | --- |"
    parts += ["\n## Values", head, *_rows(plain)]
    for value in read(CHART / "values.yaml"):
        if value.children:
            parts += [f"\n### `{value.name}`\n\n{value.text}", head, *_rows(value.children)]
    return "\n".join(parts) + "\n"


DEPLOY = CHART.parents[1] / "deploy"
COPIES = {
    CHART / "files" / folder / source.name: source
    for folder, pattern in (
        ("rules", "prometheus/*.rules.yml"),
        ("dashboards", "grafana/dashboards/*.json"),
    )
    for source in sorted(DEPLOY.glob(pattern))
}
"""What a chart has to hold itself, since Helm reads nothing outside of it: rules and dashboards."""


def _copied(source: Path) -> Callable[[], str]:
    return lambda: source.read_text(encoding="utf-8")


PAGES: dict[Path, Callable[[], str]] = {
    CHART / "values.schema.json": lambda: schema_of(CHART),
    LIBRARY / "values.schema.json": lambda: schema_of(LIBRARY),
    CHART / "README.md": readme,
    **{target: _copied(source) for target, source in COPIES.items()},
}
