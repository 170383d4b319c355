"""Kafka is taken away from a sidecar under load: clients see nothing, and nothing is lost."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from tests.support.kafka_cluster import Cluster
from tests.support.kafka_reading import create_topics, kafka_of, read
from tests.support.load_server import Server, written
from tests.support.patience import eventually
from tests.support.ports import free_port
from tests.support.rehearsed_gates import gate
from tests.support.service import REAL, Service
from understudy.loadtest.chaos import actions, probes
from understudy.loadtest.faultproxy.server import FaultProxy
from understudy.monitor.cli.main import main
from understudy.monitor.config.kafka import Kafka

pytest.importorskip("chaoslib", reason="NOT TESTED: the Chaos Toolkit is not installed")
pytestmark = pytest.mark.integration

PLAN = """
payloads: {{path: /v1/models/m:predict, template: {{instances: [{{x: {{$uniform: [0, 1]}}}}]}}}}
objectives: {{p99: 2s}}
stages:
  - name: kafka
    chaos: {{experiment: kafka.json, load: {{rate: 60}}, before: 1s, after: {after}, lost_at_most: 0,
            hypothesis_holds: true}}
"""


@dataclass
class Behind:
    """A broker that says the address of its proxy, as one has to be that is to be taken away."""

    faults: FaultProxy
    cluster: Cluster
    bootstrap: str

    @property
    def proxy(self) -> dict[str, Any]:
        found: dict[str, Any] = actions._api("GET", f"{self.faults.url}/proxies/kafka")
        return found


@pytest.fixture(scope="module")
def behind() -> Iterator[Behind]:
    listen = f"127.0.0.1:{free_port()}"
    with FaultProxy() as faults:
        cluster = Cluster(nodes=1, settings={"advertised.listeners": f"PLAINTEXT://{listen}"})
        broker = f"127.0.0.1:{cluster.nodes[0].ports['PLAINTEXT']}"
        actions.add_proxy(faults.url, "kafka", listen, broker)
        with cluster:
            yield Behind(faults, cluster, listen)


PREFLIGHT = 1
"""Requests that a gate sends before its first stage."""
EXAMPLES = Path(__file__).parents[2] / "examples" / "gate"


def publishing(folder: Path, model: Server, kafka: Kafka) -> Service:
    create_topics(kafka)
    told = kafka.model_dump(mode="json", exclude_unset=True)
    return Service(
        folder, REAL, champion={"url": model.url}, evaluation="kafka", kafka=told
    )  # fmt: skip


def shown(service: Service, name: str) -> float:
    found = probes.metric(f"{service.control}/metrics", name)
    assert found is not None, name
    return found


def fault(folder: Path, service: Service, name: str, *changes: str, seconds: float = 2.0) -> None:
    """Printed as a user would, with a look at what waits before it is undone."""
    answers = f"{service.control}/readyz"
    command = ["gate", "fault", name, "--seconds", str(seconds), "--answers", answers]
    printed = CliRunner().invoke(main, [*command, *(f"--set={one}" for one in changes)])
    assert printed.exit_code == 0, printed.output
    experiment = json.loads(printed.output)
    arguments = {"url": f"{service.control}/metrics", "name": "understudy_kafka_waiting_records"}
    look = {"type": "python", "module": "understudy.loadtest.chaos.probes", "func": "metric"}
    probe = {"type": "probe", "name": "waiting", "provider": {**look, "arguments": arguments}}
    experiment["method"].insert(-1, probe)
    written(folder, "kafka.json", json.dumps(experiment))


def accounted(service: Service, kafka: Kafka, requests: int) -> None:
    """All that was asked is in Kafka, once, and the sidecar ends in order."""
    eventually(lambda: shown(service, "understudy_kafka_published_records_total") == requests)
    assert shown(service, "understudy_kafka_waiting_records") == 0
    assert not probes.metric(f"{service.control}/metrics", "understudy_kafka_dropped_total")
    assert service.stop() == 0, service.log
    in_kafka = read(kafka)
    assert len(in_kafka.ids) == len(set(in_kafka.ids)) == requests
    assert in_kafka.lost == 0


@pytest.mark.parametrize("name", ["kafka-away", "kafka-silent"])
def test_records_wait_while_kafka_is_away_and_clients_notice_nothing(
    behind: Behind, tmp_path: Path, name: str
) -> None:
    kafka = kafka_of(behind.bootstrap, behind.cluster.prefix(), replication=1)
    with Server(slots=256, seconds=0.002) as model, publishing(tmp_path, model, kafka) as service:
        eventually(lambda: behind.proxy["connections"])
        fault(tmp_path, service, name, f"url={behind.faults.url}")
        page = tmp_path / "r.html"
        code, found, said = gate(
            tmp_path, service.url, PLAN.format(after="2s"), "--html", str(page)
        )
        assert code == 0, said
        assert "probe: waiting" in page.read_text()
        load, chaos = found["kafka"]["load"], found["kafka"]["chaos"]
        assert (load["failed"], set(load["statuses"])) == (0, {"200"})
        assert chaos["hypothesis_looks"] > 0
        (probe,) = chaos["probes"]
        assert probe["output"] > 0, "records are kept while Kafka is away"
        assert behind.proxy["enabled"]
        assert behind.proxy["toxics"] == []
        accounted(service, kafka, PREFLIGHT + load["requests"])


def test_kafka_comes_back_when_the_gate_is_killed_meanwhile(behind: Behind, tmp_path: Path) -> None:
    """The plan of the examples, with the addresses of this world."""
    kafka = kafka_of(behind.bootstrap, behind.cluster.prefix(), replication=1)
    with Server(slots=256, seconds=0.002) as model, publishing(tmp_path, model, kafka) as service:
        eventually(lambda: behind.proxy["connections"])
        text = (EXAMPLES / "kafka-away.json").read_text()
        text = text.replace("http://127.0.0.1:9090", service.control)
        written(
            tmp_path, "kafka-away.json", text.replace("http://127.0.0.1:8474", behind.faults.url)
        )
        plan = (EXAMPLES / "kafka-away.yaml").read_text()
        # The server of this test answers in the format V1.
        written(tmp_path, "gate.yaml", plan.replace("/v2/models/m/infer", "/v1/models/m:predict"))
        command = [
            sys.executable,
            "-m",
            "understudy",
            "gate",
            "--plan",
            str(tmp_path / "gate.yaml"),
        ]
        with subprocess.Popen(
            [*command, "--target", service.url], stdout=subprocess.DEVNULL
        ) as runner:
            eventually(lambda: not behind.proxy["enabled"])
            eventually(lambda: shown(service, "understudy_kafka_waiting_records") > 0)
            runner.send_signal(signal.SIGKILL)
        eventually(lambda: behind.proxy["enabled"])
        eventually(lambda: shown(service, "understudy_kafka_waiting_records") == 0)
        # Senders end when their parent is dead.
        eventually(lambda: _still(service))
        taken = int(shown(service, "understudy_kafka_taken_total"))
        assert taken > 100
        accounted(service, kafka, taken)


def _still(service: Service) -> bool:
    before = shown(service, "understudy_kafka_taken_total")
    time.sleep(1.0)
    return shown(service, "understudy_kafka_taken_total") == before


def test_brokers_behind_no_proxy_are_said_and_can_be_paused(
    kafka_cluster: Cluster, tmp_path: Path
) -> None:
    """They tell their own addresses, so a proxy in front of them takes nothing away."""
    with FaultProxy() as faults, Server(slots=256, seconds=0.002) as model:
        names = [f"kafka-{node.number}" for node in kafka_cluster.nodes]
        ports = [node.ports["PLAINTEXT"] for node in kafka_cluster.nodes]
        made = [
            actions.add_proxy(faults.url, name, "127.0.0.1:0", f"127.0.0.1:{port}")
            for name, port in zip(names, ports, strict=True)
        ]
        bootstrap = ",".join(one["listen"] for one in made)
        kafka = kafka_of(bootstrap, kafka_cluster.prefix())
        with publishing(tmp_path, model, kafka) as service:
            eventually(lambda: shown(service, "understudy_kafka_heartbeats_total") > 3)
            fault(
                tmp_path, service, "kafka-away", f"url={faults.url}", f"proxy=[{', '.join(names)}]"
            )
            code, found, said = gate(tmp_path, service.url, PLAN.format(after="1s"))
            assert code == 2, said
            assert "advertised.listeners" in " ".join(found["kafka"]["why"])
            requests = found["kafka"]["load"]["requests"]
            # Of brokers on this machine there is another way: each of them stops.
            pauses = [
                {
                    "type": "action",
                    "name": f"pause {port}",
                    "provider": {
                        "type": "python", "module": "understudy.loadtest.chaos.actions",
                        "func": "pause_process", "arguments": {"port": port},
                    },
                }
                for port in ports
            ]  # fmt: skip
            experiment = json.loads((tmp_path / "kafka.json").read_text())
            probe, end = experiment["method"][1:]
            end["provider"]["arguments"] = {"name": "pause"}
            probe["pauses"] = {"before": 2.0}
            experiment["method"] = [*pauses, probe, end]
            experiment["rollbacks"] = [end]
            written(tmp_path, "kafka.json", json.dumps(experiment))
            code, found, said = gate(tmp_path, service.url, PLAN.format(after="2s"))
            assert code == 0, said
            load = found["kafka"]["load"]
            assert (load["failed"], set(load["statuses"])) == (0, {"200"})
            assert found["kafka"]["chaos"]["probes"][0]["output"] > 0
            accounted(service, kafka, 2 * PREFLIGHT + requests + load["requests"])
