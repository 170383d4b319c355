"""``understudy init``, ``doctor`` and ``try``, from the command line against real servers.

The model servers are processes: the demo's for V2, V1 and OpenAI, small ones that answer as other
products document it, and MLServer itself.
"""

from __future__ import annotations

import json
import os
import pty
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from click.testing import CliRunner, Result

from tests.support.kafka_cluster import Cluster
from tests.support.patience import eventually, patient
from tests.support.ports import free_port
from tests.support.prometheus import NATIVE, Prometheus
from tests.support.served import kserve, mlflow, mlserver
from tests.support.service import REAL, ROOT, Service
from understudy.common.processes import Process
from understudy.demo.flights import LateModel, read
from understudy.monitor.cli.main import main
from understudy.monitor.config.load import load

pytestmark = pytest.mark.timeout(600)


@contextmanager
def demo_server(folder: Path, module: str, *words: str, path: str) -> Iterator[str]:
    port = free_port()
    command = [sys.executable, "-m", f"understudy.demo.{module}", str(port), *words]
    process = Process(module, command, folder / f"{module}-{port}.log", cwd=ROOT)
    url = f"http://127.0.0.1:{port}"
    try:
        process.wait_until(
            lambda: _status(url + path) == 200,
            patient(60),
        )
        yield url
    finally:
        process.stop(5.0)


def _status(url: str) -> int:
    try:
        return httpx.get(url, timeout=patient(5)).status_code
    except httpx.HTTPError as error:
        raise OSError(str(error)) from error


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A model server that speaks V2 and V1."""
    folder = tmp_path_factory.mktemp("flights")
    model = folder / "model.json"
    model.write_text(json.dumps(LateModel.learn(read().learned, hours=False).document))
    with demo_server(folder, "model_server", str(model), path="/v2/health/ready") as url:
        yield url


@contextmanager
def documented(answers: Mapping[str, Any], date: str | None = None) -> Iterator[str]:
    """A server that answers GET (and POST) of these paths, and 404 elsewhere."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            found = answers.get(f"{self.command} {self.path}")
            text = found if isinstance(found, str) else json.dumps(found)
            body = b"" if found is None else text.encode()
            self.send_response_only(404 if found is None else 200)
            self.send_header("Date", date or formatdate(usegmt=True))
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_POST = answer  # noqa: N815

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def written(folder: Path, *words: str | Path) -> dict[str, Any]:
    """The file that init writes; it passes the check of the configuration."""
    file = folder / "understudy.yaml"
    done = run("init", *words, "-o", file, "--force")
    assert done.exit_code == 0, done.output
    checked = run("config", "check", file)
    assert checked.exit_code == 0, checked.output
    assert "warning" not in checked.output
    found: dict[str, Any] = yaml.safe_load(file.read_text())
    return found


# init -----------------------------------------------------------------------------------------


def test_init_asks_the_server_and_writes_a_valid_file(flights: str, tmp_path: Path) -> None:
    found = written(tmp_path, flights)
    assert [model["name"] for model in found["models"]] == ["delays"]
    assert found["champion"] == {"url": flights}
    assert "challengers" not in found
    text = (tmp_path / "understudy.yaml").read_text()
    assert text.count("#") > 8
    assert max(map(len, text.splitlines())) <= 120


@pytest.mark.parametrize("mode", ["shadow", "split", "canary"])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_init_writes_challengers_and_experiments(
    flights: str, tmp_path: Path, mode: str, count: int
) -> None:
    given = [f"--challenger=c{n}=127.0.0.1:{8000 + n}" for n in range(count)]
    found = written(tmp_path, flights, "--mode", mode, *given, "--listen", "127.0.0.1:7001")
    assert [one["url"] for one in found["challengers"]] == [
        f"http://127.0.0.1:{8000 + n}" for n in range(count)
    ]
    assert [one["mode"] for one in found["experiments"]] == [mode] * count
    assert found["listen"] == "127.0.0.1:7001"


def test_init_names_challengers_that_have_no_name(flights: str, tmp_path: Path) -> None:
    found = written(tmp_path, flights, "--challenger", "http://a:1/x=y", "--challenger", "b:2")
    assert [(one["name"], one["url"]) for one in found["challengers"]] == [
        ("candidate", "http://a:1/x=y"),
        ("candidate-2", "http://b:2"),
    ]


TRITON = {
    "GET /v2": {"name": "triton", "version": "2.50.0", "extensions": ["model_repository"]},
    "GET /v2/health/ready": "",
    "POST /v2/repository/index": [
        {"name": "a b/c", "version": "3", "state": "READY"},
        {"name": "a-b-c", "version": "1", "state": "READY"},
        {"name": "123", "version": "1", "state": "READY"},
    ],
}
VLLM = {"GET /v1/models": {"object": "list", "data": [{"id": "org/chat-7b", "owned_by": "vllm"}]}}
KSERVE_V1 = {"GET /v1/models": {"models": ["sklearn-iris"]}}
TF_SERVING = {
    "GET /v1/models/delays": {"model_version_status": [{"version": "1", "state": "AVAILABLE"}]}
}
MLFLOW = {"GET /ping": "\n", "GET /version": "2.20.1"}
TORCHSERVE = {"GET /ping": {"status": "Healthy"}}


@pytest.mark.parametrize(
    ("answers", "words", "product", "protocols", "models"),
    [
        (TRITON, (), "Triton 2.50.0", ["open-inference-v2"], ["a-b-c", "a-b-c-2", "123"]),
        (VLLM, (), "vLLM", ["openai"], ["org/chat-7b"]),
        (KSERVE_V1, (), "", ["kserve-v1"], ["sklearn-iris"]),
        (TF_SERVING, ("--model", "delays"), "TensorFlow Serving", ["kserve-v1"], ["delays"]),
        (MLFLOW, (), "MLflow 2.20.1", ["mlflow"], ["model"]),
        (TORCHSERVE, ("--model", "cat"), "TorchServe", ["torchserve"], ["cat"]),
    ],
    ids=["triton", "vllm", "kserve-v1", "tf-serving", "mlflow", "torchserve"],
)
def test_init_recognises_a_server(
    answers: Mapping[str, Any],
    words: tuple[str, ...],
    product: str,
    protocols: list[str],
    models: list[str],
    tmp_path: Path,
) -> None:
    with documented(answers) as url:
        done = run("init", url, *words, "-o", tmp_path / "a.yaml", "--json")
        assert done.exit_code == 0, done.output
        said = json.loads(done.output)
        assert (said["product"], said["protocols"]) == (product, protocols)
        found = written(tmp_path, url, *words, "--challenger", "127.0.0.1:1", "--mode", "split")
    assert [model["name"] for model in found["models"]] == models


def test_paths_keep_the_name_that_the_server_knows(tmp_path: Path) -> None:
    with documented(TRITON) as url:
        found = written(tmp_path, url)
    assert "/v2/models/a b/c/infer" not in json.dumps(found)
    assert found["models"][0]["paths"][0] == "/v2/models/a%20b%2Fc/infer"


def test_init_says_what_to_do_when_it_cannot_know(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    done = run("init", f"127.0.0.1:{free_port()}", "-o", file)
    assert done.exit_code == 1
    assert "start the model server" in done.output
    assert "--protocol and --model" in done.output
    with documented({}) as url:
        done = run("init", url, "-o", file)
        assert done.exit_code == 1
        assert "no protocol that is known" in done.output
        assert "GET /v2: 404" in done.output
    with documented(TORCHSERVE) as url:
        done = run("init", url, "-o", file)
        assert done.exit_code == 1
        assert "add --model NAME" in done.output
    for words in (("--protocol", "mlflow"), ()):
        done = run("init", *(("http://a:1",) if words else ()), *words, "-o", file)
        assert done.exit_code == 2
    done = run("init", "http://a:99999999", "-o", file)
    assert done.exit_code == 2
    assert not file.exists()


def test_init_can_be_told_instead(tmp_path: Path) -> None:
    words = ("http://no.example:1", "--protocol", "openai", "--model", "chat")
    found = written(tmp_path, *words)
    assert found["models"][0] == {
        "name": "chat",
        "paths": ["/v1/chat/completions", "/v1/completions", "/v1/embeddings"],
    }


def test_init_overwrites_nothing_without_force(flights: str, tmp_path: Path) -> None:
    file = tmp_path / "understudy.yaml"
    file.write_text("mine")
    done = run("init", flights, "-o", file)
    assert done.exit_code == 2
    assert "--force" in done.output
    assert file.read_text() == "mine"
    assert run("init", flights, "-o", file, "--force").exit_code == 0
    assert file.read_text() != "mine"
    printed = run("init", flights, "-o", "-")
    assert yaml.safe_load(printed.output)["version"] == 1


def test_init_rejects_what_would_not_be_valid(flights: str, tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    done = run("init", flights, "--listen", "nowhere", "-o", file)
    assert done.exit_code == 2
    assert "listen" in done.output
    assert not file.exists()


def test_init_asks_on_a_terminal(flights: str, tmp_path: Path) -> None:
    master, slave = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "understudy", "init", "-o", tmp_path / "a.yaml"],
        stdin=slave,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=ROOT,
        text=True,
    )
    os.close(slave)
    os.write(master, f"{flights}\nhttp://127.0.0.1:8082\ncanary\n".encode())
    out, _ = process.communicate(timeout=patient(60))
    os.close(master)
    assert process.returncode == 0, out
    config = load(tmp_path / "a.yaml")
    assert config.champion.url == flights
    assert config.experiments[0].mode == "canary"


# doctor ---------------------------------------------------------------------------------------


def doctor(*words: str | Path) -> tuple[int, dict[str, dict[str, Any]]]:
    done = run("doctor", *words, "--json")
    found = json.loads(done.output)
    assert found["healthy"] == (done.exit_code == 0)
    for check in found["checks"]:
        assert check["status"] != "fault" or check["fix"], check
    return done.exit_code, {check["subject"]: check for check in found["checks"]}


def config_for(folder: Path, url: str, **changes: Any) -> Path:
    document = {
        "version": 1,
        "listen": f"127.0.0.1:{free_port()}",
        "control": {"listen": f"127.0.0.1:{free_port()}"},
        "workers": 1,
        "state_dir": "state",
        "models": [{"name": "delays"}],
        "champion": {"url": url},
        **changes,
    }
    file = folder / "understudy.yaml"
    file.write_text(json.dumps(document))
    return file


def test_doctor_finds_nothing_wrong(flights: str, tmp_path: Path) -> None:
    code, checks = doctor(config_for(tmp_path, flights))
    assert code == 0, checks
    assert {check["status"] for check in checks.values()} <= {"ok", "warning"}
    sample = checks["model delays of champion"]
    assert sample["status"] == "ok"
    assert "8 features, predictions p_late" in sample["text"]
    assert not (tmp_path / "state").exists(), "it changes nothing"
    shown = run("doctor", tmp_path / "understudy.yaml")
    assert "0 faults" in shown.output


def test_doctor_names_faults_with_their_fix(flights: str, tmp_path: Path) -> None:
    state = tmp_path / "state"
    state.mkdir()
    state.chmod(0o777)
    import socket

    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        file = config_for(
            tmp_path,
            flights,
            listen=f"127.0.0.1:{port}",
            models=[{"name": "prices"}, {"name": "delays", "protocol": "mlflow"}],
            challengers=[{"name": "gone", "url": f"http://127.0.0.1:{free_port()}"}],
        )
        code, checks = doctor(file)
    assert code == 1
    assert f"process {os.getpid()} " in checks["port of listen"]["text"]
    assert "Connection refused" in checks["challenger gone"]["text"]
    assert "has no model 'prices'" in checks["model prices of champion"]["text"]
    assert "delays" in checks["model prices of champion"]["text"]
    assert "chmod o-w" in checks["disk of state_dir"]["fix"]


def test_doctor_reads_a_given_sample(tmp_path: Path) -> None:
    body = tmp_path / "sample.json"
    body.write_text('{"instances": [{"a": 1}]}')
    good = {**KSERVE_V1, "POST /v1/models/sklearn-iris:predict": {"predictions": [1]}}
    models = [{"name": "sklearn-iris", "protocol": "kserve-v1"}]
    with documented(good) as url:
        file = config_for(tmp_path, url, models=models)
        code, checks = doctor(file)
        assert code == 0
        assert checks["model sklearn-iris of champion"]["status"] == "skipped"
        code, checks = doctor(file, "--request", body)
        assert code == 0
        assert "read as kserve-v1" in checks["model sklearn-iris of champion"]["text"]
    bad = {**KSERVE_V1, "POST /v1/models/sklearn-iris:predict": "certainly"}
    with documented(bad) as url:
        code, checks = doctor(config_for(tmp_path, url, models=models), "--request", body)
        assert code == 1
        assert "not_json" in checks["model sklearn-iris of champion"]["text"]
        code, checks = doctor(
            config_for(tmp_path, url, models=[{**models[0], "read": False}]), "--request", body
        )
        assert code == 0


def test_doctor_asks_for_the_path_that_the_server_gets(flights: str, tmp_path: Path) -> None:
    rewrites = {"/v2/models/prices/": "/v2/models/delays/"}
    champion = {"url": flights, "rewrite_path": rewrites}
    code, checks = doctor(
        config_for(tmp_path, flights, champion=champion, models=[{"name": "prices"}])
    )
    assert code == 0, checks
    assert "8 features" in checks["model prices of champion"]["text"]


def test_doctor_asks_for_models_that_are_not_listed(flights: str, tmp_path: Path) -> None:
    code, checks = doctor(config_for(tmp_path, flights, models=[{"match": "*"}]))
    assert code == 0, checks
    assert "8 features" in checks["model delays of champion"]["text"]
    code, checks = doctor(
        config_for(tmp_path, flights, models=[{"name": "delays"}, {"match": "*"}])
    )
    assert code == 0, checks
    assert "names come from requests" in checks["other models of champion"]["text"]


def test_validation_straight_to_the_servers_asks_for_it_as_well(
    flights: str, tmp_path: Path
) -> None:
    row = {name: value for name, value in read().sent[0].items() if name != "late"}
    inputs = [
        {
            "name": name,
            "shape": [1],
            "datatype": "BYTES" if isinstance(value, str) else "FP64",
            "data": [value],
        }
        for name, value in row.items()
    ]
    case = {"name": "a flight", "kind": "golden", "request": {"inputs": inputs}}
    cases = tmp_path / "cases.jsonl"
    cases.write_text(json.dumps({**case, "expect": {"p_late": 0.5}, "tolerance": 0.5}))
    rewrites = {"/v2/models/prices/": "/v2/models/delays/"}
    for champion, code in (({"url": flights, "rewrite_path": rewrites}, 0), ({"url": flights}, 1)):
        file = config_for(
            tmp_path,
            flights,
            champion=champion,
            models=[{"name": "prices"}],
            validation={"cases": str(cases), "direct": True},
        )
        assert run("validate", "--config", file).exit_code == code
    challenger = {"name": "c", "url": flights}
    for rewrite, code in (({"model": {"prices": "delays"}}, 0), ({"model": "none"}, 1)):
        file = config_for(
            tmp_path,
            flights,
            champion={"url": flights, "rewrite_path": rewrites},
            challengers=[{**challenger, "rewrite": rewrite}],
            models=[{"match": "*"}],
            validation={"cases": str(cases), "direct": True, "model": "prices"},
        )
        assert run("validate", "--config", file).exit_code == code


def test_doctor_compares_clocks(tmp_path: Path) -> None:
    models = [{"name": "x", "read": False}]
    with documented({}, date=formatdate(time.time() - 3600, usegmt=True)) as url:
        _, checks = doctor(config_for(tmp_path, url, models=models))
    assert checks["clock of champion"]["status"] == "warning"
    assert "60 min behind" in checks["clock of champion"]["text"]


def test_doctor_exits_with_2_for_an_invalid_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text("version: 1\nlisten: x\n")
    done = run("doctor", file)
    assert done.exit_code == 2
    assert "listen" in done.output
    assert run("doctor", tmp_path / "missing.yaml").exit_code == 2


def test_doctor_names_a_missing_secret(
    flights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    champion = {"url": flights, "headers": {"authorization": {"env": "MODEL_AUTH"}}}
    monkeypatch.delenv("MODEL_AUTH", raising=False)
    code, checks = doctor(config_for(tmp_path, flights, champion=champion))
    assert code == 1
    assert "MODEL_AUTH is not set" in checks["champion.headers.authorization"]["text"]


def test_doctor_beside_the_running_service_and_prometheus(flights: str, tmp_path: Path) -> None:
    control = free_port()
    service = Service(
        tmp_path,
        REAL,
        listen=f"127.0.0.1:{free_port()}",
        control={"listen": f"127.0.0.1:{control}"},
        champion={"url": flights},
        models=[{"name": "delays"}],
    )
    with service.start():
        code, checks = doctor(service.file)
        assert code == 0, checks
        assert "running service" in checks["port of listen"]["text"]
        prometheus = Prometheus(tmp_path, control, NATIVE, "prometheus-2")
        try:

            def scraped() -> bool:
                code, checks = doctor(service.file, "--prometheus", prometheus.url)
                return code == 0 and "it scrapes" in checks["Prometheus"]["text"]

            eventually(scraped)
            other = config_for(tmp_path, flights)
            code, checks = doctor(other, "--prometheus", prometheus.url)
            assert code == 1
            assert "scrape_configs" in checks["Prometheus"]["fix"]
        finally:
            prometheus.process.kill()
            prometheus.process.wait()
    code, checks = doctor(config_for(tmp_path, flights), "--prometheus", flights)
    assert "does not answer as Prometheus" in checks["Prometheus"]["text"]


def test_doctor_asks_kafka(flights: str, tmp_path: Path, kafka_cluster: Cluster) -> None:
    kafka = {"bootstrap": kafka_cluster.bootstrap.split(","), "prefix": "doctor", "replication": 1}
    file = config_for(tmp_path, flights, evaluation={"mode": "kafka"}, kafka=kafka)
    code, checks = doctor(file)
    assert code == 1
    assert checks["Kafka"]["status"] == "ok"
    assert "doctor.records" in checks["topics"]["text"]
    assert checks["topics"]["fix"] == f"run `understudy kafka init {file}`"
    assert run("kafka", "init", file).exit_code == 0
    code, checks = doctor(file)
    assert code == 0, checks
    away = {"bootstrap": [f"127.0.0.1:{free_port()}"], "timeout": "2s"}
    code, checks = doctor(config_for(tmp_path, flights, kafka=away))
    assert code == 1
    assert "cannot be reached" in checks["Kafka"]["text"]


# try ------------------------------------------------------------------------------------------


def test_try_says_what_to_send_and_what_it_sees_and_leaves_nothing(
    flights: str, tmp_path: Path
) -> None:
    work, temporary = tmp_path / "work", tmp_path / "tmp"
    work.mkdir()
    temporary.mkdir()
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "understudy", "try", flights, "--no-browser"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=work,
        env={**os.environ, "TMPDIR": str(temporary), "PYTHONPATH": str(ROOT)},
    )
    lines: list[str] = []
    assert process.stdout is not None
    reader = threading.Thread(target=lines.extend, args=(process.stdout,), daemon=True)
    reader.start()
    try:
        eventually(lambda: any("Ctrl-C" in line for line in lines), seconds=60)
        # The command that it prints, as a person would paste it.
        start = next(i for i, line in enumerate(lines) if "curl" in line)
        pasted = "".join(lines[start : start + 2])
        done = subprocess.run(["bash", "-c", pasted], capture_output=True, text=True, timeout=60)
        assert "outputs" in done.stdout, (pasted, done.stdout, done.stderr)
        assert json.loads(done.stdout)["outputs"][0]["name"] == "p_late"
        eventually(lambda: any("1 requests" in line or "1 request," in line for line in lines))
        page = next(line for line in lines if line.startswith("page")).split()[1]
        assert httpx.get(page, timeout=patient(10)).status_code == 200
        assert list(work.iterdir()) == []
        process.send_signal(signal.SIGINT)
        assert process.wait(patient(60)) == 0
    finally:
        if process.poll() is None:
            process.terminate()  # so that it ends its sidecar as well
        process.wait(patient(60))
    reader.join(patient(10))
    assert "Everything is removed" in lines[-1]
    assert list(work.iterdir()) == []
    assert list(temporary.iterdir()) == []


def test_try_says_it_as_json_lines(flights: str, tmp_path: Path) -> None:
    process = subprocess.Popen(
        [sys.executable, "-u", "-m", "understudy", "try", flights, "--no-browser", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )
    assert process.stdout is not None
    try:
        found, started = (json.loads(process.stdout.readline()) for _ in range(2))
        assert (found["event"], found["url"], found["models"]) == ("found", flights, ["delays"])
        assert started["event"] == "started"
        assert httpx.get(started["page"], timeout=patient(10)).status_code == 200
        sent, headers = started["request"], {"Content-Type": "application/json"}
        assert sent["described"] is True
        url = started["url"] + sent["path"]
        answer = httpx.post(url, content=sent["body"], headers=headers, timeout=patient(30))
        assert answer.status_code == 200
        figures = json.loads(process.stdout.readline())
        assert figures["event"] == "figures"
        assert (figures["requests"], figures["errors"]) == (1, 0)
        process.send_signal(signal.SIGINT)
        out, _ = process.communicate(timeout=patient(60))
        assert json.loads(out.splitlines()[-1]) == {"event": "stopped"}
        assert process.returncode == 0
    finally:
        if process.poll() is None:
            process.terminate()
            process.communicate(timeout=patient(60))


def test_try_says_why_it_cannot(tmp_path: Path) -> None:
    done = run("try", f"127.0.0.1:{free_port()}", "--no-browser")
    assert done.exit_code == 1
    assert "start the model server" in done.output


# Real model servers ---------------------------------------------------------------------------


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.parametrize(
    ("server", "product", "protocols", "models"),
    [
        (mlserver, "MLServer ", ["open-inference-v2"], ["delays"]),
        (kserve, "KServe", ["open-inference-v2", "kserve-v1"], ["delays"]),
        (mlflow, "MLflow ", ["mlflow"], ["model"]),
    ],
    ids=["mlserver", "kserve", "mlflow"],
)
def test_init_and_doctor_with_a_real_server(
    server: Callable[[Path], AbstractContextManager[str]],
    product: str,
    protocols: list[str],
    models: list[str],
    tmp_path: Path,
) -> None:
    folder = tmp_path / "server"
    if server is not mlserver:
        folder.mkdir()
    with server(folder) as url:
        done = run("init", url, "-o", tmp_path / "a.yaml", "--json")
        assert done.exit_code == 0, done.output
        said = json.loads(done.output)
        assert said["product"].startswith(product)
        assert (said["protocols"], said["models"]) == (protocols, models)
        ports = ("--listen", f"127.0.0.1:{free_port()}", "--control", f"127.0.0.1:{free_port()}")
        written(tmp_path, url, *ports)
        code, checks = doctor(tmp_path / "understudy.yaml")
        assert code == 0, checks
        assert checks["champion"]["status"] == "ok"
