"""A short run of the fuzzer, and whether it tells when something is wrong."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from tests.fuzz import codecs_fuzz
from understudy.common.codecs import Decoded, Reason, Table, Undecodable

NONE = Undecodable(Reason.EMPTY)


def test_a_short_run_finds_nothing_and_gets_everywhere() -> None:
    command = [sys.executable, "-m", "tests.fuzz.codecs_fuzz", "--inputs", "8000", "--seed", "3"]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "8,000 inputs, no failure" in done.stdout
    assert re.search(r"8,000 inputs, [\d,]+/s", done.stderr)
    counts = dict(re.findall(r"(\w+): ([\d,]+)", done.stdout))
    elsewhere = {Reason.NOT_CAPTURED, Reason.NOT_READ, Reason.ROWS_DIFFER, Reason.INTERNAL}
    assert set(counts) == {"table", *Reason} - elsewhere
    assert int(counts["table"].replace(",", "")) > 2000


@pytest.mark.parametrize(
    "part",
    [
        Table(("a", "b"), 1, [1]),
        Table((), 1, []),
        Table(("a", "a"), 1, [1, 2]),
        Table(("\ud800",), 1, [1]),
        Undecodable(Reason.INTERNAL),
    ],
)
def test_a_wrong_result_fails_with_a_way_to_repeat_it(
    part: Table | Undecodable, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(codecs_fuzz, "decode_exchange", lambda *_: Decoded("mlflow", NONE, part))
    assert codecs_fuzz.main(["--inputs", "5", "--seed", "9"]) == 1
    told = capsys.readouterr().err
    assert "FAILED: input 0 of seed 9" in told
    assert repr(codecs_fuzz.exchange(9, 0)[1:]) in told
    assert "--seed 9 --only 0" in told


def test_one_input_can_be_run_again(capsys: pytest.CaptureFixture[str]) -> None:
    assert codecs_fuzz.main(["--seed", "9", "--only", "1234", "--quiet"]) == 0
    assert "1 inputs, no failure" in capsys.readouterr().out
    assert codecs_fuzz.exchange(9, 1234) == codecs_fuzz.exchange(9, 1234)
    assert codecs_fuzz.exchange(9, 1234) != codecs_fuzz.exchange(8, 1234)
