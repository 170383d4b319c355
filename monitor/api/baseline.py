"""Baselines, drift and validation over the API."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import FastAPI, Query, Response

from understudy.monitor.api.answers import Refused, answer
from understudy.monitor.baseline.model import Baseline
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.monitor.records.redaction import Redaction


def add_baseline(app: FastAPI, plane: EvaluationPlane) -> None:
    """Add the routes."""

    @app.get("/v1/baseline", tags=["silent failure"])
    async def baseline(
        model: Annotated[str, Query(description="By default the only one.")] = "",
        version: Annotated[str, Query(description="By default the only one.")] = "",
    ) -> Response:
        """The baseline that a model is compared with at present, as `understudy baseline` reads
        it; also one that was learned from live rows. Columns that a rule of `records.redact`
        hides are left out."""
        judge = plane.pipeline.findings_loop
        found = [
            watch.baseline
            for (name, its), watch in (judge.watches.watches.items() if judge is not None else ())
            if model in ("", name) and version in ("", its)
        ]
        if len(found) != 1:
            watched = [
                f"{name} {its}".strip() for name, its in (judge.watches.watches if judge else ())
            ]
            there = ", ".join(watched) or "none"
            code = 404 if not found else 409
            raise Refused(code, f"{len(found)} models fit; with a baseline there are: {there}")
        return answer(_seen(found[0], plane.redaction))

    @app.get("/v1/validation", tags=["silent failure"])
    async def validation() -> Response:
        """Results of the validation cases: of the last round and in total, by arm and kind."""
        judge = plane.pipeline.findings_loop
        room = judge.validation if judge is not None else None
        return answer(room.summary() if room is not None else {"enabled": False})

    @app.get("/v1/drift", tags=["silent failure"])
    async def drift() -> Response:
        """What is watched: each series with its statistic (an alarm at 1), and each rule with its
        rate; the figures by labels with what they assume; and what is declared and not tested."""
        judge = plane.pipeline.findings_loop
        if judge is None:
            return answer({"models": [], "not_tested": []})
        watches = judge.watches
        return answer({"models": watches.summary(), "not_tested": watches.untested()})


def _seen(baseline: Baseline, redaction: Redaction) -> dict[str, Any]:
    """As JSON, without hidden columns: their categories and edges are values of single rows."""
    found = baseline.to_dict()
    columns = {name: one for name, one in found["columns"].items() if not redaction.hides(name)}
    if len(columns) < len(found["columns"]) and found["calibration"] is not None:
        # Regions are defined by values of features.
        found["calibration"] = {k: v for k, v in found["calibration"].items() if k != "regions"}
    return {**found, "columns": columns}
