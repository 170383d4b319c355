"""The record log of a service whose evaluation plane is killed: every record counts once."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
from click.testing import CliRunner

from tests.support.patience import eventually
from tests.support.world import PATH, World
from understudy.monitor.archive.reading import open_log
from understudy.monitor.cli.main import main


def written(log: Path) -> Counter[str]:
    """How often the record of each request is in the log."""
    if not log.is_dir():
        return Counter()
    lines = [json.loads(line.data) for line in open_log(log).lines()]
    return Counter(line["record"]["request_id"] for line in lines if "record" in line)


def command(*arguments: object) -> dict[str, Any]:
    result = CliRunner().invoke(main, [*map(str, arguments), "--json"])
    assert result.exit_code == 0, result.output
    found: dict[str, Any] = json.loads(result.stdout)
    return found


def test_records_that_are_sent_again_after_a_kill_count_once(tmp_path: Path) -> None:
    log = tmp_path / "log"
    sent: list[str] = []

    def send(world: World, count: int) -> None:
        with httpx.Client(base_url=world.service.url) as client:
            for _ in range(count):
                sent.append(f"r-{len(sent)}")
                tensor = {"name": "x", "shape": [1, 2], "datatype": "FP64", "data": [1.0, 2.0]}
                headers = {"x-request-id": sent[-1]}
                answer = client.post(PATH, json={"inputs": [tensor]}, headers=headers)
                assert answer.status_code == 200

    def twice() -> int:
        return sum(count > 1 for count in written(log).values())

    with World(tmp_path, records={"log": {"path": str(log)}}) as world:
        for _ in range(5):
            send(world, 100)
            eventually(lambda: set(written(log)) == set(sent))
            world.kill("understudy.monitor.service")
            send(world, 20)
            world.settled()
            eventually(lambda: set(written(log)) == set(sent))
            if twice():  # unless the state had just been saved
                break
    repeated = written(log).total() - len(sent)
    assert repeated == twice() > 0
    found = command("records", "verify", log)
    assert (found["records"], found["repeated"], found["whole"]) == (len(sent), repeated, True)
    lines, table = tmp_path / "out.jsonl", tmp_path / "out.parquet"
    for out in (lines, table):
        found = command("records", "export", log, "-o", out)
        assert (found["records"], found["repeated"]) == (len(sent), repeated)
    exported = [json.loads(line).get("record") for line in lines.read_text().splitlines()]
    assert sorted(one["request_id"] for one in exported if one) == sorted(sent)
    found = command("replay", log, "--config", world.service.file)
    assert (found["records"], found["repeated"]) == (len(sent), repeated)
