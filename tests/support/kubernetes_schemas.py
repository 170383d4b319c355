"""Schemas of Kubernetes and of custom resources, made strict: a field that they do not know is wrong."""

from __future__ import annotations

import copy
import re
from functools import cache
from typing import Any

import jsonschema

from tests.support.chart import NEWEST
from tools.parts import kubernetes

Schema = dict[str, Any]
_ANY = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {"type": ["string", "integer"]},
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"type": ["string", "number"]},
}
_PLAIN = {"str": "string", "int": "integer", "float": "number", "bool": "boolean", "object": None}


def _strict(schema: Any) -> Any:
    """Objects with properties take no others, unless the schema says so."""
    if isinstance(schema, list):
        return [_strict(one) for one in schema]
    if not isinstance(schema, dict):
        return schema
    made = {
        key: _strict(value) for key, value in schema.items() if key not in ("default", "format")
    }
    if isinstance(schema.get("properties"), dict):
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            made.setdefault("additionalProperties", False)
        if schema.get("x-kubernetes-embedded-resource"):
            made["additionalProperties"] = True
    if schema.get("x-kubernetes-int-or-string"):
        made.pop("type", None)
    made.pop("x-kubernetes-validations", None)  # expressions; the API server judges these
    return made


@cache
def described(version: str) -> tuple[Schema, dict[tuple[str, str], str]]:
    """Definitions of a version, and which of them an apiVersion and kind have."""
    definitions = {**{k: _strict(v) for k, v in kubernetes.load(version).items()}, **_ANY}
    kinds = {}
    for name, one in definitions.items():
        for gvk in one.get("x-kubernetes-group-version-kind", []):
            group = f"{gvk['group']}/" if gvk["group"] else ""
            kinds[group + gvk["version"], gvk["kind"]] = name
    return definitions, kinds


@cache
def custom() -> dict[tuple[str, str], Schema]:
    """Schemas of custom resources, by apiVersion and kind."""
    found = {}
    for part in kubernetes.CRDS:
        for one in kubernetes.load(part):
            spec = one["spec"]
            for version in spec["versions"]:
                schema = _strict(copy.deepcopy(version["schema"]["openAPIV3Schema"]))
                schema["properties"]["metadata"] = {"type": "object"}
                found[f"{spec['group']}/{version['name']}", spec["names"]["kind"]] = schema
    return found


def _sdk_type(kind: str, definitions: set[str]) -> Schema:
    if (match := re.fullmatch(r"list\[(.*)\]", kind)) is not None:
        return {"type": "array", "items": _sdk_type(match[1], definitions)}
    if (match := re.fullmatch(r"dict\(str, (.*)\)", kind)) is not None:
        return {"type": "object", "additionalProperties": _sdk_type(match[1], definitions)}
    if kind in _PLAIN:
        return {"type": _PLAIN[kind]} if _PLAIN[kind] else {}
    if kind in definitions:
        return {"$ref": f"#/definitions/{kind}"}
    core = "io.k8s.api.core.v1." + kind.removeprefix("V1")
    if core in described(NEWEST)[0] and kind not in ("V1ObjectMeta", "ObjectMeta"):
        return {"$ref": f"#/definitions/{core}"}
    return {}


@cache
def _sdk(part: str) -> Schema:
    types = kubernetes.load(part)
    names = set(types)
    made: Schema = dict(described(NEWEST)[0])
    for name, fields in types.items():
        made[name] = {
            "type": "object",
            "additionalProperties": False,
            "properties": {key: _sdk_type(kind, names) for key, kind in fields.items()},
        }
        if not fields:  # an enumeration
            made[name] = {"type": "string"}
    return made


@cache
def validator(api: str, kind: str, version: str) -> jsonschema.Draft7Validator:
    """The validator of a kind of object. Raises KeyError for an unknown kind."""
    for part, (_, _, name) in kubernetes.SDKS.items():
        group = {"kserve": "serving.kserve.io", "seldon": "machinelearning.seldon.io"}[part]
        if api.startswith(group):
            assert name.endswith(kind)
            root = {"$ref": f"#/definitions/{name}", "definitions": _sdk(part)}
            return jsonschema.Draft7Validator(root)
    if (api, kind) in custom():
        return jsonschema.Draft7Validator(custom()[api, kind])
    definitions, kinds = described(version)
    root = {"$ref": f"#/definitions/{kinds[api, kind]}", "definitions": definitions}
    return jsonschema.Draft7Validator(root)


def problems(one: Schema, version: str = NEWEST) -> list[str]:
    """What is wrong with an object, as path and message."""
    return [
        f"{'.'.join(str(part) for part in error.absolute_path)}: {error.message[:300]}"
        for error in validator(one["apiVersion"], one["kind"], version).iter_errors(one)
    ]
