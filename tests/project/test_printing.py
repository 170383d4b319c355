"""Everything on a terminal goes through the two modules that escape texts of users."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
THROUGH = ("understudy/common/terminal.py", "understudy/common/screen.py")
PRINTS = {"click.echo", "click.secho", "click.echo_via_pager", "print"}
STREAMS = {"sys.stdout.write", "sys.stderr.write"}


def sources() -> Iterator[Path]:
    for folder in ("monitor", "loadtest", "shadow", "understudy/common"):
        yield from (ROOT / folder).rglob("*.py")


def faults(tree: ast.AST) -> list[str]:
    found = []
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = ast.unparse(node.func)
            # Constants are ours: a child process reports "ready" to its parent like this.
            written = node.args and not isinstance(node.args[0], ast.Constant)
            if name in PRINTS or (name in STREAMS and written):
                found.append(f"line {node.lineno}: {name}")
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom):
            names = [node.module or ""]
            if node.module == "click":
                names += [f"click.{alias.name}" for alias in node.names]
        found += [
            f"line {node.lineno}: {name}"  # type: ignore[attr-defined]  # it is an import
            for name in names
            if name == "rich" or name.startswith("rich.") or name in PRINTS
        ]
    return found


@pytest.mark.parametrize(
    "code",
    [
        "print(name)",
        "click.echo(name)",
        "sys.stdout.write(name)",
        "from rich.console import Console",
        "import rich.table",
        "from click import echo",
    ],
)
def test_each_other_way_is_found(code: str) -> None:
    assert len(faults(ast.parse(code))) == 1


def test_there_is_no_other_way() -> None:
    found = {}
    for path in sources():
        name = path.relative_to(ROOT).as_posix()
        if name not in THROUGH:
            found[name] = faults(ast.parse(path.read_text(encoding="utf-8")))
    assert len(found) > 300
    assert {name: what for name, what in found.items() if what} == {}
