"""How the evaluation plane runs: beside the workers, or in a container of its own."""

from __future__ import annotations

import sys

from understudy.monitor.config.model import Config
from understudy.monitor.supervisor.limits import Limits
from understudy.monitor.supervisor.watchdog import MEMORY_SHARE, usable_memory

COMMAND = (sys.executable, "-P", "-m", "understudy.monitor.service")
VARIABLES = {
    # The matrices of the detectors are small: on a busy machine more threads of OpenBLAS spin while
    # they wait for each other, and each has buffers of its own. MALLOC_ARENA_MAX was measured too,
    # and changed nothing.
    "OPENBLAS_NUM_THREADS": "1",
}
"""Environment variables; what the user has set stays."""
FLUSH_PATIENCE = 6.0
"""Seconds that a drained worker may take to hand over its last records."""
PATIENCE = 10.0
"""Seconds that it may take to end, after the workers have ended."""


def limits_of(config: Config) -> Limits:
    """What the evaluation plane may take."""
    watchdog, evaluation = config.watchdog, config.evaluation
    memory = evaluation.memory_limit or int(MEMORY_SHARE * usable_memory())
    return Limits(watchdog.evaluation, watchdog.start, evaluation.nice, memory)
