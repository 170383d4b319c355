"""Labels and rewards over the API."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field

from understudy.monitor.api import documents
from understudy.monitor.api.answers import answer, refusal
from understudy.monitor.errors import StateError
from understudy.monitor.labels.label import (
    Fault,
    FeedbackError,
    Label,
    LabelParser,
    TooManyError,
)
from understudy.monitor.labels.store import OUTCOMES
from understudy.monitor.pipeline.plane import EvaluationPlane

_MOST_FAULTS = 20
_ONE = {"request_id": "4bf92f3577b34da6a3ce929d0e0e4736", "label": 1}
_SEVERAL = [
    {"request_id": "r-1", "label": [0, 1, 0]},
    {"request_id": "r-2", "reward": 0.7, "at": "2026-01-31T12:00:00Z", "source": "billing"},
    {"request_id": "r-3", "row": 4, "label": "delayed", "idempotency_key": "flight-17"},
]
_BODY = {
    "required": True,
    "description": "Up to 10,000 items, 50,000 labels and 8 MiB. An item has `request_id`, and"
    " `label` (a number, a text, a truth value, or a list with one for each row of the request),"
    " or `reward` (a number), or both. `row` says which row a single label is about (0 unless"
    " said), `at` when the outcome became known (unix seconds, or RFC 3339). What comes again with"
    " the same `idempotency_key` is the same event, whatever its value. `source` names who says it:"
    " another value of the same source is a correction, one of another source a conflict.",
    "content": {
        "application/json": {
            "examples": {
                "one": {"value": _ONE},
                "several": {"value": _SEVERAL},
                "wrapped": {"value": {"feedback": _SEVERAL}},
            }
        },
        "application/x-ndjson": {
            "example": '{"request_id": "r-1", "label": [0, 1, 0]}\n'
            '{"request_id": "r-2", "reward": 0.7}\n'
        },
    },
}
_RESULTS = {
    "joined": 1,
    "corrected": 0,
    "duplicate": 0,
    "conflict": 0,
    "orphan": 0,
    "late": 0,
    "invalid": 1,
    "results": [
        {"item": 1, "request_id": "r-1", "row": 0, "outcome": "joined"},
        {
            "item": 2,
            "outcome": "invalid",
            "error": "item 2: reward: must be a number, not 'yes'",
        },
    ],
    "faults": ["item 2: reward: must be a number, not 'yes'"],
    "conflicts": [],
}
_WAITING = {
    **_RESULTS,
    "joined": 0,
    "orphan": 1,
    "invalid": 0,
    "results": [{"item": 1, "request_id": "r-9", "row": 0, "outcome": "orphan"}],
    "faults": [],
}


class Result(BaseModel):
    """Outcome of one label, or why an item is invalid."""

    item: int = Field(description="Number of the item, or of the line of NDJSON, from 1.")
    outcome: str = Field(
        description="joined; corrected: another value of the same source, which replaces the first;"
        " duplicate: known already, with the same value, or replaced since; conflict: another value"
        " of another or no source, the first stays; orphan: its prediction is not known (yet), kept"
        " until the horizon; late: its prediction is older than the horizon, not used; invalid."
    )
    request_id: str | None = None
    row: int | None = None
    error: str | None = None


class Results(BaseModel):
    """Numbers of labels by outcome, of invalid items, and each of them."""

    joined: int
    corrected: int
    duplicate: int
    conflict: int
    orphan: int
    late: int
    invalid: int
    results: list[Result]
    faults: list[str]
    conflicts: list[str] = Field(description="Ids of the requests with a conflict.")


class Coverage(BaseModel):
    """Of one arm; `settled` predictions are older than the horizon and accept no more labels."""

    predictions: int
    labelled: int
    settled: int
    settled_labelled: int
    share: float | None = Field(description="Share of settled predictions that have a label.")


class Delays(BaseModel):
    """Delay of the labels of one arm. Arms should not differ."""

    count: int
    sum_seconds: float
    mean_seconds: float
    quantiles: dict[str, float] = Field(examples=[{"0.5": 5400.0, "0.9": 9000.0, "0.99": 20000.0}])


class Feedback(BaseModel):
    """Counts since the file was created, and what waits now."""

    enabled: bool
    labels: dict[str, int] = Field({}, description="By outcome.")
    joined_later: int = Field(0, description="Orphans whose prediction arrived later.")
    corrections: dict[str, int] = Field(
        {},
        description="in_time: before the label counted; after_use: the evidence keeps the earlier"
        " value (see `feedback.settle`).",
    )
    waiting: dict[str, int] = {}
    purged: dict[str, int] = Field({}, description="Deleted, by reason.")
    repeated: dict[str, int] = Field(
        {},
        description="By arm, predictions whose request id was used before: the first one gets the"
        " label.",
    )
    unmatched: dict[str, int] = Field(
        {},
        description="Of the last labels, those whose prediction is not known (orphan) or too old"
        " (late).",
    )
    coverage: dict[str, Coverage] = Field({}, description="By arm.")
    delays: dict[str, Delays] = Field({}, description="By arm.")
    queued: int = Field(0, description="Predictions waiting to be written.")
    dropped: int = Field(0, description="Predictions dropped because too many were waiting.")
    failures: int = Field(0, description="Number of failed accesses to the file.")
    error: str | None = Field(None, description="Why the file cannot be used; null if it can.")


def _described(text: str, example: dict[str, Any]) -> dict[str, Any]:
    content = {"application/json": {"example": example}}
    return {"model": Results, "description": text, "content": content}


_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: _described("At least one label was accepted or known; `results` lists each.", _RESULTS),
    202: _described("All labels wait for their predictions.", _WAITING),
    **{
        code: {"model": documents.Error, "description": text}
        for code, text in (
            (401, "A token is needed."),
            (403, "Wrong token, or no token is configured."),
            (409, "Feedback is switched off."),
            (413, "Too large: send several smaller requests."),
            (422, "No item is valid; the message names items and fields."),
            (503, "The disk cannot be written: nothing was accepted; retry later."),
        )
    },
}


def add_feedback(app: FastAPI, plane: EvaluationPlane) -> None:
    """POST and GET /v1/feedback."""

    @app.post(
        "/v1/feedback",
        tags=["feedback"],
        responses=_ANSWERS,
        openapi_extra={"requestBody": _BODY},
    )
    async def post(request: Request) -> Response:
        """Labels or rewards by request id: one object, a list, or NDJSON.

        Each may come late, up to the horizon, and any number of times: what is known is not counted
        again. Good items of a batch are taken also when others cannot be read. When the call
        returns, what was taken is on disk.
        """
        feedback = plane.feedback
        if feedback is None:
            return refusal(409, "feedback is off: set feedback.enabled")
        parser = LabelParser(request.headers.get("content-type", ""))
        try:
            async for part in request.stream():
                parser.feed(part)
            labels, faults = parser.finish()
        except FeedbackError as error:
            return refusal(413 if isinstance(error, TooManyError) else 422, str(error))
        if not labels:
            return refusal(422, _fault_text(faults))
        try:
            outcomes = await feedback.add([label for _, label in labels])
        except StateError as error:
            return refusal(503, str(error), {"Retry-After": "5"})
        code = 202 if set(outcomes) == {"orphan"} else 200
        return answer(_results(labels, outcomes, faults), code)

    @app.get(
        "/v1/feedback",
        tags=["feedback"],
        responses={200: {"model": Feedback, "description": "Success."}},
    )
    async def show() -> Response:
        """Number of labels, their delay by arm, the share of predictions that have one, and what
        waits."""
        feedback = plane.feedback
        if feedback is None:
            return answer({"enabled": False})
        return answer({"enabled": True, **feedback.summary()})


def _fault_text(faults: Sequence[Fault]) -> str:
    if not faults:
        return "the body has no items"
    more = len(faults) - _MOST_FAULTS
    text = "; ".join(map(str, faults[:_MOST_FAULTS]))
    return f"{text}; and {more:,} more" if more > 0 else text


def _results(
    labels: Sequence[tuple[int, Label]], outcomes: Sequence[str], faults: Sequence[Fault]
) -> dict[str, Any]:
    counts = Counter(outcomes)
    per_item: list[dict[str, Any]] = [
        {"item": number, "request_id": label.request_id, "row": label.row, "outcome": outcome}
        for (number, label), outcome in zip(labels, outcomes, strict=True)
    ]
    per_item += (
        {"item": fault.number, "outcome": "invalid", "error": str(fault)} for fault in faults
    )
    per_item.sort(key=lambda result: int(result["item"]))
    return {
        **{outcome: counts[outcome] for outcome in OUTCOMES},
        "invalid": len(faults),
        "results": per_item,
        "faults": [str(fault) for fault in faults],
        "conflicts": [r["request_id"] for r in per_item if r["outcome"] == "conflict"],
    }
