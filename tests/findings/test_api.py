"""Findings over a real control address: the API, the command, the metrics and the page."""

from __future__ import annotations

import asyncio
import json
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from click.testing import CliRunner, Result
from fastapi import FastAPI
from prometheus_client.parser import text_string_to_metric_families

from tests.support.patience import eventually, patient
from tests.support.plane_process import MODEL, encoded
from tests.support.ports import free_port
from tests.support.signals import signal
from tests.support.webhook_receiver import receiver
from tools.parts.debian import environment, need
from understudy.monitor.api.app import prepare
from understudy.monitor.api.findings import add_findings
from understudy.monitor.api.guard import Guard
from understudy.monitor.api.pages import add_pages
from understudy.monitor.cli.findings import findings as command
from understudy.monitor.config.notify import Notification
from understudy.monitor.console.page import static
from understudy.monitor.errors import ApiError
from understudy.monitor.evidence.settings import Settings
from understudy.monitor.findings.finding import Contribution, Size
from understudy.monitor.findings.limits import Limits
from understudy.monitor.findings.service import FindingsService
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.records.handoff import Names
from understudy.monitor.service.evaluation import make_plane
from understudy.monitor.telemetry.exposition import encode
from understudy.monitor.telemetry.findings import finding_families

TOKEN = "UNDERSTUDY_TEST_TOKEN"


class Service:
    """A service with the API in front of it, on a port of its own."""

    def __init__(self, folder: Path, host: str = "127.0.0.1") -> None:
        self.service = FindingsService(folder)
        self.service.load_state(None)
        run_dir = folder / "run"
        run_dir.mkdir()
        data = {
            "control": {"listen": f"{host}:9090", "token_env": TOKEN},
            "state_dir": str(folder / "state"),
            "models": [MODEL],
        }
        self.plane: EvaluationPlane = make_plane(Settings.from_json(data), run_dir, "run-1")
        app = FastAPI()
        prepare(app)
        add_findings(app, self.plane, self.service)
        add_pages(app, "service", self.plane.settings)
        self.url = f"http://127.0.0.1:{free_port()}"
        port = int(self.url.rpartition(":")[2])
        self._server = uvicorn.Server(
            uvicorn.Config(
                Guard(app, self.plane.settings),
                "127.0.0.1",
                port,
                log_level="error",
                lifespan="off",
            )
        )
        self._thread = threading.Thread(target=self._server.run)

    def report(self, *signals: Any, now: float | None = None) -> str:
        """Id of the first one."""
        self.service.ledger.report("watch", signals, time.time() if now is None else now)
        open_ = {finding.key: finding.id for finding in self.service.ledger.open()}
        return open_[signals[0].key] if signals else ""

    def get(self, path: str, **options: Any) -> httpx.Response:
        return httpx.get(self.url + path, timeout=patient(20), **options)

    def post(self, path: str, data: Any, **options: Any) -> httpx.Response:
        return httpx.post(self.url + path, json=data, timeout=patient(20), **options)

    def __enter__(self) -> Service:
        self._thread.start()
        eventually(lambda: self._server.started)
        return self

    def __exit__(self, *_: object) -> None:
        self._server.should_exit = True
        self._thread.join()


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    monkeypatch.delenv(TOKEN, raising=False)
    with Service(tmp_path) as made:
        yield made


def run(service: Service, *arguments: str) -> Result:
    result = CliRunner().invoke(command, [*arguments, "--url", service.url])
    assert result.exception is None or isinstance(result.exception, (SystemExit, ApiError))
    return result


def test_lists_and_shows(service: Service) -> None:
    nothing = service.get("/v1/findings").json()
    assert nothing["findings"] == []
    assert nothing["open"] == {"critical": 0, "warning": 0, "info": 0}
    bad = signal("quality/fares/1//", kind="quality", model="fares", severity="critical")
    id_ = service.report(signal(), bad, signal("drift/delays/1/x=1/", severity="info"))
    found = service.get("/v1/findings").json()
    assert [one["severity"] for one in found["findings"]] == ["critical", "warning", "info"]
    assert found["open"] == {"critical": 1, "warning": 1, "info": 1}
    for query, count in (
        ("model=fares", 1),
        ("model=nobody", 0),
        ("severity=warning", 2),
        ("severity=critical&model=delays", 0),
        ("state=closed", 0),
        ("state=all", 3),
    ):
        assert service.get(f"/v1/findings?{query}").json()["matching"] == count, query
    short = service.get("/v1/findings?limit=1").json()
    assert (len(short["findings"]), short["matching"]) == (1, 3)
    one = service.get(f"/v1/findings/{id_}").json()
    assert one["features"][0] == {"name": "temp", "share": 0.8, "detail": "median 12, was 54"}
    assert one["size"]["low"] == 1.5
    assert one["examples"] == ["a-1", "a-2"]
    assert one["since_at"] == "1970-01-01T00:15:00Z"
    assert one["links"]["records"] == f"/v1/findings/{id_}/records"
    for path, code in (
        ("/v1/findings/nothing", 404),
        ("/v1/findings/nothing/records", 404),
        ("/v1/findings?limit=0", 422),
        ("/v1/findings?state=odd", 422),
        ("/v1/findings?severity=bad", 422),
    ):
        answer = service.get(path)
        assert answer.status_code == code
        assert answer.json()["error"]["message"]


def test_example_requests_can_be_fetched(service: Service) -> None:
    plane = service.plane
    bodies = [encoded({"a": [n]}, {"p": [0.5]}, request_id=f"a-{n}") for n in (1, 3)]
    plane.pipeline.take(
        Names(1, (("delays", "1", MODEL["protocol"]),), ("champion",)), 2, b"".join(bodies)
    )
    id_ = service.report(signal())
    found = service.get(f"/v1/findings/{id_}/records").json()
    assert [record["request_id"] for record in found["records"]] == ["a-1"]
    assert found["records"][0]["features"]["values"] == [[1]]
    assert found["gone"] == ["a-2"]


def test_people_acknowledge_and_close(service: Service) -> None:
    accepted: list[str] = []
    service.service.ledger.on_accepted = lambda finding: accepted.append(finding.id)
    id_ = service.report(signal())
    seen = service.post(f"/v1/findings/{id_}/acknowledge", {"who": "ada", "why": "known"})
    assert seen.json()["acknowledged"] is True
    order = {"who": "ada", "why": "a new sensor", "new_normal": True}
    closed = service.post(f"/v1/findings/{id_}/close", order).json()
    assert closed["state"] == "closed"
    assert [note["what"] for note in closed["notes"]] == ["acknowledge", "close"]
    assert accepted == [id_]
    again = service.post(f"/v1/findings/{id_}/close", order)
    assert again.status_code == 409
    assert "already closed" in again.json()["error"]["message"]
    assert service.post("/v1/findings/nothing/close", order).status_code == 404
    assert service.post(f"/v1/findings/{id_}/close", {"why": "nobody"}).status_code == 422
    assert service.post(f"/v1/findings/{id_}/open", order).status_code == 404


def test_silences(service: Service) -> None:
    service.report(signal())
    made = service.post("/v1/silences", {"pattern": "drift/*", "seconds": 60, "who": "ada"})
    assert made.status_code == 201
    assert service.get("/v1/findings").json()["findings"][0]["silent"] is True
    assert [one["id"] for one in service.get("/v1/silences").json()["silences"]] == ["s1"]
    assert httpx.delete(service.url + "/v1/silences/s1").status_code == 200
    assert service.get("/v1/findings").json()["findings"][0]["silent"] is False
    assert httpx.delete(service.url + "/v1/silences/s1").status_code == 404
    for wrong in ({"seconds": -1}, {"seconds": 1e9}, {"pattern": ""}, {"who": ""}):
        order = {"pattern": "*", "seconds": 60, "who": "ada", **wrong}
        assert service.post("/v1/silences", order).status_code == 422


def test_changing_calls_need_the_token(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    id_ = service.report(signal())
    evil = {"origin": "http://evil.example"}
    note = {"who": "mallory"}
    silence = {**note, "pattern": "*", "seconds": 60}
    assert service.post(f"/v1/findings/{id_}/close", note, headers=evil).status_code == 403
    monkeypatch.setenv(TOKEN, "correct horse")
    for path, data in (
        (f"/v1/findings/{id_}/close", note),
        (f"/v1/findings/{id_}/acknowledge", note),
        ("/v1/silences", silence),
    ):
        assert service.post(path, data).status_code == 401
        bearer = {"authorization": "Bearer wrong"}
        assert service.post(path, data, headers=bearer).status_code == 403
    assert httpx.delete(service.url + "/v1/silences/s1").status_code == 401
    bearer = {"authorization": "Bearer correct horse"}
    assert service.post(f"/v1/findings/{id_}/close", note, headers=bearer).status_code == 200


def test_findings_and_records_need_the_token_on_public_addresses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(TOKEN, "correct horse")
    with Service(tmp_path, "0.0.0.0") as service:
        id_ = service.report(signal())
        good = {"authorization": "Bearer correct horse"}
        for path in (f"/v1/findings/{id_}", f"/v1/findings/{id_}/records", "/v1/incidents"):
            assert service.get(path).status_code == 401
            assert service.get(path, headers=good).status_code == 200


def test_every_call_is_described(service: Service) -> None:
    paths = service.get("/openapi.json").json()["paths"]
    assert {path for path in paths if "/v1/" in path} == {
        "/v1/findings",
        "/v1/findings/{id}",
        "/v1/findings/{id}/records",
        "/v1/findings/{id}/timeline",
        "/v1/findings/{id}/acknowledge",
        "/v1/findings/{id}/close",
        "/v1/findings/history",
        "/v1/incidents",
        "/v1/incidents/{id}",
        "/v1/incidents/{id}/acknowledge",
        "/v1/silences",
        "/v1/silences/{id}",
        "/v1/session",
    }
    assert all(call["description"] for methods in paths.values() for call in methods.values())


# The command ------------------------------------------------------------------------------------


def test_command_line_lists_acknowledges_and_closes(service: Service) -> None:
    assert run(service, "list", "--exit-code").output == "nothing is open\n"
    id_ = service.report(signal(title="Inputs have changed: [bold]temp"))
    listed = run(service, "list", "--exit-code")
    assert listed.exit_code == 1
    assert id_ in listed.output
    assert "[bold]temp" in "".join(listed.output.split("\n")).replace("  ", "")
    assert run(service, "list", "--severity", "critical", "--exit-code").exit_code == 0
    assert run(service, "list", "--state", "closed", "--exit-code").exit_code == 1
    assert json.loads(run(service, "list", "--json").output)["matching"] == 1
    page = run(service, "show", id_, "--exit-code")
    assert page.exit_code == 1
    for words in (
        "[bold]temp",
        "temp: 2 standard deviations (1.5 to 2.5), was 0",
        "median 12, was 54",
        "80 %",
        "Compare the features that are named with their source.",
        "at most one false alarm in 1,000,000 rows",
        "a-1, a-2",
        "1970-01-01T00:15:00Z",
    ):
        assert words in page.output, page.output
    watched = run(service, "watch", "--once", "--exit-code")
    assert (watched.exit_code, id_ in watched.output) == (1, True)
    assert run(service, "ack", id_).exit_code == 2, "--why is needed"
    seen = run(service, "ack", id_, "--why", "known", "--who", "ada")
    assert seen.output.startswith(f"{id_} acknowledged")
    assert "ada: acknowledge, known" in run(service, "show", id_).output
    closed = run(service, "close", id_, "--why", "a new sensor", "--new-normal", "--json")
    assert json.loads(closed.output)["reason"].endswith("as the new normal")
    assert run(service, "show", id_, "--exit-code").exit_code == 0
    twice = run(service, "close", id_, "--why", "again")
    assert isinstance(twice.exception, ApiError)
    assert (twice.exception.exit_code, twice.exception.status) == (2, 409)
    assert run(service, "list", "--state", "all", "--exit-code").exit_code == 0
    assert "closed" in run(service, "list", "--state", "all").output


def several(service: Service) -> str:
    """Two findings of one incident and one of another; the id of the first incident."""
    service.report(
        signal("drift/delays/1//input/temp"),
        signal("drift/delays/1//input/wind", features=(Contribution("wind", 1.0, "rose"),)),
        signal("quality/fares/1//missing/age", kind="quality", model="fares", severity="critical"),
    )
    ids: list[str] = [one.id for one in service.service.ledger.incidents()]
    return ids[1]


def test_incidents_over_the_api_and_the_command(service: Service) -> None:
    assert run(service, "incidents", "--exit-code").output == "nothing is open\n"
    id_ = several(service)
    found = service.get("/v1/incidents").json()
    assert found["matching"] == 2
    assert [len(one["findings"]) for one in found["incidents"]] == [1, 2]
    assert [one["severity"] for one in found["incidents"]] == ["critical", "warning"]
    one = service.get(f"/v1/incidents/{id_}").json()
    assert one["headline"] == "Inputs have changed: temp; 1 more finding: wind"
    assert {f["incident"] for f in one["findings"]} == {id_}
    assert service.get("/v1/incidents?model=fares").json()["matching"] == 1
    assert service.get("/v1/incidents?severity=critical").json()["matching"] == 1
    assert service.get("/v1/incidents?state=closed").json()["matching"] == 0
    assert service.get("/v1/incidents/i-none").status_code == 404
    listed = run(service, "incidents", "--exit-code")
    assert listed.exit_code == 1
    assert one["headline"] in listed.output.replace("\n", "")
    assert json.loads(run(service, "incidents", "--json").output)["matching"] == 2
    page = run(service, "show", id_)
    assert page.output.count("Features, the most telling first") == 2
    acknowledged = run(service, "ack", id_, "--why", "known", "--who", "ada")
    assert acknowledged.output.startswith(f"{id_} acknowledged: Inputs have changed: temp")
    again = service.get(f"/v1/incidents/{id_}").json()
    assert again["acknowledged"]
    assert all(f["notes"][0]["who"] == "ada" for f in again["findings"])
    assert "open, acknowledged" in run(service, "incidents").output


def test_the_whole_history_is_served_in_pages(service: Service) -> None:
    # One closed finding in memory, twenty on disk.
    service.service.configure(Limits(hold=0, grace=0, history=1), [])
    now = time.time()
    for turn in range(20):
        service.report(signal(f"drift/delays/1//input/f{turn}"), now=now + 2 * turn)
        service.report(now=now + 2 * turn + 1)
    pages, before = [], ""
    while True:
        page = service.get(f"/v1/findings/history?limit=7{before}").json()
        pages.append(page["changes"])
        if page["next"] is None:
            break
        before = f"&before={page['next']}"
    changes = [one for page in pages for one in page]
    assert len(pages) == 6
    assert [one["event"] for one in changes] == ["closed", "opened"] * 20
    assert [one["at"] for one in changes] == sorted((one["at"] for one in changes), reverse=True)
    assert page["max_days"] == 90
    oldest = changes[-1]["finding"]["id"]
    assert len(service.service.ledger.all()) == 1
    assert service.get(f"/v1/findings/{oldest}").json()["state"] == "closed"
    assert "recovered" in run(service, "history", oldest).output
    assert len(run(service, "history", oldest).output.splitlines()) == 2
    assert run(service, "show", oldest).exit_code == 0
    first = run(service, "history", "--limit", "5")
    assert first.output.splitlines()[-1].startswith("older ones: --before ")
    assert run(service, "history", "--model", "none").output == "no changes\n"
    assert json.loads(run(service, "history", "--json").output)["next"] is None


def test_texts_of_users_reach_no_terminal_as_controls(service: Service) -> None:
    nasty = "\x1b]0;OWNED\x07\x1b[2J\r\u202e[red]all is well[/eur]\nno findings"
    id_ = service.report(
        signal(
            model=nasty,
            segment=nasty,
            title=f"Inputs have changed: {nasty}",
            features=(Contribution(nasty, 1.0, nasty),),
            size=Size(nasty, nasty, 0.0, 1.0, None, None),
            advice=nasty,
            examples=(nasty,),
        )
    )
    acknowledged = run(service, "ack", id_, "--why", nasty, "--who", nasty)
    silence = run(service, "silence", f"*{nasty}", "--why", nasty, "--who", nasty)
    for said in (
        acknowledged,
        silence,
        run(service, "silence"),
        run(service, "list"),
        run(service, "show", id_),
        run(service, "watch", "--once"),
        run(service, "close", id_, "--why", nasty),
        run(service, "close", id_, "--why", "twice"),
    ):
        text = said.output + str(said.exception or "")
        assert not set(said.output) & set("\x1b\x07\r\u202e"), said.output
        assert "OWNED" in text
        assert "[/eur]" in text.replace("\n", "").replace(" ", "")
        assert "no findings" not in said.output.splitlines()


def test_silences_from_the_command_line(service: Service) -> None:
    assert run(service, "silence").output == "there are no silences\n"
    made = run(service, "silence", "drift/*", "--for", "2h", "--why", "maintenance", "--who", "ada")
    assert made.output.startswith("s1: drift/* until ")
    assert "ada: maintenance" in run(service, "silence").output
    assert json.loads(run(service, "silence", "--json").output)["silences"][0]["id"] == "s1"
    assert run(service, "silence", "--end", "s1").output == "s1 has ended\n"
    assert run(service, "silence", "x", "--end", "s1").exit_code == 2
    assert run(service, "silence", "x", "--for", "long").exit_code == 2
    assert run(service, "silence", "x", "--for", "90").output.startswith("s2: x until ")


@pytest.mark.parametrize(
    "name", ["", "list", "show", "watch", "ack", "close", "silence", "incidents", "history"]
)
def test_help_has_examples(name: str) -> None:
    result = CliRunner().invoke(command, [*([name] if name else []), "--help"])
    assert result.exit_code == 0
    assert "understudy findings" in result.output.partition("Example")[2]


# Metrics and page -------------------------------------------------------------------------------


def exposition(service: FindingsService) -> str:
    return encode(list(finding_families(service, ())), "text/plain")[1].decode()


def samples(service: FindingsService) -> dict[tuple[str, ...], float]:
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(exposition(service))
        for sample in family.samples
    }


def test_metrics(tmp_path: Path) -> None:
    with receiver() as there:
        channel = Notification.model_validate({"kind": "webhook", "url": there.url})
        service = FindingsService(tmp_path, channels=[channel])
        service.load_state(None)
        now = time.time()
        service.ledger.report(
            "watch", [signal(), signal("quality/delays/1//", kind="quality")], now
        )
        assert samples(service)["understudy_notifications_pending", "webhook"] == 1, (
            "of an incident"
        )
        asyncio.run(service.notifier.flush())
        service.ledger.report("watch", [signal()], now)
        service.ledger.report("watch", [signal()], now + 300)
        found = samples(service)
    assert found["understudy_findings_open", "drift", "delays", "warning"] == 1
    assert found["understudy_findings_open", "quality", "delays", "warning"] == 0
    assert found["understudy_findings_total", "quality", "delays"] == 1
    assert found["understudy_notifications_total", "webhook", "delivered"] == 1
    assert found["understudy_notifications_total", "webhook", "failed"] == 0
    # What else changes within a minute is told together with what follows.
    assert found["understudy_notifications_pending", "webhook"] == 0


def test_promtool_accepts_the_metrics(tmp_path: Path) -> None:
    channel = Notification.model_validate({"kind": "webhook", "url": "http://127.0.0.1:1"})
    service = FindingsService(tmp_path, channels=[channel])
    service.ledger.report("watch", [signal()], time.time())
    checked = subprocess.run(
        [need("promtool"), "check", "metrics"],
        input=exposition(service).encode(),
        capture_output=True,
        env=environment(),
        timeout=patient(60),
    )
    assert (checked.stdout, checked.stderr, checked.returncode) == (b"", b"", 0)


def test_scripts_put_in_texts_as_text() -> None:
    for name in ("console.js", "morph.js", "clock.js", "cursor.js", "actions.js"):
        found = static(name)
        assert found is not None
        for way in (b"innerHTML", b"outerHTML", b"insertAdjacentHTML", b"document.write", b"eval("):
            assert way not in found[1], (name, way)


def test_page_draws_open_findings(service: Service) -> None:
    assert "None open." in service.get("/").text
    nasty = "<script>alert(1)</script>"
    id_ = service.report(signal(title=nasty))
    page = service.get("/").text
    assert nasty not in page
    assert "&lt;script&gt;alert(1)&lt;/script&gt;" in page
    assert "Open findings: 1" in page
    assert "acknowledged" not in page
    service.post(f"/v1/findings/{id_}/acknowledge", {"who": "ada", "why": "known"})
    assert "; acknowledged" in service.get("/").text
    shown = service.get(f"/?finding={id_}").text
    assert nasty not in shown
    assert "by ada: known" in shown
