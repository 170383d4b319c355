"""The compose stack with Kafka: consistent, and its brokers know their settings."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import yaml

from tests.support.kafka_cluster import Cluster
from understudy.monitor.config.load import parse

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"


def load(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((DEPLOY / name).read_text())
    return found


def test_what_services_depend_on_and_mount_is_there() -> None:
    base, over = load("compose.yaml"), load("compose.kafka.yaml")
    services = {**base["services"], **over["services"]}
    volumes = {**base["volumes"], **over["volumes"]}
    for service in over["services"].values():
        assert set(service.get("depends_on", {})) <= set(services)
        for volume in service.get("volumes", ()):
            name = volume.split(":")[0]
            assert (DEPLOY / name).exists() if name.startswith(".") else name in volumes


def test_sidecar_and_evaluators_have_a_valid_configuration(tmp_path: Path) -> None:
    text = (DEPLOY / "stack" / "understudy.kafka.yaml").read_text()
    plain = (DEPLOY / "stack" / "understudy.yaml").read_text()
    # The same but for Kafka; the baseline is made in the stack.
    assert text.partition("evaluation:")[0].splitlines()[1:] == [
        line.replace("/var/lib/understudy/baseline", "/baseline/baseline")
        for line in plain.splitlines()[1:]
    ]
    config = parse(re.sub(r"\n +baseline:.*", "", text), "understudy.kafka.yaml", tmp_path)
    assert config.evaluation.mode == "kafka"
    assert config.kafka is not None
    brokers = load("compose.kafka.yaml")["services"]
    assert {address.partition(":")[0] for address in config.kafka.bootstrap} <= set(brokers)


def test_prometheus_asks_the_evaluators() -> None:
    """What is judged is told by who judges it: without them half of the dashboards are empty."""
    over = load("compose.kafka.yaml")["services"]
    (own,) = over["prometheus"]["volumes"]
    source, target, _ = own.split(":")
    named = [one for job in load("prometheus/prometheus.yml")["scrape_configs"]
             for found in job.get("file_sd_configs", ()) for one in found["files"]]  # fmt: skip
    assert named == [target]
    # A mount over a file of a folder that is mounted read-only: the file has to be there.
    assert load(target.replace("/etc/", "")) == []
    asked = [target for one in load(source) for target in one["targets"]]
    evaluators = {name: one for name, one in over.items() if name.startswith("evaluator-")}
    assert asked == [f"{name}:9090" for name in evaluators]
    for name, one in evaluators.items():
        assert one["hostname"] == name
        assert "--listen=0.0.0.0:9090" in one["command"]


def test_brokers_know_their_settings(kafka_cluster: Cluster) -> None:
    from kafka import KafkaAdminClient
    from kafka.admin import ConfigResource, ConfigResourceType

    admin = KafkaAdminClient(bootstrap_servers=kafka_cluster.bootstrap)
    number = str(kafka_cluster.nodes[0].number)
    told = admin.describe_configs(
        [ConfigResource(ConfigResourceType.BROKER, number)], config_filter="all"
    )
    admin.close()
    known = set(told["broker"][number])
    environment = load("compose.kafka.yaml")["services"]["kafka-1"]["environment"]
    # As the image does it: KAFKA_NODE_ID is node.id.
    settings = {key[6:].lower().replace("_", ".") for key in environment if key != "CLUSTER_ID"}
    assert settings <= known
