"""Requests and answers that cannot be read are a problem that is shown like a finding."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pytest

from tests.support.read_service import GOOD, Service
from understudy.monitor.config.checks import problems_of
from understudy.monitor.config.model import Config
from understudy.monitor.evidence.batch import ColumnBatch
from understudy.monitor.health.readable import LAST, SHARE
from understudy.monitor.labels.store import Prediction
from understudy.monitor.records.record import ROLE_MIRROR

WORDS = "0 of 100 requests could be read (binary: the content type is a binary one)"
BINARY = b"\x00\x01\x02"
OCTETS = "content-type: application/octet-stream"
REQUESTS, ANSWERS = (
    "blind/delays/1//requests",
    "blind/delays/1//answers/champion",
)


def test_binary_requests_are_a_finding_although_there_are_no_rows(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.send(LAST, *GOOD)
    assert service.open() == {}
    assert service.loop.watches.warnings() == []
    service.send(LAST, BINARY, GOOD[1], headers=OCTETS)
    (title,) = service.open().values()
    assert title == f"Blind: {WORDS}"
    assert service.open().keys() == {REQUESTS}
    (finding,) = service.loop.service.ledger.open()
    assert finding.signal.severity == "critical"
    assert finding.signal.examples[0] == "r-200"
    assert "JSON" in finding.signal.advice
    assert "read: false" in finding.signal.advice
    assert "drift and quality" in service.untested()["inputs"]
    assert service.loop.watches.warnings() == [f"model 'delays' is blind: {WORDS}"]
    service.send(round(LAST * (1.0 - SHARE)) + 1, *GOOD)
    assert service.untested() == {}
    assert service.loop.watches.warnings() == []


def test_unreadable_answers_of_the_champion_and_of_a_mirrored_challenger(tmp_path: Path) -> None:
    service = Service(tmp_path)
    service.send(60, GOOD[0], b"not json")
    assert service.open().keys() == {ANSWERS}
    assert service.untested()["answers"].startswith(
        "predictions, performance and comparisons are blind: 0 of 60 answers of 'champion' could"
    )
    service.send(LAST, *GOOD)
    service.send(30, GOOD[0], BINARY, arm=1, role=ROLE_MIRROR)
    assert "'candidate'" in service.untested()["answers"]


def test_a_few_unreadable_requests_are_no_such_problem(tmp_path: Path) -> None:
    service = Service(tmp_path)
    for _ in range(20):
        service.send(3, BINARY, GOOD[1])
        service.send(57, *GOOD)
    assert service.untested() == {}


def test_what_is_not_to_be_read_is_no_problem(tmp_path: Path) -> None:
    service = Service(tmp_path, read=False)
    service.send(2 * LAST, BINARY, BINARY, headers=OCTETS)
    service.send(2 * LAST, *GOOD)
    assert service.open() == {}
    assert service.untested() == {}
    assert service.loop.watches.warnings() == []
    assert not service.pipeline.undecodable
    assert not service.pipeline.features


def test_answers_that_an_experiment_calls_opaque_are_no_problem(tmp_path: Path) -> None:
    opaque = {"name": "e", "challengers": ["candidate"], "opaque_answers": True}
    service = Service(tmp_path, [opaque])
    service.send(2 * LAST, GOOD[0], BINARY)
    assert service.open() == {}
    service.send(2 * LAST, BINARY, BINARY, headers=OCTETS)
    assert service.open().keys() == {REQUESTS}


@pytest.mark.parametrize("opaque", [False, True])
def test_rewards_of_opaque_answers_have_their_prediction(tmp_path: Path, opaque: bool) -> None:
    reward = {"metric": "reward", "margin": "1 units"}
    experiment = {"name": "e", "challengers": ["candidate"], "metrics": [reward]}
    service = Service(tmp_path, [{**experiment, "opaque_answers": opaque}])
    stage = service.pipeline.stage_one
    offered: list[Prediction] = []
    stage.configure(service.config)
    stage.offer = offered.append
    service.send(20, GOOD[0], BINARY)
    assert [one.request_id for one in offered] == [f"r-{n + 1}" for n in range(20)] * opaque
    service.send(5, *GOOD)
    assert [set(one.outputs) for one in offered[-5:]] == [{"p"}] * 5


def test_what_was_seen_does_not_depend_on_the_size_of_batches(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    unread = rng.random(600) < np.repeat([0.0, 0.3, 0.0, 0.02], 150)
    states = []
    for together in (1, 7, 600):
        service = Service(tmp_path)
        readability = service.loop.watches.readability["delays", "1"]
        for start in range(0, 600, together):
            part = unread[start : start + together]
            empty = np.full(len(part), np.nan)
            readability.add(
                ColumnBatch(
                    ("requests", "delays", "1"),
                    ("request", "answer", "arm", "request_detail", "answer_detail"),
                    np.arange(start, start + len(part), dtype=np.float64),
                    [b"r"] * len(part),
                    np.zeros(len(part), np.int16),
                    [part * 6.0, empty, ["champion"] * len(part), empty, empty],
                )
            )
        states.append(readability.dump_state())
    assert states[0] == states[1] == states[2]
    # A hundred readable ones lie before it.
    assert states[0]["windows"][0][1]["since"] == 450 + unread[450:].argmax()


def test_the_finding_says_how_many_why_and_what_was_found(tmp_path: Path) -> None:
    service = Service(tmp_path)
    binary = {"outputs": [{"name": "p", "datatype": "FP16", "shape": [1, 3],
                           "parameters": {"binary_data_size": 6}}]}  # fmt: skip
    for _ in range(25):
        service.send(100, GOOD[0], orjson.dumps(binary))
    (title,) = service.open().values()
    assert title.startswith("Blind: 0 of 2,500 answers of 'champion' could be read (binary: ")
    (finding,) = service.loop.service.ledger.open()
    assert (finding.signal.kind, finding.signal.severity) == ("blind", "critical")
    assert finding.signal.size is not None
    assert finding.signal.size.value == 1.0
    assert finding.signal.examples == ("r-2500", "r-2499", "r-2498", "r-2497", "r-2496")
    service.send(30, GOOD[0], b"not json")
    service.send(20, *GOOD)
    (words,) = (one.words for _, one in service.loop.watches.unreadable())
    assert (
        words == "20 of the last 100 answers of 'champion' could be read (50 binary, 30 not JSON)"
    )


def test_the_share_is_configured(tmp_path: Path) -> None:
    few, many = Service(tmp_path, blind=0.02), Service(tmp_path, blind=0.5)
    for service in (few, many):
        service.send(98, *GOOD)
        service.send(2, BINARY, GOOD[1])
    assert few.open().keys() == {REQUESTS}
    assert many.open() == {}
    many.send(50, BINARY, GOOD[1])
    assert many.open().keys() == {REQUESTS}


def test_what_depends_on_unread_payloads_is_blind_and_does_not_wait_for_data(
    tmp_path: Path,
) -> None:
    performance = {"prediction": "p", "threshold": 0.5}
    service = Service(tmp_path, learn=1000, performance=performance)
    service.send(60, GOOD[0], b"not json")
    found = {(one["check"], one["reason"]) for one in service.loop.watches.untested()}
    assert found == {(name, "unreadable") for name in ("answers", "drift", "performance")}
    for check, words in service.untested().items():
        assert "blind: 0 of 60 answers of 'champion' could be read" in words, check


def test_it_outlasts_a_restart(tmp_path: Path) -> None:
    service, again = Service(tmp_path), Service(tmp_path)
    service.send(50, BINARY, GOOD[1])
    again.loop.load_state(orjson.loads(orjson.dumps(service.loop.dump_state())))
    assert again.loop.watches.warnings() == service.loop.watches.warnings() != []


@pytest.mark.parametrize(
    ("more", "named"),
    [
        ({"metrics": [{"metric": "accuracy", "margin": "1 pp"}]}, "accuracy needs payloads"),
        ({"metrics": [{"metric": "disagreement", "margin": "1 pp"}]}, "disagreement needs"),
        ({"metrics": [{"metric": "reward", "margin": "1 units"}]}, ""),
        ({}, ""),
    ],
)
def test_metrics_of_content_need_payloads_that_are_read(more: dict[str, Any], named: str) -> None:
    config = Config.model_validate(
        {
            "version": 1,
            "listen": "127.0.0.1:0",
            "models": [{"name": "m", "read": False}],
            "champion": {"url": "http://127.0.0.1:9"},
            "challengers": [{"name": "c", "url": "http://127.0.0.1:8"}],
            "experiments": [
                {
                    "name": "e",
                    "challengers": ["c"],
                    "label": {"prediction": "p", "threshold": 0.5},
                    **more,
                }
            ],
        }
    )
    found = problems_of(config)
    assert [path for path, _ in found] == (["experiments[0].metrics"] if named else [])
    assert all(named in text for _, text in found)


def test_a_model_that_is_not_read_has_no_baseline() -> None:
    with pytest.raises(ValueError, match="baseline needs payloads that are read"):
        Config.model_validate(
            {
                "version": 1,
                "listen": "127.0.0.1:0",
                "models": [{"name": "m", "read": False, "baseline": "b.json"}],
                "champion": {"url": "http://127.0.0.1:9"},
            }
        )
