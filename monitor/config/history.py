"""The part of the configuration about the history of what was measured."""

from __future__ import annotations

from pydantic import Field

from understudy.common.fields import Bytes
from understudy.monitor.config.section import Section


class History(Section):
    """The history that the console's charts and `/v1/history` show: requests, errors and latencies
    by arm, and what is watched; kept in the state folder."""

    max_size: Bytes = Field(default=64 * 1024 * 1024, ge=1024 * 1024)
    """Size of all files. Within it, slots of ten seconds are kept for six hours, of a minute for
    two days, of fifteen minutes for thirty days; each has a third, and gives up its oldest part
    when that is full."""
