"""The short forms of the long runs of the fuzzers."""

from __future__ import annotations

import importlib

import pytest

from benchmarks.__main__ import NAMES
from benchmarks.fuzz import run


@pytest.mark.parametrize("name", ["fuzz-requests", "fuzz-answers", "fuzz-codecs"])
def test_a_run_reports_its_inputs(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "QUICK", 500)
    result = importlib.import_module(NAMES[name]).run(quick=True)
    assert [claim.met for claim in result.claims] == [True, True]
    assert result.measurements["inputs"] == 500
    assert result.measurements["failure"] is None
    assert sum(result.measurements["outcomes"].values()) >= 500


def test_a_failure_is_in_the_result_with_how_to_repeat_it() -> None:
    arguments = ["tests.fuzz.proxy_fuzz", "--target", "nothing"]
    result = run.fuzzed("fuzz-requests", "an input", arguments, quick=True)
    assert [claim.met for claim in result.claims] == [False, False]
    assert "--target" in result.measurements["failure"]
    assert "--target" in result.markdown()
