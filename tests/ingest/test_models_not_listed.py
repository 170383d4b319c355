"""Records and events of models that are not listed."""

from __future__ import annotations

import pytest

from understudy.monitor.errors import IngestError
from understudy.monitor.ingest.cloudevents import REQUEST, RESPONSE, Event, item_of_pair
from understudy.monitor.ingest.records import KnownModels, item_of

LISTED = ("delays", "1", "kserve-v1")
REST = ("other", "", "auto")


def known(*patterns: str, most: int = 2) -> KnownModels:
    return KnownModels([LISTED, REST], ["champion"], patterns, most)


def test_names_that_fit_become_models_up_to_a_limit() -> None:
    models = known("org/*", "é")
    assert models.model("delays", None) == LISTED
    assert models.model("org/m:Q4", "2") == ("org/m:Q4", "2", "auto")
    assert models.model("é", None) == ("é", "", "auto")
    assert models.model("org/n", None) == REST
    assert models.model("org/m:Q4", "2") == ("org/m:Q4", "2", "auto")
    for name in ("another", "org/a b", "org/" + "x" * 300):
        with pytest.raises(IngestError):
            models.model(name, None)
    with pytest.raises(IngestError):
        KnownModels([LISTED], ["champion"]).model("org/m", None)


def test_records_and_events_of_them() -> None:
    item = item_of(
        {"model": "m", "features": {"a": 1.0}, "predictions": {"p": 0.5}}, known("*"), 9.0
    )
    assert item.model == ("m", "", "auto")
    body = b'{"inputs": []}'
    pair = [Event("r-1", kind, "iris", None, body) for kind in (REQUEST, RESPONSE)]
    assert item_of_pair(*pair, known("*"), 9.0).model == ("iris", "", "auto")
    only = KnownModels([REST], ["champion"], ("*",), 5)
    assert item_of_pair(*pair, only, 9.0).model == ("iris", "", "auto")
