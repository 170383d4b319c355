"""Every command ends with a code of the one table, says why, and keeps standard output clean."""

from __future__ import annotations

import inspect
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from tests.support.commands import PATHS, examples, find
from tests.support.ports import free_port
from tools.man_page import walk
from understudy.monitor.cli.exit_codes import GENERAL, SPECIAL
from understudy.monitor.cli.main import main

RUN = [(" ".join(path), command) for path, command in walk()]
"""Commands that can be run."""
SERVERS = {"demo", "fault-proxy", "inject serve"}
"""They need no file that could be missing, and would run."""
NEED_NOTHING = {"completion", "config schema", "gate fault", "version"}


def codes_of(command: str) -> set[int]:
    return set(GENERAL) | set(SPECIAL.get(command, {}))


def test_the_table_names_commands_that_exist() -> None:
    assert set(SPECIAL) <= {name for name, _ in RUN}
    assert set(GENERAL) == {0, 1, 2}


@pytest.mark.parametrize(("name", "command"), RUN, ids=[name for name, _ in RUN])
def test_codes_in_a_help_are_those_of_the_table(name: str, command: click.Command) -> None:
    text = " ".join(inspect.cleandoc(command.help or "").split())
    texts = [text, *(one.help or "" for one in command.params if isinstance(one, click.Option))]
    for part in texts:
        for sentence in re.findall(r"[^.]*\b(?:[Ee]xits?|[Ee]xit code(?: is)?)\b[^.]*\.", part):
            found = {int(code) for code in re.findall(r"\b(1[012]|[0-3])\b", sentence)}
            assert found <= codes_of(name), sentence
            special = set(SPECIAL.get(name, {}))
            assert found - {0, 2} <= special | {0}, f"not in the table: {sentence}"


@pytest.mark.parametrize(("name", "command"), RUN, ids=[name for name, _ in RUN])
def test_an_unknown_option_is_code_2_and_named(name: str, command: click.Command) -> None:
    done = CliRunner().invoke(main, [*name.split(), "--no-such-option"])
    assert done.exit_code == 2
    assert done.stdout == ""
    assert "--no-such-option" in done.stderr
    assert "--help" in done.stderr


def test_examples_where_nothing_is_there_end_with_a_code_of_the_table(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands of all helps, in an empty folder and without a service: each fails with a code
    of the table, and a message on standard error alone."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SHELL", "/bin/bash")
    nowhere = f"http://127.0.0.1:{free_port()}"
    seen = set()
    for path in PATHS:
        name = " ".join(path)
        command = find(path)
        if name not in dict(RUN) or name in SERVERS:
            continue
        for words in examples(command):
            if tuple(words[1 : 1 + len(path)]) != path or "--install" in words:
                continue
            arguments = words[1:]
            options = {option for one in command.params for option in one.opts}
            if "--url" in options and "--url" not in arguments:
                arguments += ["--url", nowhere]
            if "--json" in options and "--json" not in arguments:
                arguments.append("--json")
            arguments = [nowhere if re.match(r"https?://", word) else word for word in arguments]
            done = CliRunner().invoke(main, arguments)
            case = f"{arguments}: {done.exit_code} {done.output}"
            assert done.exception is None or isinstance(done.exception, SystemExit), case
            assert done.exit_code in codes_of(name), case
            if name in NEED_NOTHING or "--protocol" in words:  # then `init` asks no server
                assert done.exit_code == 0, case
            else:
                assert done.exit_code in (1, 2), case
                if done.stdout:
                    json.loads(done.stdout)  # `config check` reports the missing file as JSON
                else:
                    assert done.stderr.strip(), case
            seen.add(name)
    assert seen == set(dict(RUN)) - SERVERS


def test_the_man_page_is_readable() -> None:
    page = Path(__file__).resolve().parents[2] / "understudy" / "common" / "understudy.1"
    text = page.read_text()
    assert text.startswith('.\\" Written by make docs.\n.TH UNDERSTUDY 1')
    for name, _ in RUN:
        assert f".SS understudy {name}".replace("-", "\\-") in text
    if shutil.which("man") is None:
        pytest.skip("man is not installed")
    done = subprocess.run(
        ["man", "--warnings", "-l", str(page)],
        capture_output=True,
        text=True,
        env={**os.environ, "MANWIDTH": "78", "LC_ALL": "C.UTF-8"},
        timeout=60,
    )
    assert done.returncode == 0
    assert not done.stderr, done.stderr
    assert "EXIT STATUS" in done.stdout
