"""Labels and rewards over the API."""

from __future__ import annotations

from collections import Counter

from fastapi import FastAPI, Request, Response

from monitor.api.answers import answer, changing, refusal
from monitor.errors import StateError
from monitor.evaluation.plane import Plane
from monitor.feedback.labels import FeedbackError, parse

MOST_BYTES = 8 * 1024 * 1024
_EXAMPLE = {"request_id": "4bf92f3577b34da6a3ce929d0e0e4736", "label": 1}


def add_feedback(app: FastAPI, plane: Plane) -> None:
    """POST and GET /v1/feedback."""

    @app.post(
        "/v1/feedback",
        tags=["feedback"],
        dependencies=changing(plane),
        openapi_extra={
            "requestBody": {
                "required": True,
                "content": {
                    "application/json": {
                        "examples": {
                            "one": {"value": _EXAMPLE},
                            "several": {"value": [_EXAMPLE, {"request_id": "r-2", "reward": 0.7}]},
                        }
                    },
                    "application/x-ndjson": {
                        "example": '{"request_id": "r-1", "label": [0, 1, 0]}\n'
                    },
                },
            }
        },
    )
    async def post(request: Request) -> Response:
        """Labels or rewards by request id: one object, a list, or NDJSON.

        Each may come late, up to the horizon, and any number of times. 200 when at least one could
        be joined or was known, 202 when all wait for their prediction, 422 when none could be read.
        """
        feedback = plane.feedback
        if feedback is None:
            return refusal(409, "this service keeps no feedback: set feedback.horizon")
        body = bytearray()
        async for part in request.stream():
            body += part
            if len(body) > MOST_BYTES:
                return refusal(413, f"more than {MOST_BYTES} bytes: send it in several calls")
        try:
            labels, faults = parse(bytes(body), request.headers.get("content-type", ""))
        except FeedbackError as error:
            return refusal(422, str(error))
        if not labels:
            return refusal(422, "; ".join(map(str, faults[:20])) or "there is nothing in it")
        try:
            outcomes = await feedback.add([label for _, label in labels])
        except StateError as error:
            return refusal(503, str(error), {"Retry-After": "5"})
        counts = Counter(outcomes)
        return answer(
            {
                **{name: counts[name] for name in ("joined", "duplicate", "conflict")},
                "orphan": counts["orphan"],
                "late": counts["late"],
                "invalid": len(faults),
                "faults": [str(fault) for fault in faults[:100]],
                "conflicts": [
                    labels[i][1].request_id for i, o in enumerate(outcomes) if o == "conflict"
                ][:100],
            },
            202 if counts["orphan"] == len(outcomes) else 200,
        )

    @app.get("/v1/feedback", tags=["feedback"])
    async def show() -> Response:
        """How many labels came, how late, and what waits for what."""
        feedback = plane.feedback
        return answer(feedback.summary() if feedback is not None else {})
