"""Run the few tests that failed once more, alone: ``python -m tools.again EXIT_CODE``.

Some hundred tests start real processes. On a machine that another program keeps busy, one of them
can fail because it is short of CPU. Up to three failed tests run a second time, one after the
other, with nothing beside them. A test that fails twice fails the run. One that passes the second
time is named in the last lines, for it depends on the speed of the machine and should be changed.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

MOST = 3
FAILED = Path(".pytest_cache/v/cache/lastfailed")
SOME_FAILED = 1
"""pytest's exit code when the run ended and tests failed."""


def main(exit_code: int) -> int:
    """The exit code of the whole run, given that of the first one."""
    tests = sorted(json.loads(FAILED.read_text())) if FAILED.exists() else []
    if exit_code != SOME_FAILED or not 0 < len(tests) <= MOST:
        return exit_code
    print(f"\n{len(tests)} failed; running them again, alone …", flush=True)
    command = [sys.executable, "-m", "pytest", "-q", "-n", "0", "-p", "no:cacheprovider", *tests]
    code = subprocess.run(command, check=False).returncode
    if code == 0:
        print("\nUNSTABLE: failed at first and passed alone. Please report them:")
        print("\n".join(f"  {name}" for name in tests))
    return code


if __name__ == "__main__":
    sys.exit(main(int(sys.argv[1])))
