"""Objectives of all arms, over the API."""

from __future__ import annotations

from fastapi import FastAPI, Response

from understudy.monitor.api.answers import answer
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.telemetry.objective_status import declared, side_by_side


def add_objectives(app: FastAPI, plane: EvaluationPlane) -> None:
    """GET /v1/objectives."""

    @app.get("/v1/objectives", tags=["objectives"])
    async def objectives() -> Response:
        """Each arm with accuracy, errors, latencies, throughput, cost and energy of the last five
        minutes, each with its source (measured, estimated, absent), the objectives it meets, and
        the arms that are not dominated by another."""
        return answer(side_by_side(plane, declared(plane)))
