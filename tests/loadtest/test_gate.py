"""The gate from the command line: plans, verdicts, exit codes, reports, and what is refused."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import numpy as np
import pytest

from tests.support.gates import gate, plan
from tests.support.load_server import Server, written
from tests.support.outcomes import outcome_of
from tests.support.patience import eventually, patient
from understudy.common.codecs import ModelSpec, Undecodable, decode_exchange
from understudy.loadtest.capacity.meters import Meter, energy, memory
from understudy.loadtest.errors import PlanError, TargetError
from understudy.loadtest.gate.environment import scheduling
from understudy.loadtest.gate.plan_file import load_plan, plan_of
from understudy.loadtest.gate.sending import load_of, payloads_of
from understudy.loadtest.gate.target import address_of, allowed
from understudy.loadtest.payloads.checks import alike, at
from understudy.loadtest.payloads.formats import in_format
from understudy.loadtest.payloads.request import as_body
from understudy.loadtest.scenarios import shapes
from understudy.loadtest.scenarios.loadgen import Settings, discards
from understudy.loadtest.scenarios.loadgen import evaluate as evaluate_loadgen
from understudy.loadtest.statistics.percentile import queries_needed


def test_a_passed_gate_writes_its_reports(tmp_path: Path) -> None:
    file = plan(
        tmp_path,
        """
        objectives: {p95: 25s, errors: 5 %}
        payloads: {template: {instances: [{a: {$uniform: [0, 1]}}]}, count: 20, path: /v1/models/m:predict}
        checks: {schema: {type: object, required: [predictions]}}
        stages:
          - {name: warm up, load: {rate: 20, seconds: 1}, judged: false}
          - {name: steady, load: {rate: 150, seconds: 3}}
          - {name: single, loadgen: {scenario: SingleStream, seconds: 20, queries: 120}}
        """,
    )
    html, data, junit = (tmp_path / name for name in ("r.html", "r.json", "r.xml"))
    with Server(seconds=0.002) as server:
        found = gate("--target", server.url, "--plan", file, "--html", html, "--json-file", data,
                     "--junit", junit)  # fmt: skip
    assert found.exit_code == 0, found.output
    assert "PASSED" in found.output
    result = json.loads(data.read_text())
    assert [s["verdict"] for s in result["stages"]] == ["shown", "passed", "passed"]
    steady = result["stages"][1]
    assert 0.0 <= steady["load"]["send_lag"]["p50"] <= steady["load"]["send_lag"]["p99"]
    assert steady["load"]["latency"]["p50"] >= 0.0019, "the server sleeps two milliseconds"
    assert steady["load"]["statuses"] == {"200": steady["load"]["requests"]}
    assert result["environment"]["cores"] >= 1
    assert "nice" in result["environment"]["scheduling"]
    fields = result["stages"][2]["loadgen"]
    assert fields["effective_scenario"] == "SingleStream"
    assert fields["result_query_count"] == 120
    assert fields["early_stopping_latency_ss"] > 2_000_000
    assert ":::MLLOG" in result["stages"][2]["log"]
    suite = ElementTree.fromstring(junit.read_text())
    assert (suite.get("failures"), suite.get("errors")) == ("0", "0")
    page = html.read_text()
    assert page.count("<svg") >= 3
    assert "http" not in page.replace("http-equiv", "").replace(server.url, "").replace(
        "httptools", ""
    )
    same = gate("compare", data, data)
    # Hundreds of requests show no p99.
    assert (same.exit_code, "at least 1,000 are required" in same.output) == (2, True), same.output


def test_a_failed_gate_prints_the_reasons(tmp_path: Path) -> None:
    file = plan(
        tmp_path,
        """
        objectives: {p95: 50ms, errors: 1 %}
        stages:
          - {name: slow, load: {rate: 100, seconds: 2}, objectives: {p95: 10ms}, stop_on_fail: true}
          - {name: never, load: {rate: 100, seconds: 2}}
        """,
    )
    junit = tmp_path / "r.xml"
    # Far more than the limit, and than the lag of a generator on a busy machine.
    with Server(slots=512, seconds=3.0) as server:
        found = gate("--target", server.url, "--plan", file, "--junit", junit)
    assert found.exit_code == 1, found.output
    assert "p95: took longer than 10 ms: " in found.output
    assert "skipped after slow: never" in found.output
    assert int(ElementTree.fromstring(junit.read_text()).get("failures") or 0) >= 1


def test_a_note_names_stages_with_too_few_requests(tmp_path: Path) -> None:
    text = """
        objectives: {p99: 1s}
        payloads: {path: "/v1/models/m:predict"}
        stages:
          - {name: short, load: {rate: 10, seconds: 2}}
          - {name: warm up, load: {rate: 10, seconds: 2}, judged: false}
          - {name: long, load: {rate: 100, seconds: 60}}
        """
    found = gate("--target", "http://127.0.0.1:1", "--plan", plan(tmp_path, text), "--check")
    assert found.exit_code == 0, found.output
    notes = [line for line in found.output.splitlines() if line.startswith("note:")]
    assert len(notes) == 1
    assert "short: about 20 requests" in notes[0]


def test_too_few_requests_do_not_pass(tmp_path: Path) -> None:
    file = plan(
        tmp_path, "stages: [{name: short, load: {rate: 50, seconds: 1}, objectives: {p99: 1s}}]"
    )
    with Server() as server:
        found = gate("--target", server.url, "--plan", file)
    assert found.exit_code == 2
    assert "are required even if none is slow" in " ".join(found.output.split())


def test_results_survive_the_death_of_the_target(tmp_path: Path) -> None:
    file = plan(
        tmp_path,
        """
        objectives: {errors: 1 %}
        stages:
          - {name: first, load: {rate: 100, seconds: 1}, judged: false}
          - {name: second, load: {rate: 100, seconds: 6}}
          - {name: third, load: {rate: 100, seconds: 1}}
        """,
    )
    data = tmp_path / "r.json"
    # About a hundred requests are of the first stage.
    with Server(last=300) as server:
        found = gate("--target", server.url, "--plan", file, "--json-file", data)
    assert found.exit_code == 2, found.output
    assert "ended early: the target went down after" in found.output
    result = json.loads(data.read_text())
    assert [stage["name"] for stage in result["stages"]] == ["first", "second"]
    assert result["stages"][1]["load"]["requests"] > 20


def test_chaos_under_load_is_measured(tmp_path: Path) -> None:
    pytest.importorskip("chaoslib", reason="the Chaos Toolkit is not installed")
    from tests.support.chaos import experiment

    with Server(slots=256) as server:
        written(tmp_path, "pause.json", json.dumps(experiment(server, 2.5)))
        file = plan(
            tmp_path,
            """
            objectives: {p99: 400ms}
            stages:
              - name: pause
                chaos: {experiment: pause.json, load: {rate: 100}, before: 2s, after: 5s,
                        recovers_within: 1h, lost_at_most: 1 %}
            """,
        )
        data, html = tmp_path / "r.json", tmp_path / "r.html"
        found = gate("--target", server.url, "--plan", file, "--json-file", data, "--html", html)
    assert found.exit_code == 0, found.output
    (stage,) = json.loads(data.read_text())["stages"]
    chaos, ((begin, end, _),) = stage["chaos"], stage["windows"]
    assert chaos["lost"] == 0
    # Requests that are due in the first two of the two and a half seconds wait for too long.
    assert chaos["slow"] > 100
    # The client knows by its limit, before the first late response: none comes during the pause.
    assert 0.0 <= chaos["detected_after"] < end - begin
    assert chaos["recovered_after"] is not None, "the load ended before requests were fast again"
    assert chaos["recovered_after"] > begin - end, "the last slow request was due during the pause"
    assert all(at >= begin for at in chaos["hypothesis_broken_at"])
    assert chaos["hypothesis_broken_at"]
    assert "time to detect " in found.output
    assert ", time to recover " in found.output
    assert 'class="fault"' in html.read_text()


def test_capacity_is_searched_and_other_targets_are_compared(tmp_path: Path) -> None:
    """Two slots of 20 ms serve a hundred per second at most, on any machine."""
    with Server(slots=2, seconds=0.02) as server, Server(slots=2, seconds=0.02) as other:
        assert server.process is not None
        file = plan(
            tmp_path,
            f"""
            objectives: {{p90: 400ms}}
            stages:
              - name: capacity
                capacity: {{start: 40, most: 400, seconds: 3, precision: 0.3, at_least: 30/s,
                           traffic: 500, price_per_hour: 1, pid: {server.process.pid}, servers: 2}}
              - name: other
                compare: {{other: "{other.url}", load: {{rate: 30, seconds: 2}}, repeats: 3,
                          margin: 60 %, percentile: p50}}
            """,
        )
        data, html = tmp_path / "r.json", tmp_path / "r.html"
        options = ("--plan", file, "--json-file", data, "--html", html)
        for _ in range(4):
            found = gate("--target", server.url, *options)
            if found.exit_code != 2:  # without a verdict: the machine was too busy to measure
                break
    assert found.exit_code == 0, found.output
    capacity, comparison = json.loads(data.read_text())["stages"]
    low, high = capacity["capacity"]["low"], capacity["capacity"]["high"]
    assert 30 <= low < 130
    assert low < high <= 1.7 * low, "the search ends when both are near each other"
    assert capacity["replicas"]["count"] >= 7
    assert capacity["per_prediction"]["cpu_seconds"]["source"] == "measured"
    predicted = capacity["prediction"]
    # 20 ms each, two at once; the machine's own time is on top, and lowers the capacity as well.
    assert predicted["service_mean"] > 0.019
    assert low < 2.0 * 2 / predicted["service_mean"]
    assert predicted["points"][0][1] > 0.019
    assert comparison["comparison"]["said"] == "no difference that matters"
    assert "replicas for 500 per second" in html.read_text()


def test_a_cold_start_is_timed(tmp_path: Path) -> None:
    server = Server()
    command = json.dumps(server.command)
    file = plan(
        tmp_path,
        f"stages: [{{name: cold, cold_start: {{command: {command}, within: 2m, repeats: 2}}}}]",
    )
    data = tmp_path / "r.json"
    found = gate("--target", server.url, "--plan", file, "--json-file", data)
    assert found.exit_code == 0, found.output
    (stage,) = json.loads(data.read_text())["stages"]
    seconds = stage["cold_start"]["seconds"]
    assert len(seconds) == 2
    # No Python starts in less; and both starts are parts of the stage, which is timed separately.
    assert min(seconds) > 0.01
    assert sum(seconds) <= stage["seconds"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[1]", "a mapping"),
        ("stages: []", "stages"),
        ("stages: [{name: a}]", "give one of load"),
        ("stages: [{name: a, load: {rate: 1}}, {name: a, load: {rate: 1}}]", "duplicate name"),
        ("stages: [{name: a, load: {shape: ramp, rate: 1}}]", "needs a second rate"),
        ("stages: [{name: a, load: {rate: 1, seconds: 5 parsecs}}]", "not a valid duration"),
        ("stages: [{name: a, load: {rate: 1}, frobnicate: 1}]", "frobnicate"),
        ("stages: [{name: a, load: {rate: 999999}}]", "above the limit"),
        ("stages: [{name: a, load: {rate: 1, seconds: 2h}}]", "above the limit"),
        ("stages: [{name: a, capacity: {start: 1, most: 10}}]", "percentile is required"),
        ("stages: [{name: a, chaos: {experiment: none.json, load: {rate: 1}}}]", "cannot be read"),
        ("objectives: {preset: edge}\nstages: [{name: a, load: {rate: 1}}]", "needs joules"),
        ("objectives: {preset: fast}\nstages: [{name: a, load: {rate: 1}}]", "is not one of"),
        ("payloads: {bodies: none.jsonl}\nstages: [{name: a, load: {rate: 1}}]", "cannot be read"),
        (
            "payloads: {template: {$dice: 6}}\nstages: [{name: a, load: {rate: 1}}]",
            "unknown generator $dice",
        ),
        ("stages: [{name: a, load: {shape: trace}}]", "needs a file"),
        ("stages: [{name: a, load: {shape: trace, trace: none.log}}]", "cannot be read"),
        ("stages: [{name: a, load: {shape: trace, trace: .}}]", "records export"),
        ("a: [", "not valid YAML"),
        (
            "payloads: {bodies: a.jsonl, template: {a: 1}}\nstages: [{name: a, load: {rate: 1}}]",
            "give one of bodies, rows, template, records, messages and prompts",
        ),
        (
            "payloads: {method: GET, template: {a: 1}}\nstages: [{name: a, load: {rate: 1}}]",
            "GET has no body: give a path alone",
        ),
    ],
)
def test_errors_of_plans_name_the_key(tmp_path: Path, text: str, said: str) -> None:
    found = gate("--target", "http://127.0.0.1:9", "--plan", plan(tmp_path, text))
    assert (found.exit_code, said in found.output) == (2, True), found.output


def test_public_and_unreachable_targets_are_refused(tmp_path: Path) -> None:
    text = "objectives: {errors: 0}\nstages: [{name: a, load: {rate: 1, seconds: 1}}]"
    file = plan(tmp_path, text)
    public = gate("--target", "http://93.184.216.34", "--plan", file)
    assert (public.exit_code, "--i-own-this-target" in public.output) == (2, True)
    away = gate("--target", "http://127.0.0.1:1", "--plan", file)
    assert (away.exit_code, "cannot be reached" in away.output) == (2, True)
    assert gate("--plan", file).exit_code == 2
    assert gate("--target", "http://127.0.0.1:1").exit_code == 2
    checked = gate("--target", "http://127.0.0.1:1", "--plan", file, "--check")
    assert (checked.exit_code, "1 stage, 1 payload" in checked.output) == (0, True)
    allowed(address_of("http://10.1.2.3:80"), False)
    for wrong in ("ftp://127.0.0.1", "http://127.0.0.1:99999", "http://a@127.0.0.1", "http://"):
        with pytest.raises(TargetError):
            address_of(wrong)
    with pytest.raises(TargetError):
        allowed(address_of("http://no-such-host.invalid"), True)


def test_an_unwritable_report_is_an_error(tmp_path: Path) -> None:
    file = plan(tmp_path, "stages: [{name: a, load: {rate: 50, seconds: 1}, judged: false}]")
    with Server() as server:
        found = gate(
            "--target", server.url, "--plan", file, "--html", "/dev/full/r.html", "--no-verdict"
        )
    assert (found.exit_code, "cannot be written" in found.output) == (2, True)


def test_a_real_full_disk_leaves_the_result_on_standard_output(tmp_path: Path) -> None:
    file = plan(tmp_path, "stages: [{name: a, load: {rate: 50, seconds: 1}, judged: false}]")
    full = tmp_path / "full"
    full.mkdir()
    with Server() as server:
        words = [sys.executable, "-m", "understudy", "gate", "--target", server.url, "--plan", str(file),
                 "--no-verdict", "--json-file", str(full / "r.json"), "--html", str(full / "r.html")]  # fmt: skip
        script = 'mount -t tmpfs -o size=64k none "$0" && dd if=/dev/zero of="$0"/x 2>/dev/null; exec "$@"'
        command = ["unshare", "--map-root-user", "--mount", "sh", "-c", script, str(full), *words]
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            timeout=patient(120),
            cwd=Path(__file__).parents[2],
        )
    if "unshare" in done.stderr or "mount:" in done.stderr:
        pytest.skip(f"NOT TESTED: no file system of our own here: {done.stderr[-200:]}")
    assert done.returncode == 2, done.stderr
    assert done.stderr.count("cannot be written: No space left on device") == 2
    assert json.loads(done.stdout)["stages"][0]["load"]["requests"] > 20


def test_results_survive_the_kill_of_the_gate(tmp_path: Path) -> None:
    file = plan(
        tmp_path,
        """
        stages:
          - {name: first, load: {rate: 50, seconds: 1}, judged: false}
          - {name: second, load: {rate: 50, seconds: 60}, objectives: {errors: 0}}
        """,
    )
    data = tmp_path / "r.json"
    with Server() as server:
        words = ["gate", "--target", server.url, "--plan", str(file), "--json-file", str(data)]
        with subprocess.Popen(
            [sys.executable, "-m", "understudy", *words], stderr=subprocess.DEVNULL,
            cwd=Path(__file__).parents[2],
        ) as running:  # fmt: skip
            eventually(data.exists)
            running.kill()
    assert json.loads(data.read_text())["stages"][0]["load"]["requests"] > 20


def test_limits_hold_for_closed_loops_and_for_the_whole_gate(tmp_path: Path) -> None:
    file = plan(
        tmp_path,
        """
        objectives: {errors: 5 %}
        limits: {rate: 40/s, seconds: 8s}
        stages:
          - {name: loop, loadgen: {scenario: SingleStream, seconds: 2, queries: 60}}
          - {name: long, load: {rate: 40, seconds: 7}}
          - {name: never, load: {rate: 40, seconds: 3}}
        """,
    )
    data = tmp_path / "r.json"
    with Server() as server:
        found = gate("--target", server.url, "--plan", file, "--json-file", data)
    assert (found.exit_code, "limits.seconds" in found.output) == (2, True), found.output
    loop, *_ = json.loads(data.read_text())["stages"]
    assert loop["load"]["rate"] < 60.0, "an idle server would answer thousands"


def test_scheduling_is_described() -> None:
    core = min(os.sched_getaffinity(0))
    command = ["nice", "-n", "3", "taskset", "-c", str(core), "sleep", "60"]
    with subprocess.Popen(command) as process:
        nice = os.getpriority(os.PRIO_PROCESS, 0) + 3
        policy = scheduling().partition(",")[0]
        wanted = f"{policy}, nice {min(nice, 19)}, cores {core}"
        eventually(lambda: scheduling(process.pid) == wanted)
        process.kill()
    assert "not known" in scheduling(process.pid)


def test_loadgen_s_rules() -> None:
    due = np.arange(0.0, 20.0, 0.01)
    ok = np.ones(len(due), np.bool_)
    latency = np.full(len(due), 0.01)
    latency[:5] = 0.2
    outcome = outcome_of(due, latency, ok)
    outcome.seconds = 20.0
    server = Settings("Server", 20.0, 100.0, 0.1)
    assert evaluate_loadgen(server, outcome).valid, "2,000 queries with 5 over are enough"
    tight = outcome_of(due[:400], latency[:400], ok[:400])
    assert not evaluate_loadgen(server, tight).valid
    pairs = np.repeat(np.arange(0.0, 7.0, 0.01), 8)
    many = outcome_of(pairs, np.tile(np.linspace(0.01, 0.08, 8), 700), np.ones(5600, np.bool_))
    found = evaluate_loadgen(Settings("MultiStream", 7.0), many)
    assert found.fields["result_query_count"] == 700
    assert found.fields["result_min_latency_ns"] == pytest.approx(8e7, abs=2)
    assert found.valid
    offline = evaluate_loadgen(Settings("Offline", 7.0), many)
    assert "24,576 are " in offline.why[0]


_LOADGEN = """
import sys, mlperf_loadgen as lg
s = lg.TestSettings()
s.scenario, s.mode = lg.TestScenario.SingleStream, lg.TestMode.PerformanceOnly
s.min_duration_ms = s.max_duration_ms = 0
s.min_query_count = s.max_query_count = int(sys.argv[1])
def issue(q): lg.QuerySamplesComplete([lg.QuerySampleResponse(x.id, 0, 0) for x in q])
sut = lg.ConstructSUT(issue, lambda: None)
qsl = lg.ConstructQSL(100, 100, lambda x: None, lambda x: None)
out = lg.LogOutputSettings()
out.outdir, out.copy_summary_to_stdout = ".", False
log = lg.LogSettings()
log.log_output, log.enable_trace = out, False
lg.StartTestWithLogSettings(sut, qsl, s, log)
lg.DestroyQSL(qsl)
lg.DestroySUT(sut)
"""


@pytest.mark.parametrize("count", [40, 64, 200, 700, 2500])
def test_loadgen_itself_discards_as_many(tmp_path: Path, count: int) -> None:
    pytest.importorskip("mlperf_loadgen", reason="mlcommons-loadgen has no wheel for this machine")
    command = [sys.executable, "-c", _LOADGEN, str(count)]
    subprocess.run(command, cwd=tmp_path, check=True, timeout=patient(60))
    summary = (tmp_path / "mlperf_log_summary.txt").read_text()
    allowed = discards(0.9, count)
    if allowed < 1:
        assert f"at least {queries_needed(0.9, 1)} queries for early stopping" in summary
        return
    assert f"Would discard {allowed - 1} highest latency queries" in summary
    # The fields of our log are LoadGen's own.
    detail = (tmp_path / "mlperf_log_detail.txt").read_text()
    outcome = outcome_of(np.arange(float(count)), np.full(count, 0.001), np.ones(count, np.bool_))
    for field in evaluate_loadgen(Settings("SingleStream", 1.0), outcome).fields:
        if field == "result_invalid_reason":
            continue  # LoadGen has it for what is not valid
        assert f'"key": "{field}"' in detail, field


def test_shapes_have_the_expected_number_of_requests() -> None:
    assert shapes.spike(10, 100, 20, 4).count == pytest.approx(16 * 10 + 400)
    assert shapes.bursts(10, 50, 30, 10, 2).count == pytest.approx(24 * 10 + 6 * 50)
    assert shapes.diurnal(10, 30, 48).count == pytest.approx(48 * 20, rel=0.01)
    growing = shapes.growth(10, 80, 30)
    assert growing.rate(15.0) == pytest.approx(80 / 8**0.5, rel=0.01)
    assert shapes.steps(10, 5, 3, 2).rate(4.5) == 20
    assert shapes.ramp(0, 100, 10).moments(np.array([0.0, 125.0])) == pytest.approx([0.0, 5.0])
    for wrong in ((1, 2, 3, 4), (1, 2, 4, 4)):
        with pytest.raises(PlanError):
            shapes.spike(*wrong)
    with pytest.raises(PlanError):
        shapes.growth(0, 1, 1)


def test_payloads_from_everywhere(tmp_path: Path) -> None:
    written(tmp_path, "rows.csv", "a,b,c\n1,x,true\n2.5,,false\n3,y,true\n")
    written(
        tmp_path, "bodies.jsonl", '{"body": {"a": 1}, "path": "/p", "expect": {"/x": 1}}\n[1]\n'
    )
    record = {
        "time": 5.0, "role": "primary", "target": "POST /v2/models/m/infer HTTP/1.1",
        "request": '{"inputs": []}', "request_headers": "Content-Type: application/json",
    }  # fmt: skip
    lines = [{"names": {}}, {"record": record}, {"record": {**record, "role": "mirror"}}]
    written(tmp_path, "records.jsonl", "\n".join(map(json.dumps, lines)))
    written(
        tmp_path,
        "access.log",
        '1.2.3.4 - - [10/Oct/2000:13:55:36 -0700] "GET /a HTTP/1.0" 200 2326\n' * 3
        + '1.2.3.4 - - [10/Oct/2000:13:55:38 -0700] "GET /a HTTP/1.0" 200 2326 "-" "x"\n',
    )

    def made(text: str) -> list[Any]:
        loaded = load_plan(
            plan(tmp_path, f"payloads: {text}\nstages: [{{name: a, load: {{rate: 1}}}}]")
        )
        return payloads_of(loaded.payloads, 7)

    for form, part in (
        ("open-inference-v2", b'"datatype": "BYTES"'),
        ("kserve-v1", b'"instances": [{"a": 1, "b": "x", "c": true}, {"a": 2.5, "b": null'),
        ("mlflow", b'"dataframe_split": {"columns": ["a", "b", "c"]'),
        ("json", b'[{"a": 1'),
    ):
        found = made(f"{{rows: rows.csv, format: {form}, rows_per_request: 2}}")
        assert len(found) == 1
        assert part in found[0].body, form
    first, second = made("{bodies: bodies.jsonl, path: /q}")
    assert (first.path, second.path, first.expect) == ("/p", "/q", {"/x": 1})
    (recorded,) = made("{records: records.jsonl}")
    assert (recorded.path, recorded.method, recorded.at) == ("/v2/models/m/infer", "POST", 5.0)
    drawn = made("{template: {a: {$int: [1, 9]}, n: {$number: 1}}, count: 3}")
    assert [json.loads(p.body)["n"] for p in drawn] == [1, 2, 3]
    assert [p.body for p in drawn] == [
        p.body for p in made("{template: {a: {$int: [1, 9]}, n: {$number: 1}}, count: 3}")
    ]
    traced = load_plan(
        plan(tmp_path, "stages: [{name: a, load: {shape: trace, trace: access.log, speed: 2}}]")
    )
    stage = traced.stages[0]
    moments = load_of(stage.settings, traced.engine, traced.limits).moments
    assert moments == pytest.approx([0.0, 1 / 6, 1 / 3, 1.0])
    assert b"host: h\r\n" in first.to_bytes("h")
    with pytest.raises(PlanError, match="header"):
        payloads_of(
            load_plan(
                plan(
                    tmp_path,
                    'payloads: {path: /, headers: {"a": "x\\r\\nb: y"}}\nstages: [{name: a, load: {rate: 1}}]',
                )
            ).payloads,
            1,
        )[0].to_bytes("h")
    for name, text in (("rows.csv", "a,b\n1\n"), ("rows.csv", ""), ("bodies.jsonl", "{\n")):
        written(tmp_path, name, text)
        kind = "rows" if name.endswith("csv") else "bodies"
        with pytest.raises(PlanError, match=name):
            made(f"{{{kind}: {name}}}")


def test_pointers_and_tolerances() -> None:
    document = {"a": [{"b/c": 1.0}, 2]}
    assert at(document, "/a/0/b~1c") == 1.0
    assert at(document, "") is document
    assert alike(at(document, "/a/9"), 1, 0.1) is False
    assert alike([1.0, {"x": 2}], [1.05, {"x": 2}], 0.1)
    assert not alike(True, 1, 0.1)
    assert not alike({"x": 1}, {"y": 1}, 0.1)


def test_steps_end_at_the_first_failure(tmp_path: Path) -> None:
    """One slot of 20 ms: fifty per second."""
    file = plan(
        tmp_path,
        """
        objectives: {p50: 1s}
        engine: {timeout: 3s}
        stages:
          - name: stairs
            load: {shape: until-break, rate: 5, to: 200, steps: 4, step_seconds: 4, at_least: 5/s}
        """,
    )
    data = tmp_path / "r.json"
    for _ in range(3):  # a generator that the machine kept from its work says so, and nothing else
        with Server(slots=1, seconds=0.02) as server:
            found = gate("--target", server.url, "--plan", file, "--json-file", data)
        if found.exit_code != 2 or "the load generator was late" not in found.output:
            break
    assert found.exit_code == 0, found.output
    (stage,) = json.loads(data.read_text())["stages"]
    said = stage["until_break"]
    assert said["holds"] == 5.0
    assert said["breaks"] in (70.0, 135.0)
    assert len(said["steps"]) < 4, "the last step is not needed"


def test_an_undecided_step_has_not_failed(tmp_path: Path) -> None:
    """Ten requests show no p99; that two hundred per second are too much does not say that five
    are."""
    text = """
        objectives: {p99: 1s}
        engine: {timeout: 3s}
        stages:
          - name: stairs
            load: {shape: until-break, rate: 5, to: 200, steps: 2, step_seconds: 2, at_least: 5/s}
        """
    with Server(slots=1, seconds=0.05) as server:
        found = gate("--target", server.url, "--plan", plan(tmp_path, text))
    assert (found.exit_code, "5/s: " in found.output) == (2, True), found.output
    assert "are required even if none is slow" in " ".join(found.output.split())


def test_energy_and_memory_name_their_source(tmp_path: Path) -> None:
    def counter(name: str, value: int) -> None:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        (folder / "energy_uj").write_text(f"{value}\n")
        (folder / "max_energy_range_uj").write_text("1000000000\n")

    assert Meter(tmp_path / "none").joules() is None or Meter(tmp_path / "none").names == "NVML"
    counter("intel-rapl:0", 999_000_000)
    counter("intel-rapl:0:0", 5)  # a part of the package
    meter = Meter(tmp_path)
    counter("intel-rapl:0", 4_000_000)  # the counter has wrapped around
    assert meter.joules() == pytest.approx(5.0)
    counter("intel-rapl:0", 6_000_000)
    assert meter.joules() == pytest.approx(7.0)
    measured = energy(7.0, "RAPL", 70.0, None, None)
    assert (measured.value, measured.source) == (pytest.approx(0.1), "measured")
    assert energy(None, "", 0.0, 100.0, 5.0).source == "computed"
    assert energy(None, "", 0.0, None, None).source == "absent"
    held = memory(os.getpid(), tmp_path)
    assert held.source == "measured"
    assert held.value > 10 * 2**20
    place = Path("/proc/self/cgroup").read_text().rpartition("::")[2].strip().lstrip("/")
    if place:
        (tmp_path / place).mkdir(parents=True)
        (tmp_path / place / "memory.peak").write_text("12345\n")
        assert memory(os.getpid(), tmp_path).value == 12345.0
    assert memory(None).source == "absent"


@pytest.mark.parametrize(
    ("form", "protocol"),
    [
        ("open-inference-v2", "open-inference-v2"),
        ("open-inference-v2-matrix", "open-inference-v2"),
        ("kserve-v1", "kserve-v1"),
        ("kserve-v1-columns", "kserve-v1"),
        ("mlflow", "mlflow"),
        ("mlflow-records", "mlflow"),
        ("mlflow-instances", "mlflow"),
        ("mlflow-inputs", "mlflow"),
    ],
)
def test_every_format_is_read_by_the_service_s_own_codecs(form: str, protocol: str) -> None:
    rows = [{"a": 1.5, "b": 2.0}, {"a": -1.0, "b": 0.25}]
    body = as_body(in_format(form, rows))
    spec = ModelSpec("m", protocol=protocol, features=("a", "b"))
    kind = b"content-type: application/json"
    found = decode_exchange(spec, "/x", kind, body, 200, kind, b"{}").features
    assert not isinstance(found, Undecodable), found
    assert (found.rows, found.column("a"), found.column("b")) == (2, [1.5, -1.0], [2.0, 0.25])


def test_only_names_of_files_are_relative_to_the_plan(tmp_path: Path) -> None:
    """A header or a column may be called as a key that names a file."""
    found = plan_of(
        {
            "payloads": {"rows": "r.csv", "headers": {"trace": "t", "rows": "r"},
                         "datatypes": {"rows": "FP32"}},
            "checks": {"schema": "s.json"},
            "engine": {"ca_file": "ca.pem"},
            "stages": [{"name": "a", "load": {"shape": "trace", "trace": "log"}},
                       {"name": "b", "load": {"rate": 1}}],
        },
        tmp_path, "x",
    )  # fmt: skip
    assert found.payloads.rows == tmp_path / "r.csv"
    assert found.payloads.headers == {"trace": "t", "rows": "r"}
    assert found.payloads.datatypes == {"rows": "FP32"}
    assert found.checks.schema_ == tmp_path / "s.json"
    assert found.engine.ca_file == tmp_path / "ca.pem"
    assert found.stages[0].settings.trace == tmp_path / "log"
