"""The commands of the Kafka tutorial, as they stand on the page, against the brokers of the tests."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from contextlib import ExitStack
from pathlib import Path

import httpx

from tests.support.documented import DOCS, blocks_of
from tests.support.kafka_cluster import Cluster
from tests.support.patience import eventually, patient
from tests.support.ports import free_port
from tests.support.service import ROOT
from understudy.common.processes import Process

PORTS = (8080, 8081, 8082, 8180, 9090, 9190, 9290)
BIN = Path(sys.executable).parent
STAYS = ("serve", "evaluate")


def test_the_tutorial_sees_the_traffic_of_both_replicas(
    tmp_path: Path, kafka_cluster: Cluster
) -> None:
    ports = {str(port): str(free_port()) for port in PORTS}
    broker = kafka_cluster.bootstrap.split(",")[0]

    def here(text: str) -> str:
        """The text of the page with ports that are free here, and with our broker."""
        text = re.sub(rf"\b({'|'.join(ports)})\b", lambda match: ports[match[1]], text)
        text = text.replace("127.0.0.1:9092", broker)
        return text.replace("prefix: tutorial", f"prefix: {kafka_cluster.prefix()}-tutorial")

    environment = {"PATH": f"{BIN}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}

    def run(command: str) -> str:
        done = subprocess.run(
            ["bash", "-ec", command],
            cwd=tmp_path,
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=patient(120),
        )
        assert done.returncode == 0, (command, done.stdout, done.stderr)
        return done.stdout

    (model,) = [
        one for one in blocks_of(DOCS / "tutorials" / "monitor.md") if one.title == "model.py"
    ]
    (tmp_path / "model.py").write_text(model.text)
    url = {port: f"http://127.0.0.1:{ports[str(port)]}" for port in PORTS}
    seen = ""
    with ExitStack() as stack:

        def start(*words: str) -> None:
            name = f"{words[1]}-{len(list(tmp_path.glob('*.log')))}"
            process = Process(name, words, tmp_path / f"{name}.log", tmp_path, environment)
            stack.callback(process.stop)

        for port in (8081, 8082):
            start(sys.executable, "model.py", ports[str(port)])
        for block in blocks_of(DOCS / "tutorials" / "kafka.md"):
            if block.is_file:
                (tmp_path / block.title).write_text(here(block.text))
                continue
            for line in here(block.text).splitlines():
                words = shlex.split(line)
                if words[0] == "pip":
                    continue
                if words[1] in STAYS:
                    start(str(BIN / words[0]), *words[1:])
                    continue
                if words[1] == "top":
                    # What the page looks at: both replicas serve, and the evaluator has all of it.
                    for port in (8080, 8180):
                        eventually(lambda port=port: _predicted(url[port]) == 200, seconds=60)
                    eventually(lambda: _records(url[9190]) >= 20, seconds=60)
                if words[1] == "top" and "--url" not in words:
                    line += f" --url {url[9090]}"  # its default, where that port is free
                seen += run(line)
        status = json.loads(run(here("understudy kafka status common.yaml --json")))
        assert status
        assert "delays" in seen
        wrong = subprocess.run(
            [BIN / "understudy", "top", "--once", "--url", url[9190]],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=patient(60),
        )
        assert wrong.returncode == 1
        assert "at each sidecar; name the other one with --url" in " ".join(wrong.stderr.split())
    assert not list(tmp_path.glob("understudy-state"))


def _predicted(url: str) -> int:
    """Ten predictions; the status of the last one."""
    body = {"instances": [{"delay": 12.0}]}
    try:
        for _ in range(10):
            found = httpx.post(f"{url}/v1/models/delays:predict", json=body, timeout=patient(10))
        return found.status_code
    except httpx.HTTPError:
        return 0


def _records(url: str) -> int:
    try:
        return int(httpx.get(f"{url}/v1/evaluator", timeout=patient(10)).json()["records"])
    except httpx.HTTPError:
        return 0
