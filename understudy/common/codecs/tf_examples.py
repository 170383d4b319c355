"""TensorFlow Serving's classification and regression: ``:classify`` and ``:regress``.

Request ``{"context": {name: value}, "examples": [{name: value} …]}``, where a value may be a list
of one. Response ``{"result": [[[label, score] …] …]}`` of a classification: the predictions are the
best ``class`` and its ``score``; ``{"result": [value …]}`` of a regression.
"""

from __future__ import annotations

from typing import Any

from understudy.common.codecs.kserve_v1 import MODEL_PATH
from understudy.common.codecs.shape import from_records, from_rows
from understudy.common.codecs.spec import ModelSpec, WireFormat
from understudy.common.codecs.table import Reason, Table, Undecodable


def decode_request(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Features of a request."""
    examples = payload.get("examples") if isinstance(payload, dict) else None
    if not isinstance(examples, list) or not {dict}.issuperset(map(type, examples)):
        return Undecodable(Reason.WRONG_SHAPE, "examples are not a list of objects")
    if not examples:
        return Undecodable(Reason.EMPTY)
    context = payload.get("context") if isinstance(payload, dict) else None
    shared = context if isinstance(context, dict) else {}
    rows = [{name: _single(cell) for name, cell in {**shared, **one}.items()} for one in examples]
    return from_records(rows, spec.features)


def decode_response(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Predictions of a response."""
    if not isinstance(payload, dict):
        return Undecodable(Reason.WRONG_SHAPE, "the payload is not an object")
    result = payload.get("result", payload.get("results"))
    if not isinstance(result, list):
        if "error" in payload:
            return Undecodable(Reason.ERROR_RESPONSE)
        return Undecodable(Reason.WRONG_SHAPE, "result is not a list")
    if result and all(map(_is_classified, result)):
        best = [max(one, key=lambda scored: float(scored[1])) for one in result]
        return Table(("class", "score"), len(best), [cell for scored in best for cell in scored])
    return from_rows(result, spec.predictions, "y")


def _single(cell: Any) -> Any:
    return cell[0] if isinstance(cell, list) and len(cell) == 1 else cell


def _is_classified(value: Any) -> bool:
    """Whether this is a list of at least one label with its score."""
    return isinstance(value, list) and bool(value) and all(map(_is_scored, value))


def _is_scored(value: Any) -> bool:
    """Whether this is a label with its score."""
    return (
        isinstance(value, list)
        and len(value) == 2
        and isinstance(value[0], str)
        and type(value[1]) in (int, float)
    )


FORMAT = WireFormat(
    decode_request,
    decode_response,
    paths=(MODEL_PATH + ":(?:classify|regress)",),
    matches=lambda payload: "examples" in payload,
)
