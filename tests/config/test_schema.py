from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jsonschema
import pytest
import yaml

from tests.support.specimen import SPECIMEN
from understudy.monitor.config.schema import json_schema

SCHEMA = json_schema()


def sections() -> Iterator[tuple[str, dict[str, Any]]]:
    yield "", SCHEMA
    yield from SCHEMA["$defs"].items()


@pytest.mark.parametrize(("name", "section"), list(sections()))
def test_every_key_is_described_and_no_other_is_allowed(name: str, section: dict[str, Any]) -> None:
    assert section["additionalProperties"] is False
    for key, value in section["properties"].items():
        reference = value.get("$ref", "").removeprefix("#/$defs/")
        described = value.get("description") or SCHEMA["$defs"][reference]["description"]
        assert described, (name, key)


def test_examples_fit_their_own_schema() -> None:
    count = 0
    for _, section in sections():
        for value in section["properties"].values():
            for example in value.get("examples", []):
                of_value = {**value, "$defs": SCHEMA["$defs"]}
                jsonschema.Draft202012Validator(of_value).validate(example)
                count += 1
    assert count > 20


def test_a_good_file_fits() -> None:
    jsonschema.validate(yaml.safe_load(SPECIMEN), SCHEMA)


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"limitz": {}},
        {"listen": 8080},
        {"workers": 0},
        {"limits": {"drain": "5 sec"}},
        {"limits": {"head": "3MB"}},
        {"champion": {}},
        {"models": []},
    ],
)
def test_a_bad_file_does_not_fit(change: dict[str, Any]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**yaml.safe_load(SPECIMEN), **change}, SCHEMA)
