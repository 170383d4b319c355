"""Memory that is freed goes back to the system."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from understudy.monitor.gc_tuning import release_memory

PAGE = os.sysconf("SC_PAGE_SIZE")


def resident() -> int:
    """Bytes of this process."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * PAGE


@pytest.mark.skipif(
    "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="only glibc can be asked"
)
def test_memory_of_start_up_is_returned() -> None:
    # Larger than what Python keeps in pools of its own, and smaller than what the system maps.
    blocks = [bytes(2_000) for _ in range(40_000)]
    newest = bytes(2_000)
    full = resident()
    del blocks
    release_memory()
    assert resident() < full - 40_000_000
    assert len(newest) == 2_000
