"""The command as a user runs it."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import patient
from tests.support.service import ROOT
from understudy import __version__

GOOD = """
version: 1
listen: 127.0.0.1:0
models: [{name: m}]
champion: {url: "http://127.0.0.1:9"}
"""


def understudy(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "understudy", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=patient(60),
        cwd=ROOT,
    )


def test_what_load_tests_need_is_said_where_it_is_not_installed() -> None:
    """Exit code 1 of a gate is a verdict: a package that is missing must not look like one."""
    code = "import sys; sys.modules['chaoslib'] = None; from understudy.monitor.cli.main import main; main()"

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", code, *arguments]
        return subprocess.run(
            command, capture_output=True, text=True, timeout=patient(60), cwd=ROOT
        )

    for arguments in (("gate", "--plan", "gate.yaml"), ("gate", "--help"), ("gate", "compare")):
        done = run(*arguments)
        said = "understudy: gate needs chaoslib: pip install 'understudy-serving[load]'\n"
        assert (done.returncode, done.stderr) == (2, said)
    shown = run("--help")
    assert shown.returncode == 0
    assert "gate needs chaoslib" in shown.stdout


def test_the_supervisor_imports_nothing_of_the_evaluation_plane() -> None:
    code = (
        "import sys, understudy.monitor.supervisor.supervisor\n"
        "print([m for m in ('numpy', 'scipy', 'fastapi', 'rich', 'orjson', 'uvloop')"
        " if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.stdout.strip() == "[]", done.stderr


def test_version() -> None:
    said = understudy("version").stdout
    assert re.fullmatch(
        rf"understudy {re.escape(__version__)} \((pure Python: .+|compiled .+)\)\n", said
    )


def test_check_of_a_good_file(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(GOOD)
    done = understudy("config", "check", file)
    assert (done.returncode, done.stdout, done.stderr) == (0, f"{file}: valid\n", "")


def test_check_has_one_line_for_each_problem(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(GOOD + "limits: {drain: x, heda: 1}\n")
    done = understudy("config", "check", file)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        f"{file}: limits.drain: not a valid duration: 'x' (examples: 30s, 5m)",
        f"{file}: limits.heda: unknown key; did you mean 'head'?",
    ]


def test_check_for_machines(tmp_path: Path) -> None:
    file = tmp_path / "a.yaml"
    file.write_text(GOOD + "version: 1\n")
    done = understudy("config", "check", "--json", file)
    assert done.returncode == 2
    answer = json.loads(done.stdout)
    assert answer["valid"] is False
    assert answer["problems"] == [
        {"path": "", "message": "line 6, column 1: duplicate key 'version'"}
    ]
    file.write_text(GOOD)
    done = understudy("config", "check", "--json", file)
    assert (done.returncode, json.loads(done.stdout)["valid"]) == (0, True)


def test_schema_is_json() -> None:
    schema = json.loads(understudy("config", "schema").stdout)
    assert schema["title"] == "Understudy configuration"
    assert set(schema["required"]) == {"version", "listen", "models", "champion"}


@pytest.mark.parametrize("text", [None, "", GOOD + "limitz: {}\n"])
def test_serve_refuses_an_invalid_file(tmp_path: Path, text: str | None) -> None:
    file = tmp_path / "a.yaml"
    if text is not None:
        file.write_text(text)
    done = understudy("serve", "--config", file)
    assert done.returncode == 2
    assert done.stderr.startswith(f"{file}: ")
    assert "Traceback" not in done.stderr
    assert len(done.stderr.splitlines()) == 1
