"""`tools.mutate` reads again whatever holds something of the module that it changes."""

from __future__ import annotations

import sys

import pytest

from tools.mutate import changes, dependants, module_name


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("understudy/common/units.py", "understudy.common.units"),
        ("understudy/common/codecs/__init__.py", "understudy.common.codecs"),
        ("loadtest/gate/verdict.py", "understudy.loadtest.gate.verdict"),
        ("monitor/slo/burn.py", "understudy.monitor.slo.burn"),
        ("tools/mutate.py", "tools.mutate"),
    ],
)
def test_a_file_has_the_name_by_which_it_is_imported(file: str, name: str) -> None:
    assert module_name(file) == name


def test_who_imports_a_constant_depends_on_its_module() -> None:
    import understudy.monitor.slo.burn

    assert understudy.monitor.slo.burn.DAY == 86_400.0
    found = dependants("understudy.common.units")
    assert {"understudy.common.units", "understudy.monitor.slo.burn"} <= found
    assert "understudy.common.json_items" not in found
    assert found <= {"understudy.common.units", *sys.modules}


def test_changes_of_a_module_and_their_lines() -> None:
    found = [(one.line, one.what) for one in changes("a = 1 if b < 2 else 3\n")]
    assert (1, "b < 2 -> b <= 2") in found
    assert (1, "2 -> 3") in found
    assert all(line == 1 for line, _ in found)


def test_conditions_and_verdicts_are_changed() -> None:
    """A condition without an operator is negated, once; what was not measured becomes a pass."""
    source = """
if late and broken or whole():
    said = [one for one in all_of if one.good]
while waiting:
    said = first if chosen else "not measured"
"""
    found = [one.what for one in changes(source)]
    for what in (
        "one.good -> not one.good",
        "waiting -> not waiting",
        "'not measured' -> 'passed'",
        "first if chosen else 'not measured' -> 'not measured' if chosen else first",
    ):
        assert found.count(what) == 1, what
    assert "chosen -> not chosen" not in found, "its branches are exchanged instead"
