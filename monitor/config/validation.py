"""The part of the configuration that says which cases the models have to pass."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from understudy.monitor.config.fields import File
from understudy.monitor.config.section import Section
from understudy.monitor.config.units import Seconds


class Validation(Section):
    """Known cases, sent to each model server now and then."""

    cases: File
    """JSON lines: golden, invariance, directional, malformed and labelled cases."""
    every: Seconds = 300.0
    """Between two rounds."""
    model: str | None = None
    """The model that they are for; by default the first one."""
    direct: bool = False
    """Send them straight to the model servers. Otherwise they take the way of the requests, through
    a worker of this service, where there is one; they count as traffic neither way."""
    timeout: Seconds = 10.0
    """For each answer."""
    max_rate: Annotated[float, Field(gt=0.0, le=1000.0, allow_inf_nan=False)] = 5.0
    """Requests per second to a model server."""
