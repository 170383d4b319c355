"""Every command that reads a file names a bad one, says why in plain words, and what may be meant."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from understudy.monitor.cli.main import main

SIDECAR = {
    "version": 1,
    "listen": "127.0.0.1:1",
    "models": [{"name": "m"}],
    "champion": {"url": "http://127.0.0.1:9"},
    "experiments": [
        {"name": "e", "challengers": ["c"], "metrics": [{"metric": "error_rate", "margin": "2 pp"}]}
    ],
    "challengers": [{"name": "c", "url": "http://127.0.0.1:9"}],
}
NOWHERE = "http://127.0.0.1:9"
CASES = [
    *(
        (line, ".yaml")
        for line in (
            "config check {}",
            "doctor {}",
            "serve --config {}",
            "evaluate --config {}",
            "validate --config {}",
            "kafka init {}",
            "kafka status {}",
            "kafka import {} --once",
            "experiment plan {}",
            f"experiment start {{}} --url {NOWHERE}",
            "experiment replay good.csv --experiment {}",
            "slo generate {}",
            "slo explain {}",
            "slo test {}",
            "inject file --sidecar sidecar.yaml {}",
            "inject file --sidecar {} good.yaml",
            f"gate --target {NOWHERE} --plan {{}}",
        )
    ),
    *(
        (line, end)
        for line in ("baseline build {} -o out.json", "drift report {} good.csv",
                     "drift report good.csv {}", "experiment replay {} --experiment good.yaml")
        for end in (".csv", ".jsonl", ".json", ".parquet")
    ),
    ("baseline show {}", ".json"),
    ("baseline diff {} {}", ".json"),
    ("baseline merge {} -o out.json", ".json"),
    ("gate compare {} {}", ".json"),
    ("records verify {}", ".jsonl"),
    ("records export {} --out out.jsonl", ".jsonl"),
    (f"findings list --url {NOWHERE} --token-file {{}}", ".txt"),
]  # fmt: skip
KINDS = ("missing", "folder", "away", "empty", "binary", "loop")
EMPTY_IS_FINE = ("records verify", "records export", "inject file --sidecar sidecar.yaml")
"""A log of no record is whole, and manifests may have no pod."""
FOREIGN = ("Errno", "errno", "Traceback", "Failed to open", "arrow", "Detail:")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "good.csv").write_text("a,b\n" + "".join(f"{n},{n % 7}\n" for n in range(50)))
    (tmp_path / "good.yaml").write_text(json.dumps(SIDECAR))
    pod = {
        "initContainers": [{"name": "understudy"}],
        "volumes": [],
        "lifecycle": {},
        "terminationGracePeriodSeconds": 1,
    }
    (tmp_path / "sidecar.yaml").write_text(json.dumps(pod))
    return tmp_path


def made(folder: Path, kind: str, end: str) -> Path:
    path = folder / f"{kind}-one{end}"
    if kind == "folder":
        path.mkdir()
    elif kind == "away":
        return folder / "nowhere" / path.name
    elif kind == "empty":
        path.touch()
    elif kind == "binary":
        path.write_bytes(bytes(range(256)) * 20)
    elif kind == "loop":
        path.symlink_to(path.name)
    return path


def run(line: str, path: Path) -> Result:
    return CliRunner().invoke(main, shlex.split(line.replace("{}", str(path))))


@pytest.mark.parametrize(("line", "end"), CASES, ids=[f"{line}{end}" for line, end in CASES])
def test_a_bad_file_is_named(folder: Path, line: str, end: str) -> None:
    for kind in KINDS:
        path = made(folder, kind, end)
        done = run(line, path)
        case = f"{kind}: {done.exit_code} {done.output}"
        assert done.exception is None or isinstance(done.exception, SystemExit), case
        if kind == "empty" and line.startswith(EMPTY_IS_FINE):
            assert done.exit_code == 0, case
            continue
        assert done.exit_code in (1, 2), case
        assert path.name in done.stderr, case
        assert not any(word in done.stderr for word in FOREIGN), case
        if kind == "missing":
            assert "No such file or directory" in done.stderr, case
        if kind == "away":
            assert "there is no folder" in done.stderr, case


@pytest.mark.parametrize(
    ("line", "near", "wrong"),
    [
        ("config check {}", "understudy.yaml", "understudy.yml"),
        ("slo explain {}", "objectives.yaml", "objective.yaml"),
        ("baseline build {}", "flights.parquet", "flihgts.parquet"),
        ("baseline show {}", "baseline.json", "baselines.json"),
        (f"gate --target {NOWHERE} --plan {{}}", "gate.yaml", "gates.yaml"),
        (f"findings list --url {NOWHERE} --token-file {{}}", "token.txt", "tokens.txt"),
    ],
)
def test_a_file_of_a_similar_name_is_proposed(
    folder: Path, line: str, near: str, wrong: str
) -> None:
    (folder / near).touch()
    done = run(line, folder / wrong)
    assert done.exit_code == 2
    assert f"did you mean {near!r}?" in done.stderr


def test_an_empty_request_for_doctor_is_refused(folder: Path) -> None:
    (folder / "sample.json").write_text("\n")
    done = CliRunner().invoke(main, ["doctor", "good.yaml", "--request", "sample.json"])
    assert done.exit_code == 2
    assert "sample.json: --request must hold the body of a request" in done.stderr
