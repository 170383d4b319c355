"""Twenty seconds of chaos over three real nodes: what is found is what an offline replay finds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from benchmarks.kafka import combine
from benchmarks.kafka.chaos import one_run
from benchmarks.kafka.comparison import equal

SEED = 7
"""An odd one: with labels."""


@pytest.mark.integration
@pytest.mark.slow
@pytest.mark.timeout(900)
def test_nothing_is_lost_and_nothing_twice_whatever_is_killed() -> None:
    run = one_run(20.0, SEED)
    assert equal(run), run
    assert run["caught_up"], run
    assert run["records"] > 0
    assert run["rows"] > run["records"]
    assert {what.split()[1] for what in run["happened"]} == {"broker", "evaluator", "sidecar"}
    assert run["exits"] == [0] * 4
    # An evaluator may give up while no broker answers, and is started again; a sidecar may not.
    assert not [name for name in run["fell"] if name.startswith("sidecar")], run["fell"]


def a_run(seed: int, lost: int = 0) -> dict[str, object]:
    return {
        "seed": seed, "seconds": 600.0, "records": 10, "rows": 20, "rows_twice_or_strange": 0,
        "rows_lost": lost, "differences": [], "late_rows": 0, "caught_up": True,
        "seconds_to_catch_up": 1.0, "exits": [0], "happened": {"kill broker": 2}, "folder": "gone",
        "examples": [], "fell": {},
    }  # fmt: skip


def test_runs_of_several_files_are_one_result(tmp_path: Path) -> None:
    files = []
    for name, runs in (("a", [a_run(3), a_run(4)]), ("b", [a_run(1)])):
        files.append(tmp_path / name)
        files[-1].write_text(json.dumps({"environment": {"cores": 2}, "runs": runs}))
    said = ["--into", str(tmp_path), "--note", "as a test"]
    done = CliRunner().invoke(combine.main, [*map(str, files), *said])
    assert done.exit_code == 0, done.output
    result = json.loads((tmp_path / "kafka-chaos.json").read_text())
    assert [run["seed"] for run in result["measurements"]["runs"]] == [1, 3, 4]
    assert result["environment"] == {"cores": 2, "note": "as a test"}
    assert result["measurements"]["runs"][0]["happened"] == {"kill broker": 2}
    assert result["claims"][0]["value"] == 1.0
    assert result["claims"][-1]["value"] == 3

    files[1].write_text(json.dumps({"environment": {}, "runs": [a_run(4, lost=2)]}))
    twice = CliRunner().invoke(combine.main, [*map(str, files), *said])
    assert twice.exit_code == 1
    assert "seed 4 is there already" in twice.output
    bad = CliRunner().invoke(combine.main, [str(files[1]), *said])
    assert bad.exit_code == 1
    assert json.loads((tmp_path / "kafka-chaos.json").read_text())["claims"][1]["value"] == 2
