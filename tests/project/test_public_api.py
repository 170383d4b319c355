"""The public API: every name is there, lazily, described, and its example runs."""

from __future__ import annotations

import ast
import doctest
import importlib.util
import inspect
import re
import subprocess
import sys
from pathlib import Path

import pytest

import understudy

ROOT = Path(__file__).resolve().parents[2]
NAMES = [name for name in understudy.__all__ if name != "__version__"]
PATCHES = {"OpenLoopUser"}
"""Importing Locust replaces sockets and threads by gevent's, so it runs in a separate process."""
OPTIONS = doctest.ELLIPSIS | doctest.IGNORE_EXCEPTION_DETAIL


def test_the_three_lists_of_names_are_the_same() -> None:
    assert understudy.__all__ == sorted(understudy.__all__)
    assert set(understudy._WHERE) == set(NAMES)
    tree = ast.parse(Path(understudy.__file__).read_text(encoding="utf-8"))
    (typed,) = [node for node in tree.body if isinstance(node, ast.If)]
    seen = {
        alias.asname or alias.name: f"{node.module}:{alias.name}"
        for node in typed.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }
    assert seen == {name: f"understudy.{where}" for name, where in understudy._WHERE.items()}
    assert understudy.__doc__ is not None
    assert set(NAMES) == set(re.findall(r":(?:class|func):`(\w+)`", understudy.__doc__))


def test_a_name_that_is_not_there() -> None:
    with pytest.raises(AttributeError, match="has no attribute 'Nothing'"):
        _ = understudy.Nothing


@pytest.mark.parametrize("name", [name for name in NAMES if name not in PATCHES])
def test_every_name_has_parameters_described_and_an_example_that_runs(name: str) -> None:
    check_name(name)


@pytest.mark.parametrize("name", sorted(PATCHES))
def test_the_same_for_what_replaces_parts_of_python(name: str) -> None:
    if importlib.util.find_spec("locust") is None:
        pytest.skip("NOT TESTED: Locust is not installed: pip install 'understudy-serving[load]'")
    code = f"from tests.project.test_public_api import check_name; check_name({name!r})"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stdout + done.stderr


def check_name(name: str) -> None:
    found = getattr(understudy, name)
    text = inspect.getdoc(found)
    assert text
    module = sys.modules[found.__module__]
    tests = doctest.DocTestFinder(recurse=False).find(found, name, module, vars(module).copy())
    examples = [example for test in tests for example in test.examples]
    assert examples, "add an example"
    runner = doctest.DocTestRunner(optionflags=OPTIONS)
    for test in tests:
        runner.run(test)
    assert runner.failures == 0
