"""The control API of a real process."""

from __future__ import annotations

import json
import os
import re
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.patience import eventually
from tests.support.plane_process import LABELS, PlaneProcess, WorkerEnd, encoded
from understudy.monitor.cli.main import main
from understudy.monitor.records import frames
from understudy.monitor.stats.sketch import observe

TOKEN = "correct horse"


@pytest.fixture
def plane(tmp_path: Path) -> Iterator[PlaneProcess]:
    with PlaneProcess(tmp_path) as process:
        yield process


def feed(plane: PlaneProcess, *records: bytes) -> None:
    worker = WorkerEnd(plane)
    worker.batch(1, records)
    worker.wait_for(frames.ACK, 1)


def test_ready_only_with_all_workers_and_a_champion(plane: PlaneProcess) -> None:
    answer = plane.get("/readyz")
    assert answer.status_code == 503
    assert answer.json()["problems"] == ["the supervisor has not reported yet"]
    plane.report(0, 1)
    problems = ["worker 0 is not ready", "worker 1 is not ready"]
    eventually(lambda: plane.get("/readyz").json()["problems"] == problems)
    stats = plane.stats(0)
    plane.stats(1)
    ready = {"ready": True, "problems": [], "warnings": []}
    assert plane.get("/readyz").json() == ready
    stats.words[stats.counter("upstream_connect_failures", {"arm": "champion"})] += 3
    eventually(lambda: "cannot be reached" in plane.get("/readyz").text)
    assert plane.get("/healthz").status_code == 200
    stats.words[stats.counter("requests", LABELS)] += 1
    eventually(lambda: plane.get("/readyz").status_code == 200)


def test_payloads_that_cannot_be_read_are_shown_and_the_service_stays_ready(
    plane: PlaneProcess,
) -> None:
    plane.report(0)
    plane.stats(0)
    eventually(lambda: plane.get("/readyz").status_code == 200)
    feed(plane, *[encoded(b"\0\1", b"\0\1", request_id=f"r-{n}") for n in range(30)])
    found = eventually(lambda: (one := plane.get("/readyz").json())["warnings"] and one)
    assert found["ready"] is True
    assert found["warnings"] == [
        "model 'delays' is blind: 0 of 30 answers of 'champion' could be read (not JSON)",
        "model 'delays' is blind: 0 of 30 requests could be read (not JSON)",
    ]
    status = plane.status()
    assert status["warnings"] == found["warnings"]
    assert {(one["check"], one["reason"]) for one in status["not_tested"]} == {
        ("answers", "unreadable"),
        ("inputs", "unreadable"),
    }
    assert plane.metric("understudy_not_tested", check="inputs", reason="unreadable") == 1.0
    eventually(lambda: plane.status()["findings"]["open"] == 2)
    shown = CliRunner().invoke(main, ["top", "--once", "--url", plane.url]).output
    assert "degraded" in shown
    assert "0 of 30 requests could be read" in " ".join(shown.split())


def test_errors_are_json(plane: PlaneProcess) -> None:
    for path, code in (("/nothing", 404), ("/v1/records?limit=0", 422), ("/v1/records?raw=x", 422)):
        answer = plane.get(path)
        assert answer.status_code == code
        assert set(answer.json()["error"]) == {"code", "message"}
    assert plane.get("/v1/config/reload").status_code == 405


def test_openapi_describes_every_path(plane: PlaneProcess) -> None:
    document = plane.get("/openapi.json").json()
    assert set(document["paths"]) == {
        "/healthz",
        "/readyz",
        "/metrics",
        "/v1/status",
        "/v1/arms",
        "/v1/history",
        "/v1/events",
        "/v1/stream",
        "/v1/distributions",
        "/v1/models",
        "/v1/records",
        "/v1/session",
        "/v1/config/reload",
        "/v1/experiments",
        "/v1/experiments/{name}",
        "/v1/experiments/{name}/timeline",
        "/v1/experiments/{name}/disagreements",
        "/v1/experiments/{name}/audit",
        "/v1/experiments/{name}/report",
        "/v1/experiments/{name}/{command}",
        "/v1/feedback",
        "/v1/argo/{name}",
        "/v1/flagger/{name}/{hook}",
        "/v1/baseline",
        "/v1/drift",
        "/v1/validation",
        "/v1/objectives",
        "/v1/cloudevents",
        "/v1/findings",
        "/v1/findings/history",
        "/v1/findings/{id}",
        "/v1/findings/{id}/records",
        "/v1/findings/{id}/timeline",
        "/v1/findings/{id}/acknowledge",
        "/v1/findings/{id}/close",
        "/v1/incidents",
        "/v1/incidents/{id}",
        "/v1/incidents/{id}/acknowledge",
        "/v1/silences",
        "/v1/silences/{id}",
    }
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["description"]
            assert {"200", "201"} & set(operation["responses"])
    assert "examples" in json.dumps(document)


def test_the_page_needs_nothing_from_elsewhere(plane: PlaneProcess) -> None:
    page = plane.get("/")
    assert page.headers["content-type"].startswith("text/html")
    assert "http://" not in page.text
    assert "https://" not in page.text
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe-inline" not in policy
    assert {"script-src 'self'", "style-src 'self'"} <= set(policy.split("; "))
    assert "<style" not in page.text
    loaded = re.findall(r'(?:src|href)="(static/[a-z.]+)"', page.text)
    assert loaded == ["static/console.css", "static/console.js"]
    imported = re.findall(r"from '\./([a-z]+\.js)'", plane.get("/static/console.js").text)
    assert imported == ["morph.js", "clock.js", "cursor.js", "actions.js"]
    for name in (*loaded, *(f"static/{one}" for one in imported)):
        found = plane.get(f"/{name}")
        kind = "text/css" if name.endswith(".css") else "text/javascript"
        assert found.headers["content-type"] == f"{kind}; charset=utf-8"
        assert found.headers["x-content-type-options"] == "nosniff"
        assert found.text
        assert "://" not in found.text
    for name in ("none.js", "..%2Fpage.py", "%2e%2e/page.py"):
        assert plane.get(f"/static/{name}").status_code == 404


def reloading(plane: PlaneProcess, reply: dict[str, Any], **headers: str) -> tuple[int, Any]:
    """Post a reload, be the supervisor that answers it, and return the answer to the client."""
    with socket.create_connection(("127.0.0.1", plane.port), 20) as client:
        lines = [f"{name}: {value}" for name, value in headers.items()]
        head = ["POST /v1/config/reload HTTP/1.1", *lines, "content-length: 0", "connection: close"]
        if "host" not in headers:
            head.append(f"host: 127.0.0.1:{plane.port}")
        client.sendall("\r\n".join([*head, "", ""]).encode())
        if reply:
            asked = plane.listen()
            assert asked["ask"] == "reload"
            plane.tell({"reply": asked["id"], **reply})
        answer = b""
        while data := client.recv(65536):
            answer += data
    status_line, _, rest = answer.partition(b"\r\n")
    return int(status_line.split()[1]), json.loads(rest.partition(b"\r\n\r\n")[2])


def test_reload_asks_the_supervisor(plane: PlaneProcess) -> None:
    code, body = reloading(plane, {"ok": True, "generation": 2})
    assert (code, body) == (200, {"ok": True, "generation": 2})
    code, body = reloading(plane, {"ok": False, "error": "champion.url: nonsense"})
    assert code == 409
    assert body["error"] == {"code": "refused", "message": "champion.url: nonsense"}


def test_pages_of_others_cannot_reload(plane: PlaneProcess) -> None:
    assert reloading(plane, {}, origin="http://evil.example")[0] == 403
    assert reloading(plane, {}, origin="null")[0] == 403
    assert reloading(plane, {}, host="evil.example")[0] == 403
    assert plane.get("/v1/records", headers={"host": "evil.example"}).status_code == 403
    own = f"http://127.0.0.1:{plane.port}"
    assert reloading(plane, {"ok": True, "generation": 3}, origin=own)[0] == 200
    local = f"localhost:{plane.port}"
    assert reloading(plane, {"ok": True, "generation": 4}, host=local)[0] == 200


def test_with_a_token_a_reload_needs_it(tmp_path: Path) -> None:
    plane = PlaneProcess(tmp_path)
    with plane.start(UNDERSTUDY_TEST_TOKEN=TOKEN):
        assert reloading(plane, {})[0] == 401
        assert reloading(plane, {}, authorization="Basic abc")[0] == 401
        code, body = reloading(plane, {}, authorization="Bearer wrong")
        assert code == 403
        assert body["error"]["code"] == "forbidden"
        good = {"authorization": f"Bearer {TOKEN}"}
        assert reloading(plane, {"ok": True, "generation": 2}, **good)[0] == 200
        assert plane.get("/v1/status").status_code == 200


def test_without_a_token_nobody_reloads_from_afar(tmp_path: Path) -> None:
    plane = PlaneProcess(tmp_path)
    plane.config["control"]["listen"] = f"0.0.0.0:{plane.port}"
    with plane.start():
        code, body = reloading(plane, {})
        assert code == 403
        assert "UNDERSTUDY_TEST_TOKEN" in body["error"]["message"]


def test_reading_needs_the_token_once_others_can_ask(tmp_path: Path) -> None:
    plane = PlaneProcess(tmp_path)
    plane.config["control"]["listen"] = f"0.0.0.0:{plane.port}"
    with plane.start(UNDERSTUDY_TEST_TOKEN=TOKEN):
        good = {"authorization": f"Bearer {TOKEN}"}
        for path in ("records", "status", "drift", "experiments", "findings", "models"):
            assert plane.get(f"/v1/{path}").status_code == 401
            assert plane.get(f"/v1/{path}", headers=good).status_code == 200
        # Probes and scrapes ask by the address of the pod, or by a name within the cluster.
        for path in ("healthz", "metrics", ""):
            for host in ("10.1.2.3:9090", "understudy.serving.svc:9090"):
                assert plane.get(f"/{path}", headers={"host": host}).status_code == 200
            assert plane.get(f"/{path}", headers={"host": "evil.example"}).status_code == 403
        for command in (["top", "--once"], ["findings", "list"], ["experiment", "list"]):
            arguments = [*command, "--url", plane.url]
            asked = CliRunner().invoke(main, arguments)
            assert asked.exit_code == 1
            assert "UNDERSTUDY_TOKEN" in asked.stderr + str(asked.exception)
            (tmp_path / "token").write_text(TOKEN)
            arguments += ["--token-file", str(tmp_path / "token")]
            found = CliRunner().invoke(main, arguments)
            assert (found.exit_code, found.stderr) == (0, "")


def test_a_taken_port_does_not_stop_the_evaluation(tmp_path: Path) -> None:
    plane = PlaneProcess(tmp_path)
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", plane.port))
        taken.listen()
        with plane.start(wait=False):
            assert plane.listen() == {"event": "ready"}
            worker = WorkerEnd(plane)
            worker.batch(1, [encoded({"a": [1.0]}, {"p": [0.5]})])
            worker.wait_for(frames.ACK, 1)
            taken.close()
            status = eventually(plane.status)
            assert status["records"]["evaluated"] == 1


def test_recent_records_are_decoded_and_newest_first(plane: PlaneProcess) -> None:
    feed(
        plane,
        encoded({"a": [1.5]}, {"p": [0.25]}, request_id="first", trace_id="ab" * 16),
        encoded(None, {"p": [0.75]}, arm=1, role=1, request_id="second"),
        encoded(b"not json", None, outcome=3, request_id="third"),
    )
    records = plane.get("/v1/records").json()["records"]
    assert [record["request_id"] for record in records] == ["third", "second", "first"]
    third, second, first = records
    assert first["features"] == {"names": ["a"], "rows": 1, "values": [[1.5]]}
    assert first["predictions"] == {"names": ["p"], "rows": 1, "values": [[0.25]]}
    assert first["trace_id"] == "ab" * 16
    assert first["headers"] == {"content-type": "application/json"}
    assert first["undecodable"] == {}
    assert "request" not in first
    assert (second["arm"], second["role"]) == ("candidate", "mirror")
    assert third["outcome"] == "timeout"
    assert third["undecodable"]["request"] == "not_json"
    assert len(plane.get("/v1/records?limit=2").json()["records"]) == 2
    raw = plane.get("/v1/records?raw=true").json()["records"]
    assert raw[2]["request"]["inputs"][0]["data"] == [1.5]
    assert raw[0]["request"] == "8 bytes that are not JSON"


SECRET = 987654321.5
SHAPES: dict[str, tuple[str, dict[str, Any], Any]] = {
    "a tensor": ("/v2/models/delays/infer", {}, None),
    "a tensor under a configured name": ("/v2/models/delays/infer", {"features": ["u", "v"]}, None),
    "a column": (
        "/invocations",
        {},
        {"dataframe_split": {"columns": ["x", "ssn"], "data": [[1, SECRET]]}},
    ),
    "a key": ("/invocations", {}, {"dataframe_records": [{"x": 1, "ssn": SECRET}]}),
    "a key under a configured name": (
        "/invocations",
        {"features": ["u", "v"]},
        {"dataframe_records": [{"x": 1, "ssn": SECRET}]},
    ),
    "a position": (
        "/v1/models/delays:predict",
        {"features": ["x", "ssn"]},
        {"instances": [[1, SECRET]]},
    ),
    "a pointer by path": (
        "/score",
        {
            "protocol": "json",
            "paths": ["/v2/models/delays/infer"],
            "json": {"features": {"number": "/ssn/digits"}, "predictions": {"p": "/p"}},
        },
        {"ssn": {"digits": SECRET}, "x": 1},
    ),
    "a pointer by name": (
        "/score",
        {
            "protocol": "json",
            "paths": ["/v2/models/delays/infer"],
            "json": {"features": {"ssn": "/who/digits"}, "predictions": {"p": "/p"}},
        },
        {"who": {"digits": SECRET}, "x": 1},
    ),
    "something not understood": ("/v2/models/delays/infer", {}, {"other": [1, SECRET]}),
}


@pytest.mark.parametrize("shape", SHAPES)
def test_a_hidden_field_is_hidden_wherever_it_stands(tmp_path: Path, shape: str) -> None:
    target, model, body = SHAPES[shape]
    plane = PlaneProcess(tmp_path)
    plane.config["models"][0].update({"protocol": "auto", **model})
    plane.config["records"]["redact"] = ["ssn"]
    payload: Any = {"x": [1.0], "ssn": [SECRET]} if body is None else json.dumps(body).encode()
    with plane.start():
        feed(
            plane,
            encoded(
                payload,
                {"p": [0.5]},
                target=f"{target}?ssn={SECRET}&x=1",
                headers=f"ssn: {SECRET}\r\nx-other: shown",
            ),
        )
        for path in ("/v1/records", "/v1/records?raw=true"):
            answer = plane.get(path)
            assert str(SECRET) not in answer.text
            assert "x-other" in answer.text
            (record,) = answer.json()["records"]
            if shape != "something not understood":
                assert record["features"]["rows"] == 1
            if "tensor" in shape:
                assert record["predictions"]["values"] == [[0.5]]


def test_models_show_features_and_predictions(plane: PlaneProcess) -> None:
    feed(
        plane,
        encoded({"age": [40.0, None], "air": ["UA", "DL"]}, {"p": [0.25, 0.75]}),
        encoded(None, {"p": [0.5]}, arm=1, role=1),
        encoded(b"{", b"{"),
    )
    (model,) = plane.get("/v1/models").json()["models"]
    assert (model["name"], model["version"], model["rows"]) == ("delays", "1", 2)
    age, air = model["features"]
    assert (age["name"], age["count"], age["missing"], age["mean"]) == ("age", 1, 1, 40.0)
    assert (air["name"], air["text"], air["missing"]) == ("air", 2, 0)
    assert [(p["arm"], p["count"], p["mean"]) for p in model["predictions"]] == [
        ("champion", 2, 0.5),
        ("candidate", 1, 0.5),
    ]
    assert {u["part"] for u in model["undecodable"]} == {"request", "response"}


def test_status_of_mirror_and_cold_start(tmp_path: Path) -> None:
    plane = PlaneProcess(tmp_path)
    stats = plane.stats()
    arm = {"arm": "candidate"}
    for outcome, count in (("ok", 5), ("timeout", 2), ("breaker_open", 9)):
        stats.words[stats.counter("mirror", {**arm, "outcome": outcome})] = count
    stats.words[stats.gauge("breaker", arm)] = 1
    stats.words[stats.gauge("mirror_queue", arm)] = 3
    stats.words[stats.gauge("in_flight", {**arm, "role": "mirror"})] = 4
    stats.words[stats.gauge("cold_start_us", arm)] = 1_500_000
    stats.words[stats.counter("cold_starts", arm)] = 1
    observe(stats.words, stats.sketch("duration", {**LABELS, **arm, "role": "mirror"}), 5_000_000)
    with plane.start():
        candidate = plane.status()["arms"][1]
        assert (candidate["role"], candidate["state"]) == ("mirrored", "down")
        assert candidate["in_flight"] == 4
        assert candidate["cold_start_seconds"] == 1.5
        assert candidate["windows"]["start"]["count"] == 1
        mirror = candidate["mirror"]
        assert mirror["outcomes"] == {"breaker_open": 9, "ok": 5, "timeout": 2}
        assert mirror["not_sent"] == 9
        assert mirror["queue"] == 3
        assert mirror["breaker"] == {"open": 1}


def test_the_process_keeps_within_its_memory(plane: PlaneProcess) -> None:
    worker = WorkerEnd(plane)
    row = {f"f{number}": [number + 0.5] for number in range(20)}
    batch = [encoded(row, {"p": [0.25], "label": [1]})] * 256
    sizes = []
    for seq in range(1, 121):
        worker.batch(seq, batch)
        worker.wait_for(frames.ACK, seq)
        if seq % 40 == 0:
            plane.get("/metrics")
            plane.status()
            assert plane.process is not None
            pages = Path(f"/proc/{plane.process.pid}/statm").read_text().split()[1]
            sizes.append(int(pages) * os.sysconf("SC_PAGE_SIZE") / 2**20)
    assert plane.status()["records"]["evaluated"] == 120 * 256
    assert sizes[-1] <= 160
    assert sizes[-1] - sizes[1] <= 4
