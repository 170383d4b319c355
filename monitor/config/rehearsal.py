"""The part of the configuration that declares injected errors, to rehearse a failing model."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from understudy.common.fields import Ratio
from understudy.monitor.config.fields import Name
from understudy.monitor.config.section import Section


class Fault(Section):
    """Injected errors: requests to an arm get an error status instead of the model's response."""

    arm: Name = "champion"
    """The arm: the champion, or a challenger that serves clients."""
    share: Annotated[Ratio, Field(gt=0.0)]
    """Share of the requests, sampled independently."""
    status: Annotated[int, Field(ge=500, le=599)] = 503
    """Status that the client gets; it counts as an error of the model."""
