"""What is known of single answers: spans that are kept since answers differ, and results as events."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.evaluation import SHADOW, SPLIT, config_of, names_of
from tests.support.otlp import CLIENT, SERVER, Receiver, attributes_of
from tests.support.patience import eventually
from tests.support.spans import traced_record
from understudy.common.codecs import Reason, Table, Undecodable
from understudy.monitor.config.model import Config
from understudy.monitor.evidence.blocks import Builder, RecordBlock, decode, encode
from understudy.monitor.evidence.pending import TRACE
from understudy.monitor.evidence.stage_one import StageOne
from understudy.monitor.labels.store import Joined, Prediction
from understudy.monitor.proxy.breaker import CLOSED, HALF_OPEN, OPEN
from understudy.monitor.records.record import ROLE_MIRROR, ROLE_PRIMARY
from understudy.monitor.telemetry.otlp.counts import OFFERED
from understudy.monitor.telemetry.otlp.emitter import Emitter
from understudy.monitor.telemetry.otlp.events import BreakerWatch, LabelScores

TRACES = {"primary": "a" * 32, "mirror": "b" * 32}
SPANS = {"primary": "1" * 16, "mirror": "2" * 16}


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    one = Receiver()
    yield one
    one.stop()


def configured(folder: Path, receiver: Receiver, **events: Any) -> Config:
    telemetry = {
        "endpoint": receiver.url,
        "traces": {"interval": "50ms", "sampler": "always_off", "keep": ["disagreeing"]},
        "metrics": {"exporter": "none"},
        "events": events,
    }
    experiments = [{**SHADOW, "compare": {}}, SPLIT]
    return config_of(folder, telemetry=telemetry, experiments=experiments)


def staged(config: Config) -> StageOne:
    stage = StageOne("champion", lambda *what: pytest.fail(str(what)))
    stage.configure(config)
    return stage


def pair(number: int, differs: bool, sampled: bool = False) -> list[Any]:
    """The records of a request and of its mirrored one, with what they answered."""
    flags = "03" if sampled else "02"
    rows = []
    for role, arm, kind in ((ROLE_PRIMARY, 0, "primary"), (ROLE_MIRROR, 1, "mirror")):
        trace, span = TRACES[kind][:-4] + f"{number:04x}", SPANS[kind][:-4] + f"{number:04x}"
        server, client = (span, "9" * 16) if kind == "primary" else ("0" * 16, span)
        link = "" if kind == "primary" else f"{'a' * 28}{number:04x}-{'1' * 12}{number:04x}"
        text = f"{'0' * 16} {server} {client} {flags} POST 1 0 {link}"
        one = traced_record(number, arm, role, trace, text, sampled)
        score = 0.9 if differs and kind == "mirror" else 0.25
        asked: Any = Table(("x",), 1, [1.0])
        if kind == "mirror":
            asked = Undecodable(Reason.EMPTY)
        rows.append((one, asked, Table(("p", "kind"), 1, [score, "late"])))
    return rows


def blocks(rows: list[Any], together: bool) -> list[RecordBlock]:
    """As they come from a worker: in one block, or the mirrored requests in a later one; as bytes
    in between, as over Kafka."""
    names = names_of(0.0, 0.0, 0.0)
    first = [row for row in rows if row[0].role == ROLE_PRIMARY]
    second = [row for row in rows if row[0].role == ROLE_MIRROR]
    builder = Builder("", "", 1)
    found: list[RecordBlock] = []
    for part in [rows] if together else [first, second]:
        for one in (*builder.extend(names, iter(part), 0.0), *builder.flush(0.0, everything=True)):
            copy = decode(encode(one))
            assert isinstance(copy, RecordBlock)
            found.append(copy)
    return found


def logged(receiver: Receiver) -> list[Any]:
    return [
        record
        for message in receiver.seen.logs
        for resource in message.resource_logs
        for scope in resource.scope_logs
        for record in scope.log_records
    ]


@pytest.mark.parametrize("together", [True, False])
def test_requests_with_different_answers_are_kept(
    receiver: Receiver, tmp_path: Path, together: bool
) -> None:
    config = configured(tmp_path, receiver, evaluations=["comparisons"])
    emitter, stage = Emitter(config, {}), staged(config)
    emitter.listen(stage)
    rows = [*pair(1, False), *pair(2, True), *pair(3, True, sampled=True)]
    for block in blocks(rows, together):
        stage.take(block)
    eventually(lambda: len(logged(receiver)) == 3)
    assert eventually(lambda: len(receiver.seen.spans) == 3)
    emitter.close()
    # Of the sampled request, the record itself is what is sent.
    kept = {
        (one.kind, one.trace[-4:], one.attributes["understudy.arm"]) for one in receiver.seen.spans
    }
    assert kept == {
        (SERVER, "0002", "champion"),
        (CLIENT, "0002", "champion"),
        (CLIENT, "0002", "candidate"),
    }
    assert {one.attributes["understudy.kept"] for one in receiver.seen.spans} == {"disagreeing"}
    (copy,) = (one for one in receiver.seen.spans if one.links)
    assert copy.links == [("a" * 28 + "0002", "1" * 12 + "0002")]
    for event in logged(receiver):
        number = event.trace_id.hex()[-4:]
        differs = number != "0001"
        assert event.event_name == "gen_ai.evaluation.result"
        # It is about the answer of the challenger.
        assert (event.trace_id.hex(), event.span_id.hex()) == (
            TRACES["mirror"][:-4] + number,
            SPANS["mirror"][:-4] + number,
        )
        assert event.flags == (1 if number == "0003" else 0)
        attributes = attributes_of(event.attributes)
        explanation = attributes.pop("gen_ai.evaluation.explanation", "")
        assert ("p" in explanation) == differs
        assert attributes == {
            "gen_ai.evaluation.name": "agreement",
            "gen_ai.evaluation.score.value": 0.0 if differs else 1.0,
            "gen_ai.evaluation.score.label": "differs" if differs else "agrees",
            "understudy.model": "delays",
            "understudy.version": "1",
            "understudy.arm": "candidate",
            "understudy.experiment": "shadowed",
            "understudy.request_id": f"r{int(number, 16)}",
        }


def test_two_experiments_keep_a_request_once(receiver: Receiver, tmp_path: Path) -> None:
    config = configured(tmp_path, receiver)
    (shadow, _) = config.experiments
    again = shadow.model_copy(update={"name": "again"})
    config = config.model_copy(update={"experiments": [shadow, again]})
    emitter, stage = Emitter(config, {}), staged(config)
    emitter.listen(stage)
    for block in blocks(pair(1, True), together=True):
        stage.take(block)
    assert emitter.count("traces", OFFERED) == 3
    emitter.close()
    assert emitter.count("logs", OFFERED) == 0


def test_nothing_is_compared_for_nobody(receiver: Receiver, tmp_path: Path) -> None:
    config = config_of(tmp_path, telemetry={"endpoint": receiver.url})
    emitter, stage = Emitter(config, {}), staged(config)
    emitter.listen(stage)
    assert (stage.compared, stage.labelled, stage.pass_equal) == (None, None, False)
    emitter.close()


def test_what_cannot_be_read_costs_no_evidence(receiver: Receiver, tmp_path: Path) -> None:
    """Another program may write blocks, too."""
    config = configured(tmp_path, receiver, evaluations=["comparisons", "labels"])
    emitter, stage = Emitter(config, {}), staged(config)
    emitter.listen(stage)
    offered: list[Prediction] = []
    stage.offer = offered.append
    rows = pair(1, True)
    for one, _, _ in rows:
        one.span = b"junk"
    for block in blocks(rows, together=True):
        stage.take(block)
    assert len(offered) == 2
    assert any(len(batch) for batch in stage.drain())
    emitter.close()


def joined(label: object = None, reward: float | None = None, **outputs: object) -> Joined:
    return Joined(1, "r1", "champion", False, "delays", 0.0, 1e9, outputs, 0, label, reward, 1e9 + 60,
                  60.0)  # fmt: skip


def test_labels_are_results_about_the_answer_that_they_belong_to(
    receiver: Receiver, tmp_path: Path
) -> None:
    config = configured(tmp_path, receiver, evaluations=["labels"])
    emitter, stage = Emitter(config, {}), staged(config)
    emitter.listen(stage)
    offered: list[Prediction] = []
    stage.offer = offered.append
    for block in blocks(pair(1, False, sampled=True), together=True):
        stage.take(block)
    traced = {one.mirrored: one.outputs[TRACE] for one in offered}
    assert traced == {
        False: [f"{'a' * 28}0001-{'1' * 12}0001"],
        True: [f"{'b' * 28}0001-{'2' * 12}0001"],
    }
    outputs = {name: cells[0] for name, cells in offered[0].outputs.items()}
    stage.take_labels([joined(1.0, 2.5, **outputs)])
    reward, label = eventually(lambda: len(logged(receiver)) == 2 and logged(receiver))
    emitter.close()
    for event, name, value in ((reward, "reward", 2.5), (label, "correct", 0.0)):
        attributes = attributes_of(event.attributes)
        assert (event.trace_id.hex(), event.span_id.hex()) == ("a" * 28 + "0001", "1" * 12 + "0001")
        assert attributes["gen_ai.evaluation.name"] == name
        assert attributes["gen_ai.evaluation.score.value"] == value
        assert attributes["understudy.label.delay_seconds"] == 60.0
    assert attributes_of(label.attributes)["gen_ai.evaluation.score.label"] == "wrong"


@pytest.mark.parametrize(
    ("performance", "cell", "label", "result"),
    [
        ({"threshold": 0.5}, 0.7, 1, [("correct", 1.0)]),
        ({"threshold": 0.5}, 0.7, 0, [("correct", 0.0)]),
        ({}, "late", "late", [("correct", 1.0)]),
        ({}, 3, 4, [("correct", 0.0)]),
        ({}, 2.5, 4.0, [("absolute_error", 1.5)]),
        ({"tolerance": 2.0}, 2.5, 4.0, [("correct", 1.0)]),
        ({"tolerance": 1.0}, 2.5, 4.0, [("correct", 0.0)]),
        ({}, None, 1, []),
        ({}, 0.5, None, []),
    ],
)
def test_the_score_of_a_label(
    tmp_path: Path, performance: dict[str, Any], cell: object, label: object, result: Any
) -> None:
    model = {"name": "delays", "version": "1", "performance": {"prediction": "p", **performance}}
    scores = LabelScores(config_of(tmp_path, models=[model], experiments=[]))
    events = list(scores.events(joined(label, p=cell)))
    assert [
        (one.attributes["gen_ai.evaluation.name"], one.attributes["gen_ai.evaluation.score.value"])
        for one in events
    ] == result
    assert all((one.trace, one.span) == (0, 0) for one in events)


def test_a_breaker_is_reported_when_it_opens_first_and_when_all_are_closed() -> None:
    watch = BreakerWatch()
    arm = (("arm", "candidate"),)

    def seen(serving: dict[int, int], mirror: dict[int, int]) -> list[tuple[str, str, object]]:
        gauges = {"serving_breaker": {arm: serving}, "breaker": {arm: mirror}}
        return [
            (one.name, str(one.attributes["understudy.role"]),
             one.attributes.get("understudy.breaker.workers"))
            for one in watch.events(lambda name: gauges[name])
        ]  # fmt: skip

    assert seen({0: CLOSED}, {0: CLOSED, 1: HALF_OPEN}) == []
    assert seen({0: CLOSED}, {0: OPEN, 1: OPEN}) == [("understudy.breaker.opened", "mirror", 2)]
    assert seen({0: OPEN}, {0: OPEN, 1: HALF_OPEN}) == [("understudy.breaker.opened", "primary", 1)]
    assert seen({0: HALF_OPEN}, {0: OPEN, 1: CLOSED}) == []
    assert seen({0: OPEN}, {0: HALF_OPEN}) == []
    assert seen({}, {0: CLOSED, 1: CLOSED}) == [
        ("understudy.breaker.closed", "mirror", None),
        ("understudy.breaker.closed", "primary", None),
    ]
