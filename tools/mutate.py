"""Changes one operator, bound or constant of a module after the other, and sees whether a test notices.

``python -m tools.mutate loadtest/gate/verdict.py tests/loadtest/test_verdict.py`` works on a copy of
the tree, as :mod:`tools.mutations` does for the guards in its table. It prints the changes that no test
noticed and exits with 1 if there are any: some of them change nothing that matters, so look at each.
``--lines 40-90`` restricts the changes to those lines.
"""

from __future__ import annotations

import argparse
import ast
import copy
import os
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.mutations import ROOT, Tree

_PATIENCE = 120.0
"""Seconds for the tests of one change."""

_COMPARED: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
}
_COMPUTED: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub, ast.Sub: ast.Add, ast.Mult: ast.Div, ast.Div: ast.Mult,
    ast.BitAnd: ast.BitOr, ast.BitOr: ast.BitAnd,
}  # fmt: skip
_CALLED = {"min": "max", "max": "min", "any": "all", "all": "any"}
_VERDICTS = {
    "passed": ("failed",), "failed": ("passed", "invalid"), "invalid": ("passed", "failed"),
    "met": ("missed",), "missed": ("met", "open"), "open": ("met", "missed"),
    "not measured": ("passed",), "shown": ("passed",), "cannot be told": ("same",),
}  # fmt: skip
_PLAIN = (ast.Name, ast.Attribute, ast.Call, ast.Subscript, ast.NamedExpr)
"""Conditions with no operator of their own: they are negated."""
_TYPES = ("annotation", "returns", "decorator_list", "bases")


@dataclass(frozen=True, slots=True)
class Change:
    """The text of a module in which one thing is different."""

    line: int
    what: str
    text: str


def changes(source: str) -> Iterator[Change]:
    """All changes of a module, in the order of its lines."""
    tree = ast.parse(source)
    found: list[Change] = []
    for parent in _code(tree):
        for field, value in ast.iter_fields(parent):
            if field in _TYPES:
                continue
            children = value if isinstance(value, list) else [value]
            for index, child in enumerate(children):
                if not isinstance(child, ast.expr):
                    continue
                asked = field == "test" or (field == "ifs" and isinstance(value, list))
                negated = asked and isinstance(child, _PLAIN) and not isinstance(parent, ast.IfExp)
                for fresh in (*_instead(child), *((_negation(child),) if negated else ())):
                    if isinstance(value, list):
                        value[index] = fresh
                    else:
                        setattr(parent, field, fresh)
                    what = f"{ast.unparse(child)} -> {ast.unparse(fresh)}"
                    found.append(Change(child.lineno, what, ast.unparse(tree)))
                if isinstance(value, list):
                    value[index] = child
                else:
                    setattr(parent, field, child)
    yield from sorted(found, key=lambda one: one.line)


def _negation(node: ast.expr) -> ast.expr:
    return ast.copy_location(ast.UnaryOp(ast.Not(), node), node)


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """Every node but those of types, docstrings and texts that are put together."""
    if (
        isinstance(node, ast.JoinedStr)
        or (isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant))
        or (isinstance(node, ast.Subscript) and ast.unparse(node.value) == "Literal")
    ):
        return
    yield node
    for field, value in ast.iter_fields(node):
        if field not in _TYPES:
            for child in value if isinstance(value, list) else [value]:
                if isinstance(child, ast.AST):
                    yield from _code(child)


def _instead(node: ast.expr) -> Iterator[ast.expr]:
    if isinstance(node, ast.Compare):
        for index, operator in enumerate(node.ops):
            for other in _COMPARED.get(type(operator), ()):
                fresh = copy.deepcopy(node)
                fresh.ops[index] = other()
                yield fresh
    elif isinstance(node, ast.BoolOp):
        other_op = ast.Or() if isinstance(node.op, ast.And) else ast.And()
        yield ast.copy_location(ast.BoolOp(other_op, node.values), node)
    elif isinstance(node, ast.UnaryOp) and isinstance(node.op, (ast.Not, ast.Invert)):
        yield node.operand
    elif isinstance(node, ast.BinOp) and type(node.op) in _COMPUTED:
        yield ast.copy_location(ast.BinOp(node.left, _COMPUTED[type(node.op)](), node.right), node)
    elif isinstance(node, ast.IfExp):
        yield ast.copy_location(ast.IfExp(node.test, node.orelse, node.body), node)
    elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id in _CALLED:
            fresh_call = copy.deepcopy(node)
            fresh_call.func = ast.Name(_CALLED[node.func.id], ast.Load())
            yield ast.copy_location(fresh_call, node)
    elif isinstance(node, ast.Constant):
        for value in _values(node.value):
            yield ast.copy_location(ast.Constant(value), node)


def _values(value: object) -> tuple[Any, ...]:
    if isinstance(value, bool):
        return (not value,)
    if isinstance(value, int):
        return (value + 1, value - 1)
    if isinstance(value, float):
        return (value * 1.25, value * 0.75) if value else (1.0,)
    return _VERDICTS.get(value, ()) if isinstance(value, str) else ()


def _pytest(tests: Sequence[str]) -> int:
    import pytest

    return int(pytest.main(["-q", "-x", "-n", "0", "-p", "no:cacheprovider", *tests]))


def module_name(file: str) -> str:
    """The name under which the code imports a file of the repository."""
    name = file.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
    return name if name.split(".")[0] in ("understudy", "tools", "tests") else f"understudy.{name}"


def _imported(name: str, source: str) -> set[str]:
    """Names of modules that a module may import, at whatever place of it."""
    found = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {one.name for one in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = node.module or ""
            if node.level:
                start = name.rsplit(".", node.level)[0]
                package = f"{start}.{package}" if package else start
            found |= {package, *(f"{package}.{one.name}" for one in node.names)}
    return found


def dependants(module: str) -> set[str]:
    """The module and all of ours that are loaded and import it, directly or not: constants that
    they hold show no trace of it."""
    imports = {}
    for name, loaded in list(sys.modules.items()):
        file = getattr(loaded, "__file__", None)
        if file and name.startswith(("understudy", "tests", "tools")) and file.endswith(".py"):
            imports[name] = _imported(name, Path(file).read_text(encoding="utf-8"))
    found, grown = {module}, True
    while grown:
        more = {name for name, its in imports.items() if name not in found and its & found}
        grown = bool(more)
        found |= more
    return found


def _forget(names: set[str]) -> None:
    """Forget modules, so that they are read from their files at the next import."""
    for name in names:
        sys.modules.pop(name, None)
        package, _, last = name.rpartition(".")
        # `from package import module` would find it there.
        if package in sys.modules:
            vars(sys.modules[package]).pop(last, None)


def _noticed(forgotten: set[str], tests: Sequence[str]) -> bool:
    """Whether a test fails when these modules are read again, in a fork of this process, which has
    run the tests before."""
    child = os.fork()
    if not child:
        code = 70
        try:
            _forget(forgotten)
            code = _pytest(tests)
        finally:
            os._exit(code)
    end = time.monotonic() + _PATIENCE
    while not (done := os.waitpid(child, os.WNOHANG))[0]:
        if time.monotonic() > end:
            os.kill(child, signal.SIGKILL)  # an endless loop, most likely
            os.waitpid(child, 0)
            return True
        time.sleep(0.01)
    return done[1] != 0


def run(module: str, tests: Sequence[str], lines: range) -> int:
    """Try all changes of ``module`` in ``lines``; 0 when every one was noticed."""
    with tempfile.TemporaryDirectory(prefix="understudy-mutate-") as folder:
        tree = Tree(Path(folder))
        os.chdir(tree.path)
        sys.path.insert(0, str(tree.path))
        if _pytest(tests) != 0:
            print("the tests fail without a change: nothing can be learned from them")
            return 1
        source = (tree.path / module).read_text(encoding="utf-8")
        chosen = [one for one in changes(source) if one.line in lines]
        forgotten = dependants(module_name(module))
        survived = 0
        sys.stdout.flush()
        with open(os.devnull, "w") as nowhere:
            out = os.dup(1)
            os.dup2(nowhere.fileno(), 1)
            tree.write(module, f"raise ImportError({module!r})\n")
            reached = _noticed(forgotten, tests)
            tree.write(module, ast.unparse(ast.parse(source)))
            alone = _noticed(forgotten, tests)
            for one in chosen if reached and not alone else ():
                tree.write(module, one.text)
                if not _noticed(forgotten, tests):
                    survived += 1
                    os.write(out, f"survived {module}:{one.line}: {one.what}\n".encode())
            os.dup2(out, 1)
        if not reached:
            print(f"the tests pass without {module}: nothing can be learned from them")
            os.chdir(ROOT)
            return 1
        if alone:
            print(
                f"the tests fail when {module} is only read again, so every change would be "
                "noticed: leave out those that keep an object of it"
            )
            os.chdir(ROOT)
            return 1
        print(f"{len(chosen) - survived} of {len(chosen)} changes were noticed")
        os.chdir(ROOT)
    return 1 if survived else 0


def main(arguments: Sequence[str]) -> int:
    """From the command line."""
    parser = argparse.ArgumentParser(
        prog="tools.mutate", description=(__doc__ or "").splitlines()[0]
    )
    parser.add_argument("module")
    parser.add_argument("tests", nargs="+")
    parser.add_argument("--lines", default="1-1000000")
    given = parser.parse_args(arguments)
    first, _, last = given.lines.partition("-")
    return run(given.module, given.tests, range(int(first), int(last or first) + 1))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
