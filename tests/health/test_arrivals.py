"""What is declared and does not come is reported: silence is not health."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tests.support.read_service import GOOD, Service
from understudy.monitor.config.model import Config
from understudy.monitor.evidence.blocks import Head, LabelBlock
from understudy.monitor.evidence.partition import Partition
from understudy.monitor.health.arrivals import FEWEST, MANY
from understudy.monitor.health.untested import REASONS
from understudy.monitor.labels.label import Label
from understudy.monitor.labels.store import FeedbackStore, Prediction
from understudy.monitor.records.record import SERVER_ERROR
from understudy.monitor.telemetry.drift import drift_families

BATCH: dict[str, list[Any]] = {"a": [float(n) for n in range(200)]}
LEARN = {"monitoring": {"learn": 1000}}


def watching(folder: Path, more: dict[str, Any] | None = None, **model: Any) -> Service:
    """A service with other sections of the configuration as well."""
    service = Service(folder, **model)
    document = service.config.model_dump(mode="json", by_alias=True) | (more or {})
    service.config = Config.model_validate(document)
    service.loop.configure(service.config)
    return service


def missing(service: Service) -> dict[tuple[str, str], str]:
    """What is not tested, by check and reason; the metric and the status have the same."""
    found = service.loop.watches.untested()
    (metric,) = (f for f in drift_families(service.loop) if f.name == "understudy_not_tested")
    samples = {(s.labels["check"], s.labels["reason"]) for s in metric.samples}
    assert samples == {(one["check"], one["reason"]) for one in found}
    assert {one["reason"] for one in found} <= set(REASONS)
    return {(one["check"], one["reason"]): one["words"] for one in found}


def test_an_answer_of_one_row_for_a_batch_of_200_is_a_problem(tmp_path: Path) -> None:
    service = watching(tmp_path, LEARN)
    service.send(20, BATCH, {"p": [0.5]})
    assert missing(service).keys() == {("answers", "unreadable"), ("drift", "unreadable")}
    service.send(80, BATCH, {"p": [0.5]})
    found = missing(service)
    assert found["answers", "unreadable"] == (
        "predictions, performance and comparisons are blind: 0 of 100 answers of 'champion' could "
        "be used (another number of rows than their requests)"
    )
    assert found["drift", "unreadable"] == (
        "drift and quality are blind: 0 of 100 answers of 'champion' could be used (another number "
        "of rows than their requests); 0 of 1,000 rows for the baseline"
    )
    assert ("predictions", "no_predictions") not in found, "the reason is known"
    assert service.loop.watches.warnings() == [
        "model 'delays' is blind: 0 of 100 answers of 'champion' could be used (another number of "
        "rows than their requests)"
    ]
    (title,) = service.open().values()
    assert title.startswith("Blind: 0 of 100 answers of 'champion'")
    service.send(100, BATCH, {"p": [0.5] * 200})
    assert missing(service) == {}
    assert service.loop.watches.warnings() == []


def test_a_mixed_batch_is_used_where_it_can_be(tmp_path: Path) -> None:
    service = watching(tmp_path)
    for _ in range(5):
        service.send(8, *GOOD)
        service.send(1, BATCH, {"p": [0.5]})
    assert missing(service) == {}


def test_predictions_that_never_come(tmp_path: Path) -> None:
    service = watching(tmp_path, LEARN)
    service.send(FEWEST - 1, GOOD[0], None, outcome=SERVER_ERROR)
    assert missing(service).keys() == {("drift", "learning")}
    service.send(1, GOOD[0], None, outcome=SERVER_ERROR)
    found = missing(service)
    assert found["predictions", "no_predictions"] == (
        "predictions: none for the last 100 requests, 'champion' gave none that could be used"
    )
    assert "0 of 1,000 rows" in found["drift", "no_rows"]
    service.send(1, *GOOD)
    assert missing(service).keys() == {("drift", "learning")}


def test_predictions_of_a_champion_that_another_arm_has_replaced(tmp_path: Path) -> None:
    service = watching(tmp_path)
    # A champion with a small share of the traffic is silent for a while now and then.
    service.send(5 * FEWEST, *GOOD, arm=1)
    assert missing(service) == {}
    service.send(5 * FEWEST, *GOOD, arm=1)
    assert missing(service)["predictions", "no_predictions"] == (
        "predictions: none for the last 1,000 requests, since 'candidate' answers, and not 'champion'"
    )


def test_requests_without_rows(tmp_path: Path) -> None:
    service = watching(tmp_path, LEARN)
    service.send(FEWEST, {"a": []}, {"p": []})
    found = missing(service)
    assert found.keys() == {
        ("inputs", "unreadable"),
        ("answers", "unreadable"),
        ("drift", "unreadable"),
    }


MAPPING = {
    "protocol": "json",
    "paths": ["/score"],
    "json": {
        "features": {"age": "/age", "city": "/town", "zip": "/zip"},
        "predictions": {"p": "/p", "q": "/q"},
    },
}


def test_features_and_outputs_that_are_declared_and_never_come(tmp_path: Path) -> None:
    service = watching(tmp_path, **MAPPING)
    request, answer = b'{"age": 1, "city": "Ulm", "zip": null}', b'{"p": 0.5}'
    service.send(FEWEST - 1, request, answer, target="/score")
    assert missing(service) == {}
    service.send(1, request, answer, target="/score")
    found = missing(service)
    words = "inputs: no value of 'city', 'zip' in the last 100 requests"
    assert found["inputs", "no_feature"] == words
    assert (
        found["predictions", "no_output"] == "predictions: no value of 'q' in the last 100 requests"
    )
    assert f"model 'delays' is not monitored in full: {words}" in service.loop.watches.warnings()
    service.send(
        1, b'{"age": 1, "town": "Ulm", "zip": "89073"}', b'{"p": 0.5, "q": 1}', target="/score"
    )
    assert missing(service) == {}
    # What has come before may be rare.
    service.send(FEWEST, request, answer, target="/score")
    assert missing(service) == {}
    service.send(MANY - FEWEST, request, answer, target="/score")
    assert set(missing(service)) == {("inputs", "no_feature"), ("predictions", "no_output")}


def test_segments_and_the_judged_output_that_never_come(tmp_path: Path) -> None:
    segments = {"monitoring": {"segments": ["carrier", "a"]}}
    service = watching(tmp_path, segments, performance={"prediction": "score", "threshold": 0.5})
    service.send(FEWEST, *GOOD)
    found = missing(service)
    assert found["inputs", "no_feature"] == "inputs: no value of 'carrier' in the last 100 requests"
    assert "'score'" in found["predictions", "no_output"]


def test_a_segment_of_another_model_is_not_missed(tmp_path: Path) -> None:
    segments = {"segments": ["a", "carrier"]}
    model = {"name": "other", "paths": ["/other"]}
    service = watching(tmp_path, {"monitoring": segments})
    models = [service.config.models[0].model_dump(by_alias=True), model]
    document = service.config.model_dump(mode="json", by_alias=True) | {"models": models}
    service.loop.configure(Config.model_validate(document))
    other = service.loop.watches.arrivals["other", ""]
    service.send(FEWEST, *GOOD)
    found = missing(service)
    assert found["inputs", "no_feature"] == "inputs: no value of 'carrier' in the last 100 requests"
    # The other model has no "a", and the first one no "carrier".
    other._came.add(("inputs", "carrier"))
    assert missing(service) == {}


@pytest.mark.parametrize("off", [{"read": False}, {"monitoring": {"enabled": False}}])
def test_what_is_not_to_be_monitored_is_not_missed(tmp_path: Path, off: dict[str, Any]) -> None:
    more = {name: value for name, value in off.items() if name == "monitoring"}
    model = {} if more else off
    service = watching(tmp_path, more, **model)
    service.send(2 * FEWEST, BATCH, {"p": [0.5]})
    service.send(2 * FEWEST, {"a": []}, None)
    assert missing(service) == {}
    assert service.loop.watches.warnings() == []


def test_answers_that_are_opaque_are_not_missed(tmp_path: Path) -> None:
    opaque = {"name": "e", "challengers": ["candidate"], "opaque_answers": True}
    service = Service(tmp_path, [opaque], predictions=["p"])
    service.send(2 * FEWEST, GOOD[0], b"\x00\x01")
    assert missing(service) == {}


def test_a_reload_keeps_what_was_counted(tmp_path: Path) -> None:
    service = watching(tmp_path, **MAPPING)
    service.send(FEWEST, b'{"age": 1}', b'{"p": 1, "q": 1}', target="/score")
    before = missing(service)
    assert ("inputs", "no_feature") in before
    service.loop.configure(service.config)
    assert missing(service) == before


# Labels -------------------------------------------------------------------------------------------


def labelled(folder: Path) -> tuple[Service, FeedbackStore]:
    service, store = watching(folder), FeedbackStore(folder, 1000.0, 1 << 28)
    service.loop.watches.labels = store.figures
    return service, store


def prediction(number: int, at: float = 0.0) -> Prediction:
    return Prediction(f"r-{number}", "champion", False, "delays", 0.0, at, {"p": [0.5]})


def test_labels_that_match_nothing(tmp_path: Path) -> None:
    service, store = labelled(tmp_path)
    store.add_predictions([prediction(n) for n in range(100)])
    store.add_labels([Label(f"r-{n}", 0, 1) for n in range(50)], 1.0)
    assert missing(service) == {}
    store.add_labels([Label(f"order-{n}", 0, 1) for n in range(50)], 1.0)
    words = missing(service)["labels", "unmatched"]
    assert words.startswith("labels: 50 of the last 100 match no prediction; 50 have an unknown")
    assert "x-request-id" in words
    assert service.loop.watches.warnings() == [words]
    # The predictions arrive after all.
    later = [Prediction(f"order-{n}", *_rest(prediction(0))) for n in range(50)]
    store.add_predictions(later)
    assert missing(service) == {}
    store.close()


def _rest(one: Prediction) -> tuple[Any, ...]:
    return one.arm, one.mirrored, one.model, one.share, one.started, one.outputs


def test_labels_that_come_after_the_horizon(tmp_path: Path) -> None:
    service, store = labelled(tmp_path)
    store.add_predictions([prediction(n) for n in range(20)])
    store.add_labels([Label(f"r-{n}", 0, 1) for n in range(20)], 5000.0)
    assert "20 came after `feedback.horizon`" in missing(service)["labels", "unmatched"]
    store.close()


def test_a_few_unknown_labels_are_no_problem(tmp_path: Path) -> None:
    service, store = labelled(tmp_path)
    store.add_labels([Label(f"x-{n}", 0, 1) for n in range(9)], 1.0)
    assert missing(service) == {}
    store.close()


def test_an_evaluator_reports_labels_that_match_nothing(tmp_path: Path) -> None:
    pytest.importorskip("kafka", reason="kafka-python is an extra")
    from understudy.monitor.kafka.member import Member

    service = watching(tmp_path, performance={"prediction": "p", "threshold": 0.5})
    partitions = [Partition(service.config, f"records/{number}") for number in range(2)]
    for number, partition in enumerate(partitions):
        labels = tuple((1.0, Label(f"order-{n}", 0, 1)) for n in range(8))
        head = Head("pod", "run", number, 1, 1.0)
        partition.take(LabelBlock(head, labels), 0, of_labels=True)
        partition.drain()
    member: Any = SimpleNamespace(inputs=dict(enumerate(partitions)))
    service.loop.watches.labels = lambda: Member.label_figures(member)
    assert "16 of the last 16" in missing(service)["labels", "unmatched"]
    for partition in partitions:
        partition.close()


# Requests with the same id ------------------------------------------------------------------------


def test_the_first_of_several_predictions_with_an_id_gets_the_label(tmp_path: Path) -> None:
    _, store = labelled(tmp_path)
    first, second = prediction(1, 10.0), prediction(1, 20.0)
    store.add_predictions([first])
    store.add_predictions([first])  # sent again: no other request
    assert store.figures()["repeated"] == {}
    store.add_predictions([second, prediction(2)])
    store.add_labels([Label("r-1", 0, 1)], 30.0)
    (joined,) = store.take(0)
    assert joined.started == 10.0
    assert store.figures()["repeated"] == {"champion": 1}
    # A label of the second one cannot overwrite what is known of the first.
    assert store.add_labels([Label("r-1", 0, 0)], 31.0) == ["conflict"]
    assert [one.label for one in store.take(0)] == [1]
    store.close()
