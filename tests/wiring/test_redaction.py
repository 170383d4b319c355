"""No value of a hidden field is shown anywhere: every one of them can be told by its beginning.

The fields are hidden by their names, and by the paths that a mapping of plain JSON gives them.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import sqlite3
import time
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from click.testing import CliRunner

from tests.support.control_api import evaluator_api, filled, routes, settings_of
from tests.support.evaluation import config_of
from tests.support.plane_process import encoded
from tests.support.ports import free_port
from tests.support.webhook_receiver import receiver
from understudy.monitor.api.app import build
from understudy.monitor.api.server import ApiServer
from understudy.monitor.archive.export import to_parquet
from understudy.monitor.archive.reading import open_log
from understudy.monitor.archive.recorder import Recorder
from understudy.monitor.archive.records import Log
from understudy.monitor.baseline.builder import Builder
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.cli.main import main
from understudy.monitor.config.model import Config, RecordLog
from understudy.monitor.evidence.batch import ColumnBatch
from understudy.monitor.evidence.blocks import Builder as Blocks
from understudy.monitor.evidence.decoding import Decoder
from understudy.monitor.evidence.mirrored import Compared
from understudy.monitor.evidence.partition import Partition
from understudy.monitor.health.watches import Watches
from understudy.monitor.kafka.consumer import EvidenceConsumer
from understudy.monitor.labels.service import LabelService
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.records import record
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.record import decode_batch
from understudy.monitor.service.evaluation import _take_labels, make_plane
from understudy.monitor.service.evaluator_api import Api
from understudy.monitor.telemetry.exposition import encode

SECRET, NUMBER = "s3cret-", "98765432"
"""Beginnings of every hidden text and number."""
FEATURES = ("amount", "country", "ssn", "income")
ANSWERS = ("p", "note", "limit")
ARMS = ("champion", "candidate", "other")
BY_NAME = ["ssn", "income", "note", "limit", "x-account"]
BY_PATH = ["customer.*", "remark", "ceiling", "x-account"]
EXPERIMENT = {
    "name": "shadowed",
    "model": "delays",
    "challengers": ["candidate"],
    "metrics": [{"metric": "disagreement", "margin": "10 pp"}],
    "label": {"prediction": "p", "threshold": 0.5},
    "compare": {"keep": 200},
}


class People:
    """Requests of people, and what the model answers."""

    def __init__(self, seed: int) -> None:
        self._chance = random.Random(seed)

    def row(self, changed: bool = False) -> dict[str, Any]:
        chance = self._chance
        ssn = f"{SECRET}{'d' if changed else chance.choice('abcd')}"
        income = 987_654_320.0 + chance.random() + (8.0 if changed else 0.0)
        country = chance.choices(("de", "fr", "it"), (5, 3, 1))[0]
        return {
            **{"amount": round(chance.lognormvariate(3.0, 1.0), 2), "country": country},
            **{"ssn": ssn, "income": income},
        }

    def answer(self) -> dict[str, Any]:
        p = round(self._chance.betavariate(2.0, 5.0), 4)
        note = f"{SECRET}{self._chance.choice('xyz')}"
        return {"p": p, "note": note, "limit": 987_654_320.0 + self._chance.random()}


def baseline(rows: int = 3000) -> Baseline:
    people = People(1)
    roles: Any = {**dict.fromkeys(ANSWERS, "prediction"), "y": "target"}
    builder = Builder(model="delays", roles=roles, source="test")
    every = [
        {**people.row(), **people.answer(), "y": float(number % 3 == 0)} for number in range(rows)
    ]
    builder.add(tuple(every[0]), [[one[name] for one in every] for name in every[0]])
    return builder.finish()


def world(folder: Path, mapped: bool, **changes: Any) -> Config:
    path = folder / "baseline.json"
    if not path.exists():
        baseline().save(path)
    model: dict[str, Any] = {
        **{"name": "delays", "version": "1", "baseline": str(path)},
        "protocol": "open-inference-v2",
        "performance": {"prediction": "p", "threshold": 0.5, "slices": True},
    }
    if mapped:
        asked = {"amount": "/amount", "country": "/country"}
        asked |= {"ssn": "/customer/ssn", "income": "/customer/income"}
        said = {"p": "/p", "note": "/remark", "limit": "/ceiling"}
        model |= {"protocol": "json", "paths": ["/v2/models/delays/infer"]}
        model |= {"json": {"features": asked, "predictions": said}}
    return config_of(
        folder / "state",
        models=[model],
        experiments=[EXPERIMENT],
        monitoring={"segments": ["country", "ssn"], "hold": "60s"},
        records={"redact": BY_PATH if mapped else BY_NAME, "keep": 10},
        **changes,
    )


class Traffic:
    """Hands requests with both arms' answers to a plane."""

    def __init__(self, mapped: bool) -> None:
        self.people = People(2)
        self.number = 0
        self.mapped = mapped
        protocol = "json" if mapped else "open-inference-v2"
        self.names = Names(1, (("delays", "1", protocol),), ARMS)
        self.rows: dict[str, dict[str, Any]] = {}

    def records(self, count: int, changed: bool = False) -> list[bytes]:
        found = []
        for _ in range(count):
            self.number += 1
            id_, row = f"r-{self.number}", self.people.row(changed)
            self.rows[id_] = row
            for arm, role in ((0, record.ROLE_PRIMARY), (1, record.ROLE_MIRROR)):
                asked = self.asked(row) if role == record.ROLE_PRIMARY else None
                found.append(
                    encoded(
                        *(asked, self.said(self.people.answer())),
                        **{"arm": arm, "role": role, "request_id": id_},
                        target=f"/v2/models/delays/infer?{'remark' if self.mapped else 'ssn'}={SECRET}",
                        headers=f"content-type: application/json\r\nx-account: {SECRET}",
                    )
                )
        return found

    def asked(self, row: dict[str, Any]) -> Any:
        if not self.mapped:
            return {name: [cell] for name, cell in row.items()}
        plain = {name: row[name] for name in ("amount", "country")}
        customer = {name: row[name] for name in ("ssn", "income")}
        return json.dumps({**plain, "customer": customer}).encode()

    def said(self, answer: dict[str, Any]) -> Any:
        if not self.mapped:
            return {name: [cell] for name, cell in answer.items()}
        renamed = {"remark": answer["note"], "ceiling": answer["limit"]}
        return json.dumps({"p": answer["p"], **renamed}).encode()


def sent(plane: EvaluationPlane, traffic: Traffic, count: int, changed: bool = False) -> None:
    for _ in range(0, count, 50):
        found = traffic.records(50, changed)
        plane.pipeline.take(traffic.names, len(found), b"".join(found))
    plane.pipeline.flush()


def shown(plane: EvaluationPlane) -> dict[str, str]:
    """What every route of the API shows, by path."""
    line: Any = SimpleNamespace()
    app = build(plane, line)
    loop = plane.pipeline.findings_loop
    assert loop is not None
    ledger = loop.service.ledger
    known = {
        "/v1/findings/": [finding.id for finding in ledger.open()],
        "/v1/incidents/": [incident.id for incident in ledger.all_incidents()],
    }

    async def run() -> dict[str, str]:
        found = {}
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(app), base_url="http://127.0.0.1:9090"
        ) as client:
            for method, path in set(routes(app)):
                if method != "GET" or path == "/openapi.json":
                    continue
                for id_ in known[path.partition("{")[0]] if "{id}" in path else [""]:
                    where = filled(path.replace("{id}", id_))
                    for query in ("", "?raw=true") if where.endswith("/records") else ("",):
                        answer = await client.get(where + query)
                        assert answer.status_code in (200, 503), (where, answer.text)
                        found[where + query] = answer.text
        return found

    return asyncio.run(run())


@pytest.fixture(scope="module", params=[False, True], ids=["by name", "by path"])
def story(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> dict[str, Any]:
    """A plane that has seen rows as usual, then rows of other people, and labels; what it shows."""
    folder, mapped = tmp_path_factory.mktemp("plane"), request.param
    logged: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda line: logged.append(line.getMessage())  # type: ignore[method-assign]
    logging.getLogger().addHandler(handler)
    (folder / "run").mkdir()
    with receiver() as there:
        config = world(
            folder, mapped, notify=[{"kind": "webhook", "url": there.url, "severity": "info"}]
        )
        plane = make_plane(settings_of(config), folder / "run", "run-1")
        traffic, loop, feedback = Traffic(mapped), plane.pipeline.findings_loop, plane.feedback
        assert loop is not None
        assert isinstance(feedback, LabelService)
        sent(plane, traffic, 1100)
        labels = [
            {"request_id": id_, "label": float(row["ssn"] == f"{SECRET}d")}
            for id_, row in traffic.rows.items()
        ]

        async def judge() -> None:
            assert plane.experiments is not None
            await feedback.flush()
            line: Any = SimpleNamespace()
            transport = httpx.ASGITransport(build(plane, line))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1:9090"
            ) as client:
                posted = await client.post("/v1/feedback", json=labels)
                assert posted.status_code == 200, posted.text
            await _take_labels(plane)
            plane.pipeline.flush()
            plane.experiments.tick()
            loop.tick(time.time())
            await loop.service.notifier.flush()

        asyncio.run(judge())
        calm = shown(plane)
        sent(plane, traffic, 600, changed=True)
        asyncio.run(judge())
        kept = [
            text
            for (text,) in sqlite3.connect(feedback.store.path).execute(
                "SELECT outputs FROM predictions UNION ALL SELECT outputs FROM joined"
            )
        ]
        told = b"".join(request.body for request in there.requests).decode()
        found = {
            **{"calm": calm, "after": shown(plane), "kept": kept, "told": told},
            **{"log": "\n".join(logged), "plane": plane, "config": config, "folder": folder},
        }
    logging.getLogger().removeHandler(handler)
    return found


def test_no_route_shows_a_hidden_value(story: dict[str, Any]) -> None:
    for when in ("calm", "after"):
        for path, text in story[when].items():
            for hidden in (SECRET, NUMBER):
                assert hidden not in text, (path, text[max(0, text.find(hidden) - 200) :][:400])


def test_what_is_not_hidden_is_shown(story: dict[str, Any]) -> None:
    """Or the test above would hold of a service that shows nothing."""
    after = {path: json.loads(text) for path, text in story["after"].items() if text[:1] == "{"}
    worst = after["/v1/experiments/shadowed/disagreements"]["candidate"]
    assert worst
    assert worst[0]["inputs"]["country"] in ("de", "fr", "it")
    assert worst[0]["inputs"]["ssn"] == "[redacted]"
    assert worst[0]["champion"]["note"] == "[redacted]"
    assert any("p: 0." in one["explanation"] for one in worst)
    assert any('note: "[redacted]" against' in one["explanation"] for one in worst)
    (of_model,) = after["/v1/drift"]["models"]
    assert {one["feature"] for one in of_model["segments"]} == {"country"}
    assert set(of_model["performance"]["segments"]) == {"country"}
    columns = after["/v1/baseline"]["columns"]
    assert set(columns) == {"amount", "country", "p", "y"}
    assert Baseline.from_dict(after["/v1/baseline"]).rows == 3000
    features = {one["name"]: one for one in after["/v1/models"]["models"][0]["features"]}
    assert features["amount"]["min"] > 0.0
    assert (features["income"]["min"], features["income"]["count"] > 0) == (None, True)
    titles = [finding["title"] for finding in after["/v1/findings"]["findings"]]
    drift = [f for f in after["/v1/findings"]["findings"] if f["kind"] == "drift"]
    named = {one["name"]: one["detail"] for found in drift for one in found["features"]}
    assert {"ssn", "income"} <= set(named), titles
    assert named["income"] == "shifted"
    assert "note" not in story["after"]["/metrics"].partition("prediction_class_total")[2][:2000]
    kept = next(one for one in after["/v1/records"]["records"] if one["features"])
    assert kept["features"]["values"][0][1] in ("de", "fr", "it")


def test_what_waits_for_a_label_holds_no_hidden_feature(story: dict[str, Any]) -> None:
    assert len(story["kept"]) >= 1000
    of_features = [
        {name: cell for name, cell in json.loads(text).items() if name.startswith("@")}
        for text in story["kept"]
    ]
    assert SECRET not in json.dumps(of_features)
    assert {"@country", "@amount"} == set(of_features[0])


def test_messages_and_logs_hold_no_hidden_value(story: dict[str, Any]) -> None:
    assert '"event":"opened"' in story["told"].replace(" ", "")
    assert "ssn" in story["told"]
    assert SECRET not in story["told"]
    assert SECRET not in story["log"]


@pytest.mark.parametrize("mapped", [False, True], ids=["by name", "by path"])
def test_evidence_of_a_partition_tells_no_hidden_value_of_a_disagreement(
    tmp_path: Path, mapped: bool
) -> None:
    found = evidence(world(tmp_path, mapped), mapped)
    notes = [sheet for sheet in found if sheet.kind[0] == "notes"]
    told = repr([sheet.columns for sheet in notes])
    assert "'worst'" in told
    assert "country" in told
    assert SECRET not in told


@pytest.mark.parametrize("mapped", [False, True])
def test_events_of_single_comparisons_tell_no_hidden_value(tmp_path: Path, mapped: bool) -> None:
    told: list[Compared] = []
    evidence(world(tmp_path, mapped), mapped, told.append)
    differences = [one.difference for one in told if not one.agree]
    assert any("[redacted]" in one for one in differences)
    assert SECRET not in repr(differences)


def evidence(
    config: Config, mapped: bool, compared: Callable[[Compared], None] | None = None
) -> list[ColumnBatch]:
    """What the first stage makes of a hundred requests; ``compared`` gets each pair of answers."""
    traffic, decoder = Traffic(mapped), Decoder(settings_of(config))
    blocks = Blocks("pod-0", "run-1", 1, 1000)
    partition = Partition(config, "0")
    partition.stage_one.compared = compared
    for one in decode_batch(b"".join(traffic.records(100))):
        asked, said = decoder.decode(traffic.names.models[0], one)
        for block in blocks.add(traffic.names, one, asked, said, time.time()):
            partition.take(block, 0)
    for block in blocks.flush(time.time(), everything=True):
        partition.take(block, 1)
    found = partition.drain()
    partition.close()
    return found


def test_an_evaluator_hides_what_a_sidecar_hides(tmp_path: Path) -> None:
    pytest.importorskip("kafka", reason="kafka-python is an extra")
    config = world(tmp_path, mapped=True)
    (tmp_path / "state").mkdir()
    api: Any = evaluator_api(tmp_path / "state").app
    app = Api(api._evaluator, settings_of(config))
    member: Any = app._evaluator.member
    # What it has was learnt before there were rules.
    unruled = config.model_copy(
        update={"records": config.records.model_copy(update={"redact": []})}
    )
    judge = EvidenceConsumer(unruled, ["0"])
    judge.pipeline.feed(evidence(unruled, mapped=True))

    async def shown() -> str:
        of_judge = app._app_of(member, 0, judge)
        async with httpx.AsyncClient(
            transport=httpx.ASGITransport(of_judge), base_url="http://127.0.0.1:9090"
        ) as client:
            return (await client.get("/v1/baseline")).text

    found = asyncio.run(shown())
    member.inputs = {}
    member.consumers = dict.fromkeys(range(member.evidence_partitions), judge)
    _, metrics = encode(app._member_families(member), "")
    judge.close()
    assert "country" in found
    assert 'prediction="p"' in metrics.decode()
    assert SECRET not in found + metrics.decode()


@pytest.mark.parametrize("mapped", [False, True], ids=["by name", "by path"])
def test_an_export_with_the_configuration_leaves_hidden_columns_out(
    tmp_path: Path, mapped: bool
) -> None:
    parquet = pytest.importorskip("pyarrow.parquet", reason="pyarrow is an extra")
    config = world(tmp_path, mapped)
    recorder = Recorder(RecordLog.model_validate({"path": str(tmp_path / "log")}))
    traffic = Traffic(mapped)
    for one in decode_batch(b"".join(traffic.records(5))):
        recorder.add(traffic.names, one)
    recorder.close()
    to_parquet(Log(open_log(tmp_path / "log")), config, tmp_path / "out.parquet")
    table = parquet.read_table(tmp_path / "out.parquet")
    named = {name for name in table.schema.names if "." in name}
    assert named == {"feature.amount", "feature.country", "prediction.p"}
    assert SECRET not in repr(table.select(sorted(named)).to_pylist())


def test_slices_that_were_found_under_other_rules_are_forgotten(tmp_path: Path) -> None:
    rules = world(tmp_path, mapped=False)
    only = rules.monitoring.model_copy(update={"segments": ["country"]})
    rules = rules.model_copy(update={"monitoring": only})
    unruled = rules.model_copy(update={"records": rules.records.model_copy(update={"redact": []})})
    watches = Watches(unruled)
    key = ("delays", "1")
    found = watches.performance[key].slices
    assert found is not None
    found.found = [{"slice": f"ssn = {SECRET}d"}]
    watches.configure(unruled)
    assert SECRET in json.dumps(watches.summary())
    state = watches.dump_state()
    watches.configure(rules)
    assert SECRET not in json.dumps(watches.summary())
    again = Watches(rules)
    again.load_state(state)
    assert SECRET not in json.dumps(again.summary())


@pytest.mark.parametrize("mapped", [False, True], ids=["by name", "by path"])
def test_rules_that_are_added_hold_from_the_reload_on(tmp_path: Path, mapped: bool) -> None:
    rules = world(tmp_path, mapped)
    open_ = rules.model_copy(update={"records": rules.records.model_copy(update={"redact": []})})
    (tmp_path / "run").mkdir()
    plane = make_plane(settings_of(open_), tmp_path / "run", "run-1")
    traffic = Traffic(mapped)
    sent(plane, traffic, 50)
    assert plane.experiments is not None
    plane.experiments.tick()
    for where in ("/v1/records", "/v1/experiments/shadowed/disagreements", "/v1/drift"):
        assert SECRET in shown(plane)[where]
    document = rules.model_dump_json(by_alias=True)
    path = tmp_path / "new.json"
    path.write_text(document)
    plane.reconfigure(path)
    assert SECRET not in shown(plane)["/v1/records?raw=true"]
    assert '"candidate":[]' in shown(plane)["/v1/experiments/shadowed/disagreements"]
    sent(plane, traffic, 100)
    plane.experiments.tick()
    for path, text in shown(plane).items():
        assert SECRET not in text, path
    assert "[redacted]" in shown(plane)["/v1/experiments/shadowed/disagreements"]


def test_no_file_of_the_state_holds_a_hidden_text(story: dict[str, Any]) -> None:
    """Numbers are in it: sums and extremes, from which the statistics go on."""
    plane = story["plane"]
    asyncio.run(plane.saver.save())
    state = story["folder"] / "state"
    files = {str(f.relative_to(state)): f.read_bytes() for f in state.rglob("*") if f.is_file()}
    assert b"country" in files["evaluation.json"]
    assert any(b"country" in data for name, data in files.items() if name.startswith("feedback"))
    assert [name for name, data in files.items() if SECRET.encode() in data] == []


def test_no_command_prints_a_hidden_value(story: dict[str, Any], tmp_path: Path) -> None:
    plane = story["plane"]
    line: Any = SimpleNamespace()
    ledger = plane.pipeline.findings_loop.service.ledger
    commands = [
        *(["top", "--once"], ["top", "--json"], ["findings", "list"], ["findings", "history"]),
        *(["findings", "list", "--state", "all", "--json"], ["objectives"]),
        *(["experiment", "list"], ["experiment", "show", "shadowed"]),
        ["experiment", "report", "shadowed", "-o", str(tmp_path / "report.html")],
        *(["findings", "show", finding.id] for finding in ledger.all()),
        *(["findings", "show", finding.id, "--json"] for finding in ledger.all()),
    ]

    async def run() -> dict[str, str]:
        server = ApiServer(build(plane, line), "127.0.0.1", port := free_port())
        task = asyncio.create_task(server.serve())
        found = {}
        for command in commands:
            arguments = [*command, "--url", f"http://127.0.0.1:{port}"]
            for _ in range(500):
                done = await asyncio.to_thread(CliRunner().invoke, main, arguments)
                if "is 'understudy serve' running" not in done.output + str(done.exception):
                    break
                await asyncio.sleep(0.05)
            assert done.exit_code == 0, (command, done.output, done.exception)
            found[" ".join(command)] = done.output
        server.stop()
        await task
        return found

    printed = asyncio.run(run())
    printed["report"] = (tmp_path / "report.html").read_text()
    for command, text in printed.items():
        assert SECRET not in text, command
        assert NUMBER not in text, command
    assert "country" in printed["top --json"]
