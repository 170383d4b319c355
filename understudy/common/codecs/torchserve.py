"""TorchServe's ``/predictions/MODEL``: JSON as the model's handler defines it.

Read are a list of rows, ``{"instances": …}`` as KServe's handlers take it, ``{"data": …}`` or
``{"body": …}``, and else one row. A response is a row, a list of rows, or a probability by class.
"""

from __future__ import annotations

from understudy.common.codecs import kserve_v1
from understudy.common.codecs.shape import from_rows
from understudy.common.codecs.spec import ModelSpec, WireFormat
from understudy.common.codecs.table import Reason, Table, Undecodable


def decode_request(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Features of a request."""
    if isinstance(payload, dict):
        if "instances" in payload:
            return kserve_v1.decode_request(payload, spec)
        if len(payload) == 1 and not payload.keys().isdisjoint(("data", "body")):
            (payload,) = payload.values()
    rows = payload if isinstance(payload, list) else [payload]
    return from_rows(rows, spec.features, "x")


def decode_response(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Predictions of a response."""
    if isinstance(payload, dict):
        if "predictions" in payload:
            return kserve_v1.decode_response(payload, spec)
        if payload.keys() >= {"code", "type", "message"}:
            return Undecodable(Reason.ERROR_RESPONSE)
    return kserve_v1.result(payload, spec.predictions)


FORMAT = WireFormat(
    decode_request, decode_response, paths=(r"(?:.*/)?predictions/[^/]+(?:/[^/]+)?",)
)
