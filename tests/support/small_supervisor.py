"""The supervisor with small children and short waits; prints the same line when all are ready."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from understudy.monitor.errors import UnderstudyError
from understudy.monitor.logs import set_up
from understudy.monitor.supervisor.child import BackOff
from understudy.monitor.supervisor.supervisor import Supervisor

CHILD = (sys.executable, str(Path(__file__).with_name("small_child.py")))


def announce(supervisor: Supervisor) -> None:
    control = supervisor.control_address
    print(f"ready: http://{supervisor.address} status http://{control}/", flush=True)


async def run() -> int:
    back_off = BackOff(first=0.05, longest=0.2, healthy=600.0, linger=0.3)
    return await Supervisor(Path(sys.argv[1]), announce, CHILD, CHILD, back_off).run()


set_up()
try:
    code = asyncio.run(run())
except UnderstudyError as error:
    print(error, file=sys.stderr)
    code = error.exit_code
sys.exit(code)
