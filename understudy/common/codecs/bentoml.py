"""BentoML's endpoints: JSON of a function's arguments, and the value that it returns.

A body of version 1.2 and later is an object with a member for each argument; before, it is the
argument itself. A single argument with a list has a row in each item, one with an object has
columns or is a row; several arguments are one row. A response is a row, a list of rows, or a
probability by class.
"""

from __future__ import annotations

from understudy.common.codecs import kserve_v1
from understudy.common.codecs.shape import from_rows
from understudy.common.codecs.spec import ModelSpec, WireFormat
from understudy.common.codecs.table import Reason, Table, Undecodable


def decode_request(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Features of a request."""
    if isinstance(payload, dict) and len(payload) == 1:
        (only,) = payload.values()
        if isinstance(only, dict) and only and all(isinstance(v, list) for v in only.values()):
            return kserve_v1.decode_request({"inputs": only}, spec)
        if isinstance(only, (dict, list)):
            payload = only
    rows = payload if isinstance(payload, list) else [payload]
    if len(rows) > 1 and all(isinstance(row, (int, float)) for row in rows):
        rows = [rows]  # numbers are the features of one row, texts are a row each
    return from_rows(rows, spec.features, "x")


def decode_response(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Predictions of a response."""
    if isinstance(payload, dict) and payload.keys() == {"error"}:
        return Undecodable(Reason.ERROR_RESPONSE)
    return kserve_v1.result(payload, spec.predictions)


FORMAT = WireFormat(decode_request, decode_response)
