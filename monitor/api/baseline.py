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
        loop = plane.pipeline.findings_loop
        matching = [
            watch.baseline
            for (name, its), watch in (loop.watches.watches.items() if loop is not None else ())
            if model in ("", name) and version in ("", its)
        ]
        if len(matching) != 1:
            watched = [
                f"{name} {its}".strip() for name, its in (loop.watches.watches if loop else ())
            ]
            there = ", ".join(watched) or "none"
            code = 404 if not matching else 409
            raise Refused(code, f"{len(matching)} models fit; with a baseline there are: {there}")
        return answer(_seen(matching[0], plane.redaction))

    @app.get("/v1/validation", tags=["silent failure"])
    async def validation() -> Response:
        """Results of the validation cases: of the last round and in total, by arm and kind."""
        loop = plane.pipeline.findings_loop
        validation_runs = loop.validation if loop is not None else None
        return answer(
            validation_runs.summary() if validation_runs is not None else {"enabled": False}
        )

    @app.get("/v1/drift", tags=["silent failure"])
    async def drift() -> Response:
        """What is watched: each series with its statistic (an alarm at 1), and each rule with its
        rate; the figures by labels with what they assume; and what is declared and not tested."""
        loop = plane.pipeline.findings_loop
        if loop is None:
            return answer({"models": [], "not_tested": []})
        watches = loop.watches
        return answer({"models": watches.summary(), "not_tested": watches.untested()})


def _seen(baseline: Baseline, redaction: Redaction) -> dict[str, Any]:
    """As JSON, without hidden columns: their categories and edges are values of single rows."""
    document = baseline.to_dict()
    columns = {name: one for name, one in document["columns"].items() if not redaction.hides(name)}
    if len(columns) < len(document["columns"]) and document["calibration"] is not None:
        # Regions are defined by values of features.
        document["calibration"] = {
            k: v for k, v in document["calibration"].items() if k != "regions"
        }
    return {**document, "columns": columns}
