"""``init``, ``doctor`` and ``try`` for servers over gRPC and HTTP/2, from the command line."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import grpc
import pytest
import yaml
from click.testing import CliRunner, Result

from tests.support.grpc_calls import floats, request_message
from tests.support.grpc_world import INFER, grpc_server
from tests.support.patience import patient
from tests.support.ports import free_port
from tests.support.served import mlserver
from tests.support.service import REAL, Service
from tests.support.v2_server import v2_server
from understudy.monitor.cli.main import main


def run(*words: str | Path) -> Result:
    return CliRunner().invoke(main, [str(word) for word in words])


def written(folder: Path, url: str, *words: str) -> Path:
    """The file that init writes, on free ports."""
    file = folder / "understudy.yaml"
    ports = ["--listen", f"127.0.0.1:{free_port()}", "--control", f"127.0.0.1:{free_port()}"]
    done = run("init", url, "-o", file, "--force", *ports, *words)
    assert done.exit_code == 0, done.output
    assert run("config", "check", file).exit_code == 0
    return file


def checks(file: Path, *words: str) -> dict[str, tuple[str, str]]:
    found = json.loads(run("doctor", file, "--json", *words).output)
    return {one["subject"]: (one["status"], one["text"]) for one in found["checks"]}


def test_a_server_over_grpc_is_found_and_examined(tmp_path: Path) -> None:
    with v2_server() as server:
        url = f"grpc://127.0.0.1:{server.grpc}"
        file = written(tmp_path, url)
        config = yaml.safe_load(file.read_text())
        assert config["champion"] == {"url": url}
        assert config["models"] == [{"name": "m"}]
        found = checks(file)
        assert found["champion"][0] == "ok"
        assert "Triton 2.0: Open Inference Protocol (V2); models: m" in found["champion"][1]
        assert found["model m of champion"] == (
            "ok", "a sample is read as open-inference-v2: 3 features, predictions sum"
        )  # fmt: skip
        text = file.read_text()
        for name, said in (("loading", "is not ready"), ("another", "has no model 'another'")):
            file.write_text(text.replace("name: m", f"name: {name}"))
            level, why = checks(file)[f"model {name} of champion"]
            assert (level, said in why) == ("fault", True), why
    level, why = checks(file)["champion"]
    assert level == "fault"
    assert "Connection refused" in why


def test_servers_that_are_not_of_the_protocol_are_named(tmp_path: Path) -> None:
    with v2_server() as server:
        done = run("init", f"grpc://127.0.0.1:{server.http}", "-o", tmp_path / "a.yaml")
    assert done.exit_code == 1
    assert "it may not speak HTTP/2" in done.output
    with grpc_server() as other:
        done = run("init", f"grpc://127.0.0.1:{other.port}", "-o", tmp_path / "a.yaml")
    assert done.exit_code == 1
    assert "names no model by the Open Inference Protocol" in done.output
    assert not (tmp_path / "a.yaml").exists()


def test_a_server_over_http2_is_found(tmp_path: Path) -> None:
    """A sidecar over h2c, in front of a server of HTTP/1.1."""
    with v2_server() as server:
        service = Service(
            tmp_path, REAL, champion={"url": f"http://127.0.0.1:{server.http}"},
            models=[{"name": "m"}],
        )  # fmt: skip
        with service.start():
            url = service.url.replace("http://", "h2c://")
            done = run("init", url, "--protocol", "open-inference-v2", "--model", "m", "-o",
                       tmp_path / "second.yaml")  # fmt: skip
            assert done.exit_code == 0, done.output
            level, why = checks(tmp_path / "second.yaml")["champion"]
    assert level == "ok", why
    assert f"{url} answers in" in why


def test_try_answers_calls(tmp_path: Path) -> None:
    with v2_server() as server:
        command = [sys.executable, "-m", "understudy", "try", f"grpc://127.0.0.1:{server.grpc}",
                   "--no-browser", "--json"]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as process:
            try:
                assert process.stdout is not None
                events: list[dict[str, Any]] = []
                while not events or events[-1]["event"] != "started":
                    events.append(json.loads(process.stdout.readline()))
                assert events[0]["models"] == ["m"]
                assert events[-1]["request"]["path"] == INFER
                message = request_message(("x", "FP32", floats(1, 2, 3).reshape(1, 3)))
                with grpc.insecure_channel(events[-1]["url"].partition("//")[2]) as channel:
                    channel.unary_unary(INFER)(message.SerializeToString(), timeout=patient(10))
                while events[-1]["event"] != "figures" or not events[-1]["predictions"]:
                    line = process.stdout.readline()
                    assert line
                    events.append(json.loads(line))
                    if events[-1]["event"] == "figures":
                        assert events[-1]["errors"] == 0
                        break
            finally:
                process.send_signal(signal.SIGINT)
                process.wait(patient(30))


@pytest.mark.integration
@pytest.mark.slow
def test_mlserver_is_found_over_grpc(tmp_path: Path) -> None:
    with mlserver(tmp_path / "server"):
        port = json.loads((tmp_path / "server" / "settings.json").read_text())["grpc_port"]
        file = written(tmp_path, f"grpc://127.0.0.1:{port}")
        assert checks(file)["model delays of champion"][0] == "skipped", "it has no metadata"
        sample = tmp_path / "sample.json"
        tensor = {"name": "x", "shape": [1, 4], "datatype": "FP64", "data": [0.5, -1, 2, 0.1]}
        sample.write_text(json.dumps({"inputs": [tensor]}))
        found = checks(file, "--request", str(sample))
    assert "MLServer" in found["champion"][1]
    level, why = found["model delays of champion"]
    assert (level, why.endswith("predictions p_late")) == ("ok", True), why
