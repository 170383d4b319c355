"""Short runs of the fuzzer, and whether it tells when something is wrong; ``python -m benchmarks
fuzz-requests fuzz-answers`` makes long ones."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

FUZZ = "tests.fuzz.proxy_fuzz"


def run(*arguments: str, **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments],
        capture_output=True,
        text=True,
        env={**os.environ, **variables},
    )


@pytest.mark.parametrize("target", ["requests", "answers"])
def test_a_short_run_finds_nothing_and_gets_everywhere(target: str) -> None:
    done = run("-m", FUZZ, "--target", target, "--inputs", "4000", "--quiet", "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["inputs"] == 4000
    passed = sum(found["outcomes"].get(name, 0) for name in ("ok", "client_error", "server_error"))
    others = ("refused",) if target == "requests" else ("garbage", "upstream_reset")
    assert all(found["outcomes"].get(name) for name in others)
    assert min(passed, sum(found["outcomes"][name] for name in others)) > 400
    assert found["outcomes"]["tunnel"] > 0


WRONG = {
    "a length that is one too small": """
import understudy.monitor.proxy.upstream as module
real = module.parse_response
def wrong(*arguments):
    head = real(*arguments)
    head.length -= head.length > 1
    return head
module.parse_response = wrong
""",
    "a chunk size that is read as a decimal": """
import understudy.monitor.proxy.framing as module
real = int
module.int = lambda text, base=10: real(text, 10 if base == 16 and text.isdigit() else base)
""",
    "a body that lacks a byte": """
from understudy.monitor.proxy.exchange import Exchange
real = Exchange.on_body
Exchange.on_body = lambda self, body, done: real(self, body[:-1], done)
""",
}


@pytest.mark.parametrize("wrong", WRONG)
def test_a_wrong_parser_is_found_with_a_way_to_repeat_it(wrong: str) -> None:
    code = (
        f"{WRONG[wrong]}\n"
        "import sys\n"
        f"from {FUZZ} import main\n"
        "sys.argv = ['fuzz', '--target', 'answers', '--inputs', '2000', '--quiet']\n"
        "sys.exit(main())"
    )
    # Only the sources can be made wrong from outside.
    done = run("-c", code, UNDERSTUDY_PURE="1")
    assert done.returncode == 1
    assert "FAILED" in done.stderr
    assert "again: --target answers --seed 1 --first " in done.stderr
