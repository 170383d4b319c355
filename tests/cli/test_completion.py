"""Completion by Tab, in the shells that are installed."""

from __future__ import annotations

import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.patience import patient
from tests.support.terminal import Terminal, understudy

BIN = Path(sys.executable).parent
INTERACTIVE = {
    "bash": ["bash", "--noprofile", "-i"],
    "zsh": ["zsh", "-i"],
    "fish": ["fish", "-i"],
}


def environment(home: Path, shell: str) -> dict[str, str]:
    path = f"{BIN}:{os.environ['PATH']}"
    # zsh would ask a new user what to put into .zshrc, and fish greet.
    return {
        "HOME": str(home), "PATH": path, "SHELL": f"/bin/{shell}", "ZDOTDIR": str(home),
        "XDG_CONFIG_HOME": str(home / ".config"), "XDG_DATA_HOME": str(home / ".local/share"),
        "PS1": "$ ", "PROMPT": "$ ",
    }  # fmt: skip


def install(home: Path, shell: str) -> str:
    done = subprocess.run(
        understudy("completion", "--install"),
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, **environment(home, shell)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize("shell", INTERACTIVE)
def test_tab_completes_commands_and_options(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    install(tmp_path, shell)
    command = INTERACTIVE[shell]
    with Terminal(command, 80, 24, **environment(tmp_path, shell)) as terminal:
        terminal.press("echo rea''dy\n")
        terminal.wait_for(lambda text: "\nready" in text)
        terminal.press("understudy experim\t")
        terminal.wait_for(lambda text: "understudy experiment" in text)
        terminal.press(" repl\t")
        terminal.wait_for(lambda text: "understudy experiment replay" in " ".join(text.split()))
        terminal.press(" --experim\t")
        terminal.wait_for(lambda text: "replay --experiment" in " ".join(text.split()))


def test_the_script_for_zsh_needs_nothing_before_it(tmp_path: Path) -> None:
    if shutil.which("zsh") is None:
        pytest.skip("zsh is not installed")
    line = f"source <({shlex.join(understudy('completion', 'zsh'))}); echo $_comps[understudy]"
    done = subprocess.run(
        ["zsh", "-f", "-c", line],
        capture_output=True,
        text=True,
        timeout=patient(60),
        env={**os.environ, **environment(tmp_path, "zsh")},
    )
    assert (done.stdout, done.stderr) == ("_understudy_completion\n", "")


def test_installing_twice_changes_nothing_and_keeps_what_was_there(tmp_path: Path) -> None:
    start = tmp_path / ".bashrc"
    start.write_text("alias ll='ls -l'")
    assert f"{start} written" in install(tmp_path, "bash")
    once = start.read_text()
    assert once.startswith("alias ll='ls -l'\n# >>> understudy completion >>>\n")
    assert f"{start} written" not in install(tmp_path, "bash")
    assert start.read_text() == once
    assert subprocess.run(["bash", "-n", str(start)], check=False).returncode == 0


def test_an_unknown_shell_is_named(tmp_path: Path) -> None:
    done = subprocess.run(
        understudy("completion"),
        capture_output=True,
        text=True,
        timeout=60,
        env={**os.environ, "SHELL": "/bin/tcsh"},
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert "name the shell: understudy completion bash|zsh|fish" in done.stderr
