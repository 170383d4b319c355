"""Errors on purpose, to rehearse what happens when a model fails."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from understudy.monitor.config.fields import Name
from understudy.monitor.config.section import Section


class Fault(Section):
    """Errors in a model's place: requests that it would have served are answered with a status."""

    arm: Name = "champion"
    """Whose requests: the champion's, or those of a challenger that serves clients."""
    share: Annotated[float, Field(gt=0.0, le=1.0)]
    """Part of the requests, drawn anew for each."""
    status: Annotated[int, Field(ge=500, le=599)] = 503
    """What the client gets; it is counted as the model's own error."""
