"""The part of the configuration that says which cases the models have to pass."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from understudy.common.fields import Rate, Seconds
from understudy.monitor.config.fields import File
from understudy.monitor.config.section import Section


class Validation(Section):
    """Validation cases, sent to each model server periodically."""

    cases: File
    """JSON Lines file with golden, invariance, directional, malformed and labelled cases."""
    every: Seconds = 300.0
    """Interval between rounds."""
    model: str | None = None
    """Model of the cases; default: the first one."""
    direct: bool = False
    """Send the cases straight to the model servers. Otherwise they go through a worker of this
    service, if there is one. In both cases they do not count as traffic."""
    timeout: Seconds = 10.0
    """Timeout of each response."""
    max_rate: Annotated[Rate, Field(le=1000.0)] = 5.0
    """Maximum requests per second to a model server."""
