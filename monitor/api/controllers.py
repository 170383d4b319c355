"""Endpoints for Argo Rollouts and Flagger, which move traffic themselves."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Response
from pydantic import BaseModel, ConfigDict

from understudy.monitor.api.answers import answer
from understudy.monitor.errors import UnknownExperimentError
from understudy.monitor.experiments.contestant import ChallengerState
from understudy.monitor.pipeline.plane import EvaluationPlane
from understudy.shadow.experiment.explanation import outcome_of


class Hook(BaseModel):
    """The body of a Flagger webhook."""

    model_config = ConfigDict(extra="allow")

    name: str = ""
    namespace: str = ""
    phase: str = ""
    metadata: dict[str, str] = {}


def add_controllers(app: FastAPI, plane: EvaluationPlane) -> None:
    """Add the endpoints; they only read."""

    def find(name: str, challenger: str | None) -> ChallengerState:
        experiments = plane.experiments
        if experiments is None:
            raise UnknownExperimentError(
                plane.mode.evaluator_hint() or "this service runs no experiments"
            )
        return experiments.contestant(experiments.find(name), challenger)

    @app.get("/v1/argo/{name}", tags=["controllers"])
    async def argo(
        name: str, challenger: Annotated[str | None, Query(description="Its name.")] = None
    ) -> Response:
        """For the web metric provider of Argo Rollouts: `data.decision` is promote, rollback,
        continue or invalid, and `data.cause` why: harm, no_improvement, limit, split or operator.
        Without evidence it is continue; a number is never NaN."""
        return answer({"data": _data(find(name, challenger))})

    @app.post("/v1/flagger/{name}/{hook}", tags=["controllers"])
    async def flagger(
        name: str,
        hook: Literal["confirm-traffic-increase", "confirm-promotion", "rollback"],
        posted: Hook,
    ) -> Response:
        """A webhook of Flagger: 200 lets it go on, 403 stops it, and the body says why in plain
        words, since it ends up in the events of the canary. For `rollback` 200 means: roll back.
        """
        contestant = find(name, posted.metadata.get("challenger"))
        verdict = contestant.decision.verdict
        allowed = {
            "confirm-traffic-increase": verdict in ("promote", "continue"),
            "confirm-promotion": verdict == "promote",
            "rollback": verdict == "rollback",
        }[hook]
        outcome = outcome_of(verdict, contestant.decision.cause)
        reasons = "; ".join(contestant.decision.reasons)
        return Response(
            f"{name}: {outcome}: {reasons}\n", 200 if allowed else 403, media_type="text/plain"
        )


def _data(contestant: ChallengerState) -> dict[str, Any]:
    decision = contestant.decision
    return {
        "decision": decision.verdict,
        "cause": decision.cause,
        "outcome": outcome_of(decision.verdict, decision.cause),
        "reasons": list(decision.reasons),
        "challenger": contestant.name,
        "phase": contestant.rollout.phase,
        "weight": contestant.rollout.weight,
        "metrics": {
            item.name: {
                "status": item.status,
                "champion": item.estimates[0],
                "challenger": item.estimates[1],
                "difference": item.difference.to_list(),
                "log_e": item.log_pass,
                "log_e_harm": item.log_harm,
            }
            for item in decision.evidence
        },
    }
