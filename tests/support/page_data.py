"""Data that pages of the documentation take for granted: a model's rows, its labels, its files."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import yaml

from tests.support.documented import DOCS, ROOT, blocks_of
from understudy.demo.flights import LateModel, read


def checkout(folder: Path) -> None:
    """The files of the repository, as a clone has them."""
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    for name in filter(None, listed.split("\0")):
        source, target = ROOT / name, folder / name
        if source.is_symlink() or source.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target, follow_symlinks=False)


def tutorial(folder: Path, *names: str) -> None:
    """The files of the first tutorial: a model server, its configuration, its traffic."""
    for block in blocks_of(DOCS / "tutorials" / "monitor.md"):
        if block.is_file and (not names or block.title in names):
            (folder / block.title).write_text(block.text)


def rows(file: Path, count: int, seed: int, late: float = 2.0) -> None:
    """Rows of the model of the tutorial, with their outcome, as Parquet."""
    rng = np.random.default_rng(seed)
    delay = rng.normal(10.0, 15.0, count)
    score = 1.0 / (1.0 + np.exp(late - delay / 10.0))
    table = pa.table({
        "flight_id": [f"f{number}" for number in range(count)],
        "id": [f"f{number}" for number in range(count)],
        "sent_at": 1_790_000_000.0 + 60.0 * np.arange(count),
        "delay": delay, "distance": rng.uniform(100.0, 2500.0, count),
        "p_late": score, "late": (rng.random(count) < score).astype(float),
    })  # fmt: skip
    pq.write_table(table, file)


def _configured(folder: Path, **more: object) -> None:
    """The configuration of the tutorial with other keys."""
    tutorial(folder)
    file = folder / "understudy.yaml"
    file.write_text(yaml.safe_dump({**yaml.safe_load(file.read_text()), **more}))


BASELINES = """\
understudy baseline build validation.parquet --prediction p_late --ignore late --ignore id \\
  --ignore flight_id --ignore sent_at --model delays -o validation.json > {folder}/built
cp validation.json monday.json
cp validation.json tuesday.json
cp validation.json last-month.json
"""


def for_baselines(folder: Path) -> None:
    tutorial(folder)
    rows(folder / "validation.parquet", 3000, 1)


def for_silent_failure(folder: Path) -> None:
    for_baselines(folder)
    rows(folder / "january.parquet", 2000, 2)
    rows(folder / "february.parquet", 2000, 3)


def for_records(folder: Path) -> None:
    _configured(folder, records={"log": {"path": "records"}})
    table = pa.table({"request_id": ["unknown"], "label": [1.0]})
    pq.write_table(table, folder / "labels.parquet")


RECORDED = """\
python traffic.py 300 1
kill -TERM %2
wait %2 || true
"""
"""The log is whole when the service has ended."""


def for_slos(folder: Path) -> None:
    _configured(folder, objectives={"latency_p99": "<= 60ms", "error_rate": "<= 1 %"})


def for_first_steps(folder: Path) -> None:
    """A model for the model server of the demo."""
    document = LateModel.learn(read().learned, hours=False).document
    (folder / "model.json").write_text(json.dumps(document))


FIRST_STEPS = """\
python -m understudy.demo.model_server 8081 model.json &
curl --silent --retry 60 --retry-delay 1 --retry-connrefused --output {folder}/ready \\
  http://127.0.0.1:8081/v2/health/ready
"""


def for_plans(folder: Path) -> None:
    experiment = {
        "name": "candidate-canary", "challengers": ["candidate"], "mode": "split",
        "weights": {"candidate": 0.5},
        "metrics": [{"metric": "reward", "role": "success", "effect": "0.5 units", "cap": "50 units"}],
    }  # fmt: skip
    (folder / "experiment.yaml").write_text(yaml.safe_dump(experiment))
    challenger = {"name": "candidate", "url": "http://127.0.0.1:8082"}
    _configured(folder, challengers=[challenger], experiments=[experiment])
    values = np.random.default_rng(1).gamma(2.0, 1.5, 2000)
    lines = [f"{value:.4f}\n" for value in values]
    (folder / "rewards.csv").write_text("reward\n" + "".join(lines))


def for_runbooks(folder: Path) -> None:
    tutorial(folder)
    (folder / "alertmanager.yml").write_text("route: {receiver: none}\nreceivers: [{name: none}]\n")


ALERTMANAGER = """\
{alertmanager} --config.file=alertmanager.yml --storage.path={folder}/alerts \\
  --web.listen-address=127.0.0.1:9093 --cluster.listen-address= 2> alertmanager.log &
mkdir -p $HOME/.config/amtool
echo 'alertmanager.url: http://127.0.0.1:9093' > $HOME/.config/amtool/config.yml
curl --silent --retry 60 --retry-delay 1 --retry-connrefused --output {folder}/ready \\
  http://127.0.0.1:9093/-/ready
"""
"""An Alertmanager, and a file that says where it is, as an operator of amtool has."""
