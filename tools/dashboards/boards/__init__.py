"""One module for each dashboard."""

from __future__ import annotations

from collections.abc import Sequence

from tools.dashboards.board import Board
from tools.dashboards.boards import (
    experiments,
    internals,
    latency,
    load,
    overview,
    predictions,
    slo,
)

BOARDS: Sequence[Board] = (
    overview.BOARD,
    latency.BOARD,
    predictions.BOARD,
    experiments.BOARD,
    slo.BOARD,
    load.BOARD,
    internals.BOARD,
)
