"""``understudy completion``: complete commands and options by Tab, in bash, zsh and fish."""

from __future__ import annotations

import os
import shlex
from pathlib import Path

import click

from understudy.common.terminal import echo, echo_lines

SHELLS = ("bash", "zsh", "fish")
_PROGRAM = "understudy"
_BEGIN = "# >>> understudy completion >>>"
_END = "# <<< understudy completion <<<"


@click.command("completion")
@click.argument("shell", type=click.Choice(SHELLS), required=False)
@click.option(
    "--install",
    is_flag=True,
    help="Write the script to your home folder, and load it from .bashrc or .zshrc.",
)
def completion(shell: str | None, install: bool) -> None:
    """Print the completion script of SHELL, or install it; by default for the shell in $SHELL.

    It takes effect in new shells. To remove it, delete the marked lines in .bashrc or .zshrc; in
    fish, the file that --install names.

    \b
    Examples:
      understudy completion --install
      understudy completion zsh > _understudy
    """
    name = shell or Path(os.environ.get("SHELL", "")).name
    if name not in SHELLS:
        raise click.UsageError(f"name the shell: {_PROGRAM} completion {'|'.join(SHELLS)}")
    script = script_of(name)
    if not install:
        echo_lines(script)
        return
    try:
        written = _install(name, script)
    except OSError as error:
        raise click.ClickException(
            f"{error.filename}: cannot be written: {error.strerror}"
        ) from error
    for path in written:
        echo(f"{path} written")
    echo(f"open a new {name}, and press Tab after: {_PROGRAM} ")


def script_of(shell: str) -> str:
    """The script that makes ``shell`` ask this command for completions."""
    from click.shell_completion import get_completion_class

    from understudy.monitor.cli.main import main

    found = get_completion_class(shell)
    assert found is not None
    template = found(main, {}, _PROGRAM, f"_{_PROGRAM.upper()}_COMPLETE")
    script = template.source_template % template.source_vars()
    if shell == "zsh":
        # compdef exists only after compinit, which a new .zshrc does not call.
        first, _, rest = script.partition("\n")
        needed = "(( $+functions[compdef] )) || { autoload -Uz compinit && compinit }"
        script = f"{first}\n{needed}\n{rest}"
    return script


def _install(shell: str, script: str) -> list[Path]:
    """Write the script, and the lines that load it; the files that were written."""
    home = Path.home()
    if shell == "fish":
        config = Path(os.environ.get("XDG_CONFIG_HOME") or home / ".config")
        file = config / "fish" / "completions" / f"{_PROGRAM}.fish"
        return [_write(file, script)]
    data = Path(os.environ.get("XDG_DATA_HOME") or home / ".local" / "share")
    file = _write(data / _PROGRAM / f"completion.{shell}", script)
    load = f"[ -f {shlex.quote(str(file))} ] && . {shlex.quote(str(file))}"
    start = home / ".bashrc"
    if shell == "zsh":
        start = Path(os.environ.get("ZDOTDIR") or home) / ".zshrc"
    before = start.read_text(encoding="utf-8") if start.exists() else ""
    lines = f"{_BEGIN}\n{load}\n{_END}\n"
    if _BEGIN in before and _END in before:
        head, _, rest = before.partition(_BEGIN)
        after = head + lines + rest.partition(_END)[2].removeprefix("\n")
    else:
        after = before + ("\n" if before and not before.endswith("\n") else "") + lines
    return [file] if after == before else [file, _write(start, after)]


def _write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path
