"""Whatever is kept has a bound, and what finds no room is counted by its reason.

Bounds with tests of their own where the part is: the hand-off and the mirror (`tests/proxy`), the
spool and the segment log (`tests/transport`), recent records, exemplars, features, predictions and
classes (`tests/evaluation`), findings (`tests/findings`).
"""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.support.channel_driving import START, drive
from tests.support.control_api import settings_of
from tests.support.evaluation import config_of
from tests.support.plane_process import encoded
from tests.support.signals import signal
from tests.support.webhook_receiver import receiver
from understudy.common.codecs import Table
from understudy.monitor.archive import recorder as recording
from understudy.monitor.archive.recorder import Recorder
from understudy.monitor.config.kafka import Kafka
from understudy.monitor.config.model import RecordLog
from understudy.monitor.config.notify import Notification
from understudy.monitor.errors import FindingStateError, IngestError
from understudy.monitor.evidence import decoding, mirrored
from understudy.monitor.evidence.decoding import Decoder
from understudy.monitor.evidence.joiner import PairJoiner
from understudy.monitor.experiments.runner import ExperimentRunner
from understudy.monitor.findings.channels import base
from understudy.monitor.findings.channels.webhook import Webhook
from understudy.monitor.findings.ledger import Findings
from understudy.monitor.findings.limits import Limits
from understudy.monitor.findings.silences import MAX_SILENCES, Silences
from understudy.monitor.health.watches import Watches
from understudy.monitor.ingest import cloudevents
from understudy.monitor.ingest import service as ingesting
from understudy.monitor.ingest.cloudevents import REQUEST, Event, Pairs
from understudy.monitor.ingest.records import KnownModels
from understudy.monitor.ingest.service import IngestService
from understudy.monitor.labels import service as labelling
from understudy.monitor.labels.service import LabelService
from understudy.monitor.labels.store import Prediction
from understudy.monitor.pipeline import pipeline as pipelines
from understudy.monitor.pipeline.pipeline import Pipeline
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import decode_batch
from understudy.monitor.service.evaluation import make_plane
from understudy.shadow.comparison import Worst
from understudy.shadow.experiment.units import UnitTable

ARMS = ("champion", "candidate", "other")


def names(model: str = "delays") -> Names:
    return Names(1, ((model, "1", "open-inference-v2"),), ARMS)


def records(count: int, **more: Any) -> list[bytes]:
    return [
        encoded({"a": [1.0]}, {"p": [0.5]}, request_id=f"r-{number}", **more)
        for number in range(count)
    ]


def test_halves_of_pairs_wait_within_bounds_and_lost_ones_reach_the_experiment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrored, "_MOST_WAITING", 10)
    config = config_of(tmp_path)
    pipeline = Pipeline(settings_of(config))
    pipeline.experiments = ExperimentRunner(config)
    found = records(25)
    pipeline.take(names(), len(found), b"".join(found))
    pipeline.flush()
    joiner = pipeline.stage_one.collectors["shadowed"].mirrored.waiting["candidate"]
    assert len(joiner) == 10
    pipeline.experiments.tick()
    contest = pipeline.experiments.live["shadowed"].experiment.contests["candidate"]
    assert contest.left_out["shadow"] == {"unpaired": 15}
    assert contest.pairs == 0


def test_a_joiner_gives_up_the_oldest_and_counts_it() -> None:
    dropped: list[bytes] = []
    joiner: PairJoiner[int] = PairJoiner(2, lambda key, halves: dropped.append(key))
    for key in (b"1", b"2", b"3"):
        assert joiner.add(key, 0, 1, 2) is None
    assert (len(joiner), dropped, b"1" in joiner) == (2, [b"1"], False)


def test_inputs_of_requests_are_remembered_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirrored, "_MOST_INPUTS", 10)
    config = config_of(tmp_path)
    pipeline = Pipeline(settings_of(config))
    pipeline.experiments = ExperimentRunner(config)
    found = records(100)
    pipeline.take(names(), len(found), b"".join(found))
    pipeline.flush()
    assert len(pipeline.stage_one.collectors["shadowed"].mirrored._inputs) <= 10


def test_rules_of_decoding_are_kept_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "_MAX_SPECS", 5)
    decoder = Decoder(settings_of(config_of(Path("/nowhere"))))
    (one,) = decode_batch(records(1)[0])
    for number in range(50):
        features, _ = decoder.decode((f"model-{number}", "", "open-inference-v2"), one)
        assert isinstance(features, Table)
    assert len(decoder._specs) <= 5


def test_statistics_of_models_are_kept_within_bounds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pipelines, "_MAX_MODELS", 3)
    pipeline = Pipeline(settings_of(config_of(tmp_path)))
    for number in range(10):
        pipeline.take(names(f"model-{number}"), 1, records(1)[0])
    pipeline.flush()
    assert (len(pipeline.features), len(pipeline.predictions)) == (3, 3)
    left_out = {part: pipeline.undecodable["", "", "", part, "too_many_models"]
                for part in ("features", "predictions")}  # fmt: skip
    assert left_out == {"features": 7, "predictions": 7}


def test_units_beyond_the_limit_are_sampled() -> None:
    units = UnitTable(("x",), limit=50)
    for number in range(1000):
        units.take([f"u-{number}"], np.zeros(1, np.int16), np.ones(1), {"x": np.ones(1)})
    assert 20 <= len(units) <= 50
    known, error = units.distinct
    assert abs(known - 1000) < 6 * error * 1000


def test_the_worst_disagreements_are_bounded() -> None:
    worst = Worst(3)
    for number in range(10):
        worst.offer(float(number), 0.0, f"r-{number}", "", {}, {}, {})
    assert [entry["severity"] for entry in worst.entries] == [9.0, 8.0, 7.0]
    wide = {f"column-{number}": "x" * 100 for number in range(1000)}
    worst.offer(10.0, 0.0, "wide", "", wide, {}, {})
    assert len(worst.entries[0]["inputs"]) < 50
    assert "more" in worst.entries[0]["inputs"]["…"]


# Labels and feedback ------------------------------------------------------------------------------


def prediction(request_id: str) -> Prediction:
    return Prediction(request_id, "champion", False, "delays", 0.0, time.time(), {"p": [0.5]})


def test_predictions_that_wait_for_the_disk_are_bounded_and_dropped_ones_are_a_metric(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelling, "MOST_WAITING", 10)
    feedback = LabelService(tmp_path, 3600.0, 1 << 24)
    for number in range(25):
        feedback.offer(prediction(f"r-{number}"))
    shown = feedback.summary()
    assert (shown["queued"], shown["dropped"]) == (10, 15)
    asyncio.run(feedback.close())


def test_predictions_that_the_disk_refuses_are_kept_within_the_same_bound(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(labelling, "MOST_WAITING", 10)
    (tmp_path / "state").write_text("in the way")

    async def run() -> tuple[int, int]:
        feedback = LabelService(tmp_path / "state", 3600.0, 1 << 24)
        for number in range(10):
            feedback.offer(prediction(f"a-{number}"))
        refused = asyncio.create_task(feedback.flush())
        await asyncio.sleep(0)
        for number in range(7):
            feedback.offer(prediction(f"b-{number}"))
        assert not await refused
        shown = feedback.summary()
        await feedback.close()
        return shown["queued"], shown["dropped"]

    assert asyncio.run(run()) == (10, 7)


# What others send ---------------------------------------------------------------------------------


def test_halves_of_events_wait_within_bounds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cloudevents, "MAX_WAITING", 5)
    pairs = Pairs()
    for number in range(12):
        pairs.add(Event(f"e-{number}", REQUEST, "", None, b"{}"), 1.0)
    assert (pairs.waiting, pairs.outcomes["overflow"]) == (5, 7)
    pairs.expire(1.0 + 2 * cloudevents.MAX_WAIT_SECONDS)
    assert (pairs.waiting, pairs.outcomes["expired"]) == (0, 5)


def test_ids_by_which_records_are_known_again_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingesting, "MAX_KNOWN_IDS", 5)
    known = KnownModels([("delays", "1", "mlflow")], list(ARMS))
    service = IngestService(known, lambda *_: None)
    item = {"model": "delays", "features": {"a": 1}, "predictions": {"p": 0.5}}
    for number in range(20):
        post = service.post()
        post.add({**item, "request_id": f"r-{number}"})
        assert service.records(post).accepted == 1
    assert len(service._known_ids) == 5


def test_payloads_of_a_post_are_bounded_also_where_they_repeat_names(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(ingesting, "MAX_POST_BYTES", 10_000)
    known = KnownModels([("delays", "1", "kserve-v1")], list(ARMS))
    service = IngestService(known, lambda *_: None)
    post = service.post()
    item = {"features": {"x" * 100: [1.0] * 30}, "predictions": {"p": [0.5] * 30}}
    post.add(item)
    post.add(item)
    with pytest.raises(IngestError, match="several calls"):
        post.add(item)
    long = {"features": {"x" * 10_000: [1.0] * 1000}, "predictions": {"p": [0.5] * 1000}}
    other = service.post()
    other.add(long)
    ((_, reason),) = other.result.refused
    assert "names, once for each row" in reason


def test_lines_that_wait_for_the_log_of_records_are_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recording, "MAX_WAITING_BYTES", 4096)
    recorder = Recorder(RecordLog.model_validate({"path": str(tmp_path / "log")}))
    every = decode_batch(b"".join(records(100)))
    for one in every:
        recorder.add(names(), one)
    assert 0 < recorder.dropped < 100
    recorder.flush()
    assert recorder.written + recorder.dropped == 100
    recorder.close()


def test_records_that_the_spool_cannot_take_are_bounded_and_counted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("kafka", reason="kafka-python is an extra")
    from understudy.monitor.kafka import publisher as publishing

    monkeypatch.setattr(publishing, "MAX_UNSAVED_BYTES", 2000)

    async def run() -> None:
        kafka = Kafka.model_validate({"bootstrap": ["127.0.0.1:1"]})
        made = publishing.Publisher(kafka, tmp_path, "run-1")
        refuses: Any = lambda *_, **__: False  # noqa: E731 - as on a full disk
        made.spool.append = refuses  # type: ignore[method-assign]
        table = Table(("a",), 1, [1.0])
        for number, one in enumerate(decode_batch(b"".join(records(40)))):
            made.extend(names(), [(one, table, table)], time.time())
            made.slots.of("run-1", 0).last_seq = number + 1
            assert not await made.flush()
        assert sum(batch.size for batch in made._unsaved) <= 2000 + 1000
        waiting = sum(batch.records for batch in made._unsaved)
        assert 0 < waiting < 40
        assert made.dropped["disk"] + waiting == 40

    asyncio.run(run())


def test_posted_records_are_bounded_in_bytes_and_items(tmp_path: Path) -> None:
    import httpx
    import orjson

    from understudy.monitor.api.access import BULK_BODY
    from understudy.monitor.api.app import build
    from understudy.monitor.ingest.records import MOST_ITEMS

    (tmp_path / "run").mkdir()
    plane = make_plane(settings_of(config_of(tmp_path / "state")), tmp_path / "run", "run-1")
    line: Any = None
    app = build(plane, line)

    async def post(path: str, body: bytes) -> httpx.Response:
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:9090"
        ) as client:
            headers = {"content-type": "application/json"}
            return await client.post(path, content=body, headers=headers)

    for path in ("/v1/records", "/v1/cloudevents", "/v1/feedback"):
        assert asyncio.run(post(path, b" " * (BULK_BODY + 1))).status_code == 413
    found = asyncio.run(post("/v1/records", orjson.dumps([{}] * (MOST_ITEMS + 1))))
    assert (found.status_code, "more than 10,000 items" in found.text) == (422, True)


# Findings, and who is told ------------------------------------------------------------------------


def test_findings_that_a_receiver_knows_of_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(base, "MAX_NOTIFIED", 3)
    with receiver() as there:
        channel = Webhook(Notification.model_validate({"kind": "webhook", "url": there.url}))
        findings = Findings(Limits(max_open=100, max_openings=100))
        # Findings of one model are one incident, which is what a receiver is told.
        wrong = [signal(key=f"drift/m{n}/1//", model=f"m{n}") for n in range(8)]
        findings.report("watch", wrong, START)
        drive(channel, findings, START)
        assert (len(channel.notified), len(there.requests)) == (3, 3)
        channel.load_state(
            {
                "told": {
                    str(n): value for n in range(9) for value in [*channel.notified.values()][:1]
                }
            }
        )
        assert len(channel.notified) == 3


def test_open_findings_and_openings_of_a_model_are_bounded_and_the_rest_is_said() -> None:
    findings = Findings(Limits(max_open=3))
    wrong = [signal(key=f"drift/delays/1//{number}") for number in range(10)]
    findings.report("watch", wrong, START)
    opened = [one for one in findings.open() if one.signal.key.startswith("drift/")]
    assert len(opened) == 3
    assert any("7" in one.signal.title for one in findings.open() if one not in opened)
    many = Findings(Limits(max_open=1000, max_openings=5))
    many.report("watch", wrong, START)
    assert len([one for one in many.open() if one.signal.key.startswith("drift/")]) == 5


def test_silences_are_bounded() -> None:
    silences = Silences()
    for number in range(MAX_SILENCES):
        silences.add(f"drift/{number}", START + 60.0, "ada", "", START)
    with pytest.raises(FindingStateError, match="silences already"):
        silences.add("one/more", START + 60.0, "ada", "", START)


def test_rows_that_wait_for_others_are_bounded(tmp_path: Path) -> None:
    from tests.support.sheets import sheet_of
    from tests.support.source import NAMES, Source, saved
    from understudy.monitor.health.drift import watch as watching

    model = {"name": "delays", "version": "1", "baseline": saved(tmp_path, 2000)}
    watches = Watches(config_of(tmp_path, models=[model], experiments=[]))
    (watch,) = watches.watches.values()
    source = Source(3)
    for number in range(watching._MOST_LAYOUTS * 3):
        columns = (*NAMES[: 1 + number % 3], f"other-{number}")
        row = [*source.row()[: len(columns) - 1], 1.0]
        watch.take_rows(sheet_of(columns, [row], [START + number]), columns, False)
    assert len(watch._rows) <= watching._MOST_LAYOUTS
