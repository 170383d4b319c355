"""All commands: what their help says, what it costs, and whether its examples are right."""

from __future__ import annotations

import inspect
import os
import subprocess
import sys
from pathlib import Path

import click
import pytest

from tests.support.commands import PATHS, examples, find, parse
from understudy.monitor.cli.main import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
HEAVY = {
    *("numpy", "scipy", "pydantic", "fastapi", "starlette", "uvicorn", "orjson", "yaml", "rich"),
    *("asyncio", "httptools", "pyarrow", "kafka", "locust", "httpx", "prometheus_client"),
}
SMALL = """
version: 1
listen: 127.0.0.1:0
models: [{name: m}]
champion: {url: "http://127.0.0.1:9"}
objectives: {error_rate: "<= 1 %"}
"""
WITHOUT_JSON = {
    "config schema": "prints JSON as it is",
    "gate fault": "prints JSON as it is",
    "gate mesh": "prints manifests",
    "experiment report": "writes a page",
    "completion": "prints a script",
    "evaluate": "logs; --log-format json",
    "serve": "logs; --log-format json",
    "inject serve": "logs JSON",
    "fault-proxy": "is a server",
}


def run(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "understudy", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        cwd=ROOT,
        env={**os.environ, **environment},
    )


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_every_command_has_examples_that_parse(path: tuple[str, ...]) -> None:
    command = find(path)
    lines = examples(command)
    assert lines, "add `Examples:` with a command line"
    for words in lines:
        context = parse(words)
        assert path == tuple(words[1 : 1 + len(path)]), "an example of another command"
        if not isinstance(command, click.Group):
            assert context.command is command


def test_an_example_with_a_wrong_option_does_not_parse() -> None:
    with pytest.raises(click.NoSuchOption):
        parse(["understudy", "findings", "list", "--severty", "critical"])
    with pytest.raises(click.MissingParameter):
        parse(["understudy", "experiment", "watch"])
    with pytest.raises(click.UsageError):
        parse(["understudy", "experiment", "wach", "a"])


@pytest.mark.parametrize("entry", COMMANDS, ids=lambda entry: entry.name)
def test_the_table_has_the_first_lines_of_the_helps(entry: object) -> None:
    from understudy.monitor.cli.main import Entry

    assert isinstance(entry, Entry)
    command = find((entry.name,))
    assert inspect.cleandoc(command.help or "").splitlines()[0].rstrip(".") == entry.help
    assert command.name == entry.name


def test_the_table_is_sorted_and_names_each_command_once() -> None:
    names = [entry.name for entry in COMMANDS]
    assert names == sorted(set(names))


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_help_lists_what_the_command_takes(path: tuple[str, ...]) -> None:
    for parameter in find(path).params:
        if isinstance(parameter, click.Option):
            assert parameter.help, parameter.name


@pytest.mark.parametrize("path", PATHS, ids=" ".join)
def test_commands_print_json_or_say_why_not(path: tuple[str, ...]) -> None:
    command = find(path)
    if isinstance(command, click.Group) and not command.invoke_without_command:
        return
    has = any("--json" in parameter.opts for parameter in command.params)
    assert has != (" ".join(path) in WITHOUT_JSON)


def test_shared_options_are_the_same_everywhere() -> None:
    seen: dict[str, set[tuple[object, ...]]] = {}
    for path in PATHS:
        for one in find(path).params:
            for name in ("--json", "--url", "--token-file"):
                if isinstance(one, click.Option) and name in one.opts:
                    seen.setdefault(name, set()).add((one.name, one.help, str(one.default)))
    assert {name: len(forms) for name, forms in seen.items()} == {
        "--json": 2,  # one document, or lines of a stream
        "--url": 1,
        "--token-file": 1,
    }


def test_no_help_imports_what_only_the_command_needs() -> None:
    code = (
        "import sys\nfrom understudy.monitor.cli.main import main\n"
        f"for path in {PATHS!r}:\n"
        "    try: main([*path, '--help'])\n"
        "    except SystemExit as end: assert end.code == 0, path\n"
        "    print('=', '-'.join(('main', *path)), *{m.partition('.')[0] for m in sys.modules})\n"
        "    if not path: print('#', *[m for m in sys.modules if '.cli.' in m])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    loaded = [line.split()[1:] for line in lines if line.startswith("= ")]
    assert len(loaded) == len(PATHS)
    for path, *modules in loaded:
        assert not HEAVY & set(modules), path
    # The list of commands imports no command.
    (first,) = [line.split()[1:] for line in lines if line.startswith("#")]
    assert first == ["understudy.monitor.cli.main"]


CALLS = {"httpx", "rich"}
"""What a call of the control API needs; httpx imports rich where it is installed."""


@pytest.mark.parametrize(
    ("arguments", "allowed"),
    [
        (("version",), set[str]()),
        (("--version",), set[str]()),
        (("config", "check", "SMALL"), {"pydantic", "yaml"}),
        (("config", "schema"), {"pydantic", "yaml"}),
        (("config", "check", "docs/understudy.yaml"), {"pydantic", "yaml", "numpy", "scipy"}),
        (("slo", "explain", "SMALL"), {"pydantic", "yaml"}),
        (("top", "--once", "--url", "http://127.0.0.1:9"), CALLS),
        (("experiment", "status", "--url", "http://127.0.0.1:9"), CALLS),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, tuple) else "",
)
def test_a_command_imports_only_what_it_needs(
    arguments: tuple[str, ...], allowed: set[str], tmp_path: Path
) -> None:
    small = tmp_path / "understudy.yaml"
    small.write_text(SMALL)
    words = [str(small) if word == "SMALL" else word for word in arguments]
    code = (
        "import sys\nfrom understudy.monitor.cli.main import main\n"
        f"try: main({words!r})\nexcept SystemExit as end: print(end.code)\n"
        "print(); print(*{m.partition('.')[0] for m in sys.modules})"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60
    )
    *_, code_line, _, modules = ["", *done.stdout.splitlines()]
    assert code_line == ("1" if "--url" in words else "0"), done.stderr
    loaded = set(modules.split())
    assert loaded & HEAVY <= allowed


def test_commands_of_other_distributions(tmp_path: Path) -> None:
    """They are listed without being imported, and cannot take a name of ours."""
    info = tmp_path / "example_plugin-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: example-plugin\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(
        "[understudy.commands]\nhello = example_plugin:hello\nversion = example_plugin:hello\n"
    )
    (tmp_path / "example_plugin.py").write_text(
        "import click\nprint('imported')\n\n@click.command()\ndef hello(): print('hello there')\n"
    )
    path = {"PYTHONPATH": str(tmp_path)}
    shown = run("--help", **path)
    assert shown.returncode == 0
    assert "hello        Of example-plugin\n" in shown.stdout
    assert "imported" not in shown.stdout
    assert run("hello", **path).stdout == "imported\nhello there\n"
    assert "imported" not in run("version", **path).stdout
    assert "hello" not in run("--help").stdout


def test_the_help_names_the_default_of_the_report() -> None:
    from understudy.monitor.health.report.analysis import SMALLEST

    (option,) = [o for o in find(("drift", "report")).params if o.name == "smallest"]
    assert isinstance(option, click.Option)
    assert option.default == SMALLEST


def test_a_token_file_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    missing, empty = tmp_path / "missing", tmp_path / "empty"
    empty.write_text("\n")
    for file, message in (
        (missing, "--token-file cannot be read: No such file or directory"),
        (empty, "--token-file must hold one line: the bearer token"),
    ):
        done = run("experiment", "status", "--token-file", str(file))
        assert (done.returncode, done.stderr) == (2, f"{file}: {message}\n")
