"""What a configuration may say of topics of others."""

from __future__ import annotations

from typing import Any

import pytest

from understudy.monitor.config.checks import problems_of
from understudy.monitor.config.model import Config

KAFKA = {"bootstrap": "127.0.0.1:9092"}
MAPPING = {"request_id": "/id", "label": "/truth"}


def problems(sources: list[dict[str, Any]], **more: Any) -> list[str]:
    config = Config.model_validate(
        {
            "version": 1,
            "listen": "127.0.0.1:0",
            "models": [{"name": "m", "version": "1"}, {"name": "m", "version": "2"}, {"name": "n"}],
            "champion": {"url": "http://127.0.0.1:1"},
            "sources": sources,
            **more,
        }
    )
    return [f"{path}: {text}" for path, text in problems_of(config) if path.startswith("sources")]


@pytest.mark.parametrize(
    ("source", "fault"),
    [
        ({"model": "none"}, "sources[0].model: 'none' is not declared"),
        ({"model": "m"}, "sources[0].version: '' is not one of the declared versions: 1, 2"),
        ({"model": "m", "version": "3"}, "sources[0].version: '3' is not one of"),
        ({"model": "m", "version": "2"}, ""),
        ({"model": "n"}, ""),
        ({}, ""),
    ],
)
def test_models_of_sources_are_declared(source: dict[str, Any], fault: str) -> None:
    found = problems([{"topic": "t", "format": "json", "json": MAPPING, **source}], kafka=KAFKA)
    assert len(found) == bool(fault)
    assert all(one.startswith(fault) for one in found)


def test_a_topic_has_one_source_and_brokers() -> None:
    events = {"topic": "t", "format": "cloudevents"}
    assert problems([events, events], kafka=KAFKA) == ["sources[1].topic: duplicate topic 't'"]
    (fault,) = problems([events])
    assert fault.startswith("sources: need Kafka")
