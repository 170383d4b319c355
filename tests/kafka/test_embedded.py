"""The evaluation plane of one sidecar and the two stages over partitions come to the same."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from tests.support.evaluated import evaluated
from tests.support.evaluation import Item, config_of, differences, items
from tests.support.plane_process import v2
from tests.support.source import saved
from understudy.common.codecs import Table
from understudy.monitor.config.model import Config
from understudy.monitor.detectors import packed
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.health.findings_loop import FindingsLoop
from understudy.monitor.labels.store import FeedbackStore, Prediction
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.records import record
from understudy.monitor.records.encode import encode as encode_record
from understudy.monitor.records.handoff import Names

REQUESTS = 300


def _encoded(item: Item) -> bytes:
    """As the worker hands it over: with its payloads."""
    one, asked, said = item.record, item.of_request, item.answer
    assert one is not None
    request: bytes | None = None
    if one.role == record.ROLE_PRIMARY:
        request = b"no JSON"
        if isinstance(asked, Table):
            request = v2("inputs", {n: [cell] for n, cell in asked.row(0).items()})
    response = None
    if isinstance(said, Table):
        response = v2("outputs", {n: [cell] for n, cell in said.row(0).items()})
    kind = b"content-type: application/json"
    _, parts = encode_record(
        0, one.arm, one.status, one.role, one.outcome, one.started, one.duration_ns, 0, 0, 0, 0,
        one.request_id, b"", one.unit, b"/v2/models/delays/infer", kind, kind, request, response,
        one.assigned, one.proxy_id,
    )  # fmt: skip
    return b"".join(parts)


def _embedded(config: Config, of_all: list[Item], folder: Path) -> dict[str, Any]:
    """What ``understudy serve`` does, with a second of the records for a second of the clock."""
    config = config.model_copy(update={"state_dir": str(folder)})
    clock = [0.0]
    pipeline = Pipeline(Settings.from_json(config.model_dump(mode="json", by_alias=True)))
    experiments = pipeline.experiments = ExperimentRunner(config, lambda: clock[0])
    judge = pipeline.findings_loop = FindingsLoop(config, folder, lambda: clock[0])
    judge.load_state({})
    store = FeedbackStore(folder, config.feedback.horizon, config.feedback.max_size)
    predictions: list[Prediction] = []
    pipeline.stage_one.offer = predictions.append
    seconds = sorted({math.floor(item.at) for item in of_all})
    for second in range(seconds[0], math.ceil(seconds[-1] + 8)):
        clock[0] = second + 1.0
        mine = [item for item in of_all if second <= item.at < second + 1]
        by_names: list[tuple[Names, list[bytes]]] = []
        for item in mine:
            if item.names is not None:
                if not by_names or by_names[-1][0] is not item.names:
                    by_names.append((item.names, []))
                by_names[-1][1].append(_encoded(item))
        for names, encoded in by_names:
            pipeline.take(names, len(encoded), b"".join(encoded))
        pipeline.flush()
        store.add_predictions(predictions)
        predictions.clear()
        for item in mine:
            if item.label is not None:
                store.add_labels([item.label], item.at)
        pipeline.take_labels(store.take(pipeline.labels))
        pipeline.flush()
        experiments.tick()
        judge.tick(clock[0])
    store.close()
    with packed.exactly():
        return pipeline.dump_state()


def test_one_process_and_many_partitions_agree(tmp_path: Path) -> None:
    plain = config_of(tmp_path, saved(tmp_path, 4000))
    document = plain.model_dump(mode="json", by_alias=True, exclude_unset=True)
    # A copy carries no request, by which the format could be known.
    document["models"][0]["protocol"] = "open-inference-v2"
    config = Config.model_validate(document)
    of_all = items(5, REQUESTS)
    one = _embedded(config, of_all, tmp_path / "one")
    many = evaluated(config, 5, 32, 7, 5, REQUESTS)
    for state in (one, many):
        # These count copies as well, or number what lies in a file.
        for name in ("records", "labels"):
            state.pop(name)
        state["predictions"].sort(key=lambda one: one[0][2])  # by arm
    many.pop("decisions")
    # One of them goes on for two seconds longer in the end, in which more requests are overdue.
    last = max(item.at for item in of_all if item.record is not None)
    for state in (one, many):
        pending = state["experiments"]["shadowed"]["live"]["pending"]["candidate"]
        assert pending["due"]
        pending["due"] = {key: due for key, due in pending["due"].items() if due < last}
    found = differences(one, many, 1e-9)
    # That is also why these differ.
    assert [line for line in found if ".timeline" not in line and ".seen" not in line] == []
