"""Evaluators as processes over a real broker: away, paused, fenced, stopped; every record once."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import yaml
from kafka import KafkaConsumer, KafkaProducer, TopicPartition

from tests.support.browser import visit
from tests.support.evaluation import BEGAN, config_of, differences, items, published
from tests.support.kafka_cluster import Cluster
from tests.support.kafka_world import committed_state, create, options, publish, with_kafka
from tests.support.patience import eventually, patient
from tests.support.ports import free_port
from tests.support.source import saved
from understudy.monitor.config.model import Config
from understudy.monitor.kafka.connect import Topics
from understudy.monitor.kafka.partitions import EXPERIMENTS, HEALTH
from understudy.monitor.kafka.topics import Admin, wanted

if TYPE_CHECKING:
    from playwright.sync_api import Browser

PATIENCE = patient(60.0)
PARTITIONS = 4
REQUESTS = 300


class Process:
    """``understudy evaluate`` with a control API of its own."""

    def __init__(self, path: Path, name: str) -> None:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        self.log = path.parent / f"{name}.log"
        command = [sys.executable, "-m", "understudy", "evaluate", "-c", str(path)]
        command += ["--instance", name, "--listen", f"127.0.0.1:{port}"]
        command += ["--session", "3", "--commit", "0.3"]
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.url + path, timeout=patient(3)) as reply:
            return json.load(reply)

    def judge(self, place: int = EXPERIMENTS) -> dict[str, Any] | None:
        try:
            judges = self.get("/v1/evaluator")["judges"]
        except OSError:
            return None
        return next((judge for judge in judges if judge["place"] == place), None)

    def stop(self) -> int:
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(PATIENCE)


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Callable[[str], Process]]:
    found: list[Process] = []

    def start(name: str) -> Process:
        found.append(Process(tmp_path / "understudy.yaml", name))
        return found[-1]

    yield start
    for one in found:
        one.process.send_signal(signal.SIGCONT)
        one.process.kill()
        one.process.wait()


@pytest.fixture
def config(tmp_path: Path, kafka_cluster: Cluster) -> Config:
    plain = config_of(tmp_path / "state", saved(tmp_path, 4000))
    prefix = f"{kafka_cluster.prefix()}-evaluator"
    made = with_kafka(plain, kafka_cluster.bootstrap, prefix, PARTITIONS)
    document = made.model_dump(mode="json", by_alias=True, exclude_unset=True)
    (tmp_path / "understudy.yaml").write_text(yaml.safe_dump(document))
    create(made)
    return made


def test_every_record_counts_once_when_evaluators_pause_or_stop(
    config: Config, running: Callable[[str], Process], browser: Browser
) -> None:
    from tests.support.evaluated import evaluated

    blocks = list(published(items(3, REQUESTS), PARTITIONS, 32))
    half = len(blocks) // 2
    # Evaluators are away: records stay in Kafka.
    publish(config, blocks[:half])
    made = options(config)
    producer = KafkaProducer(**made.client())
    producer.send(made.topics.records, value=b"no block at all", key=b"k", partition=1)
    producer.flush(30)
    first = running("first")
    eventually(lambda: (first.judge() or {}).get("rows"), "the first one judges", seconds=60)
    # It falls silent for longer than the group waits, and comes back as if nothing had happened.
    second = running("second")
    eventually(
        lambda: second.get("/readyz") if _answers(second) else None,
        "the second is there",
        seconds=60,
    )
    owner = eventually(lambda: _judging(first, second), "one of them judges", seconds=60)
    other = second if owner is first else first
    owner.process.send_signal(signal.SIGSTOP)
    eventually(other.judge, "the other one has taken over", seconds=60)
    publish(config, blocks[half:])
    owner.process.send_signal(signal.SIGCONT)

    def judged() -> bool:
        found = [one.judge(place) for one in (first, second) for place in (EXPERIMENTS, HEALTH)]
        done = [j for j in found if j and j["judged"] and j["judged"] > BEGAN + 15]
        return len(done) == 2 and not any(j["waiting"] for j in done)

    eventually(judged, "all is judged", seconds=60)
    # Whoever is asked answers for the group.
    for one in (first, second):
        shown = eventually(
            lambda one=one: _told(one, "/v1/experiments/shadowed"), "experiments", seconds=60
        )
        assert json.loads(shown)["challengers"][0]["requests"]["pairs"] > 100
        drift = eventually(lambda one=one: _told(one, "/v1/drift"), "drift", seconds=60)
        assert json.loads(drift)["models"][0]["rows"] > 100
        metrics = eventually(lambda one=one: _told(one, "/metrics"), "metrics", seconds=60)
        assert "understudy_evaluator_records_total" in metrics
        steers = one.judge(EXPERIMENTS) is not None
        assert ("understudy_experiment_effect{" in metrics) == steers
        watches = one.judge(HEALTH) is not None
        for family in ("drift_score", "prediction_value_bucket", "feature_rows_total"):
            assert (f"understudy_{family}{{" in metrics) == watches, family
        assert 'understudy_process_cpu_seconds_total{process="evaluator"}' in metrics
        assert 'understudy_feedback_delay_seconds_count{arm="' in metrics
        assert "understudy_build_info{" in metrics
        # Sidecars count these; of both together a sum would be twice as much.
        assert "understudy_undecodable_total" not in metrics
        with visit(browser, one.url) as seen:
            for text in ("shadowed", "Open findings", "messages that wait"):
                seen.page.get_by_text(text).first.wait_for()
            seen.fine()
    paused = _changed(second, "/v1/experiments/shadowed/pause", {"who": "ada", "why": "a test"})
    assert paused["challengers"][0]["phase"] == "paused"
    resumed = _changed(first, "/v1/experiments/shadowed/resume", {"who": "ada", "why": "a test"})
    assert resumed["challengers"][0]["phase"] != "paused"
    assert [first.stop(), second.stop()] == [0, 0], first.log.read_text() + second.log.read_text()
    state = committed_state(config)
    assert state is not None
    wanted = evaluated(config, 1, 256, None, 3, REQUESTS)
    wanted.pop("decisions")
    assert state["late"] == 0
    assert differences(wanted, state["pipeline"]) == []
    reason, headers = _dead(config)
    assert (reason, headers["topic"], headers["partition"]) == (
        "not_a_block",
        made.topics.records,
        "1",
    )


def _judging(*processes: Process) -> Process | None:
    return next((one for one in processes if one.judge()), None)


def _told(process: Process, path: str) -> str | None:
    """An answer; None while the group is being divided."""
    try:
        with urllib.request.urlopen(process.url + path, timeout=patient(20)) as reply:
            return str(reply.read().decode())
    except OSError:
        return None


def _changed(process: Process, path: str, order: dict[str, str]) -> Any:
    request = urllib.request.Request(  # our own process
        process.url + path,
        json.dumps(order).encode(),
        {"content-type": "application/json"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=patient(20)) as reply:
        return json.load(reply)


def _answers(process: Process) -> bool:
    try:
        return bool(process.get("/readyz")["ready"])
    except OSError:
        return False


def _dead(config: Config) -> tuple[str, dict[str, str]]:
    made = options(config)
    consumer = KafkaConsumer(**made.client(), isolation_level="read_committed")
    place = TopicPartition(made.topics.dead, 0)
    consumer.assign([place])
    consumer.seek_to_beginning(place)
    found: list[Any] = []
    eventually(
        lambda: [found.extend(m) for m in consumer.poll(500).values()], "a dead letter", seconds=60
    )
    consumer.close()
    assert [message.value for message in found] == [b"no block at all"]
    headers = {name: value.decode() for name, value in found[0].headers}
    return headers["reason"], headers


@pytest.mark.parametrize("how", ["watch", "signal"])
def test_an_evaluator_joins_again_with_a_changed_configuration(
    config: Config, running: Callable[[str], Process], tmp_path: Path, how: str
) -> None:
    path = tmp_path / "understudy.yaml"
    document = {**yaml.safe_load(path.read_text()), "reload": how}
    path.write_text(yaml.safe_dump(document))
    publish(config, list(published(items(3, REQUESTS), PARTITIONS, 32)))
    one = running("only")
    eventually(lambda: (one.judge() or {}).get("rows"), "it judges", seconds=60)
    began = one.judge()
    assert began is not None

    def changed(text: str) -> None:
        path.write_text(text)
        if how == "signal":
            one.process.send_signal(signal.SIGHUP)

    def models() -> list[str]:
        found = one.judge(HEALTH) if _answers(one) else None
        return found["models"] if found else []

    before = models()
    changed("version: 1\nmodels: nonsense\n")
    eventually(lambda: "models" in (one.get("/v1/evaluator")["config_error"] or ""), seconds=60)
    assert "understudy_config_last_reload_successful 0.0" in _metrics(one)
    assert models() == before
    document["models"] = [*document["models"], {"name": "another", "read": False}]
    changed(yaml.safe_dump(document))
    eventually(lambda: models() == [*before, "another"], "it has the new model", seconds=60)
    eventually(lambda: "understudy_config_last_reload_successful 1.0" in _metrics(one), seconds=60)
    # It goes on from its last commit: nothing is counted twice.
    eventually(lambda: (one.judge() or {}).get("rows"), "its state is there", seconds=60)
    assert one.process.poll() is None
    assert one.stop() == 0


def _metrics(process: Process) -> str:
    with urllib.request.urlopen(process.url + "/metrics", timeout=patient(5)) as reply:
        return str(reply.read().decode())


def test_an_evaluator_waits_for_brokers_and_topics(tmp_path: Path, kafka_cluster: Cluster) -> None:
    config = with_kafka(config_of(tmp_path), kafka_cluster.bootstrap, kafka_cluster.prefix())
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))  # bound, and nobody listens
        nowhere = f"127.0.0.1:{sock.getsockname()[1]}"
        early = Process(_written(config, tmp_path / "early.yaml"), "early")
        away = Process(_written(config, tmp_path / "away.yaml", bootstrap=[nowhere]), "away")
        try:
            said = eventually(lambda: _trouble(early), "word of the topics", seconds=60)
            assert "records" in said
            assert "understudy kafka init" in said
            assert "cannot be reached" in eventually(
                lambda: _trouble(away), "word of the brokers", seconds=60
            )
            create(config)
            eventually(early.judge, "a judge, now that there are topics", seconds=60)
            assert _trouble(early) is None
            for node in kafka_cluster.nodes:
                node.pause()
            eventually(
                lambda: "no response" in (_trouble(early) or ""), "word of the silence", seconds=60
            )
            kafka_cluster.heal()
            eventually(lambda: early.judge() and not _trouble(early), "a judge again", seconds=60)
        finally:
            kafka_cluster.heal()
            assert (away.stop(), early.stop()) == (0, 0)


def test_mismatched_partition_counts_are_reported(tmp_path: Path, kafka_cluster: Cluster) -> None:
    config = with_kafka(config_of(tmp_path), kafka_cluster.bootstrap, kafka_cluster.prefix())
    assert config.kafka is not None
    labels = Topics(config.kafka.prefix).labels
    admin = Admin(config.kafka)
    admin.create(
        [
            replace(topic, partitions=3) if topic.name == labels else topic
            for topic in wanted(config.kafka, 3600.0)
        ]
    )
    admin.close()
    odd = Process(_written(config, tmp_path / "odd.yaml", timeout="30s"), "odd")
    assert odd.process.wait(PATIENCE) == 2
    assert "same number of partitions, not 4 and 3" in odd.log.read_text()


def _written(config: Config, path: Path, **kafka: Any) -> Path:
    document = config.model_dump(mode="json", by_alias=True, exclude_unset=True)
    document["kafka"] |= {"timeout": "1s", **kafka}
    path.write_text(yaml.safe_dump(document))
    return path


def _trouble(evaluator: Process) -> str | None:
    try:
        found: str | None = evaluator.get("/v1/evaluator")["error"]
    except OSError:
        return None
    return found
