"""The JSON Schema of the configuration file."""

from __future__ import annotations

from typing import Any

from understudy.monitor.config.model import Config


def json_schema() -> dict[str, Any]:
    """Draft 2020-12, with the description of every key; ``listen`` and the value of a header may
    also be plain text."""
    schema = Config.model_json_schema(by_alias=True)
    schema["$schema"] = "https://json-schema.org/draft/2020-12/schema"
    schema["title"] = "Understudy configuration"
    listen = schema["properties"]["listen"]
    schema["properties"]["listen"] = {
        "description": listen.get("description", ""),
        "anyOf": [
            {"type": "string", "examples": ["127.0.0.1:8080"]},
            {"$ref": "#/$defs/Listen"},
        ],
        "examples": [
            "127.0.0.1:8080",
            {"address": "0.0.0.0:8443", "tls": {"certificate": "server.pem", "key": "server.key"}},
        ],
    }
    for section in ("Champion", "Challenger"):
        headers = schema["$defs"][section]["properties"]["headers"]
        headers["additionalProperties"] = {
            "anyOf": [{"type": "string"}, headers["additionalProperties"]]
        }
    return schema
