"""`understudy kafka`, with a real cluster."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import yaml
from click.testing import CliRunner, Result
from kafka import KafkaAdminClient

from tests.support.kafka_cluster import Cluster
from understudy.monitor.cli.main import main

TOPICS = {"records", "labels", "evidence", "state", "routes", "dead"}


def config(folder: Path, cluster: Cluster, prefix: str, **more: Any) -> str:
    path = folder / "understudy.yaml"
    told = {
        "version": 1,
        "listen": "127.0.0.1:0",
        "models": [{"name": "delays"}],
        "champion": {"url": "http://127.0.0.1:1"},
        "evaluation": "kafka",
        "kafka": {"bootstrap": cluster.bootstrap, "prefix": prefix, "partitions": 2, **more},
        "feedback": {"horizon": "3d"},
    }
    path.write_text(yaml.safe_dump(told))
    return str(path)


def run(*arguments: str) -> Result:
    return CliRunner().invoke(main, ["kafka", *arguments])


def test_init_creates_what_is_missing_and_says_what_differs(
    kafka_cluster: Cluster, tmp_path: Path
) -> None:
    prefix = kafka_cluster.prefix()
    path = config(tmp_path, kafka_cluster, prefix)
    dry = run("init", path, "--dry-run", "--json")
    assert dry.exit_code == 0
    assert {one["topic"] for one in json.loads(dry.stdout)["created"]} == {
        f"{prefix}.{name}" for name in TOPICS
    }
    missing = run("status", path)
    assert missing.exit_code == 1
    assert f"{prefix}.routes: there is no such topic" in missing.stderr
    assert run("init", path).exit_code == 0
    again = json.loads(run("init", path, "--json").stdout)
    assert (again["created"], again["differences"]) == ([], [])
    admin = KafkaAdminClient(bootstrap_servers=kafka_cluster.bootstrap)
    records = admin.describe_topics([f"{prefix}.records"])[0]["partitions"]
    assert [len(one["replica_nodes"]) for one in records] == [3, 3]
    found = json.loads(run("status", path, "--json").stdout)
    assert (found["brokers"], found["lag"], found["problems"]) == (3, 0, [])
    # Four days: the horizon, and one for being late.
    wanted = config(tmp_path, kafka_cluster, prefix, partitions=4)
    other = run("init", wanted)
    assert other.exit_code == 1
    assert (
        f"{prefix}.records: partitions is 2, and should be 4: set kafka.partitions to it"
        in other.stderr
    )
    longer = Path(path).read_text().replace("3d", "5d").replace("partitions: 4", "partitions: 2")
    Path(path).write_text(longer)
    differs = run("init", path)
    assert differs.exit_code == 1
    assert "retention.ms is 345600000, and should be 518400000: --alter" in differs.stderr
    assert run("init", path, "--alter").exit_code == 0
    assert run("init", path).exit_code == 0
    admin.close()


def test_what_cannot_be_is_said_with_a_way_out(kafka_cluster: Cluster, tmp_path: Path) -> None:
    many = run("init", config(tmp_path, kafka_cluster, kafka_cluster.prefix(), replication=5))
    assert (many.exit_code, "there are 3 brokers" in many.stderr) == (1, True)
    path = config(tmp_path, kafka_cluster, "x", bootstrap="127.0.0.1:1", timeout="1s")
    away = run("status", path)
    assert away.exit_code == 1
    assert "Kafka cannot be reached at 127.0.0.1:1" in away.stderr
    Path(path).write_text(Path(path).read_text().replace("kafka:\n", "notify: []\nother:\n"))
    assert run("status", path).exit_code == 2
