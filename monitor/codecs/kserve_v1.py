"""KServe V1, which is TensorFlow Serving's REST API: row form and column form.

Request ``{"instances": [row …]}`` or ``{"inputs": {name: tensor}}``; response
``{"predictions": [row …]}`` or ``{"outputs": …}``.
"""

from __future__ import annotations

from monitor.codecs.shape import from_columns, from_rows, renamed
from monitor.codecs.spec import ModelSpec
from monitor.codecs.table import Reason, Table, Undecodable


def decode_request(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Features of a request."""
    return _decode(payload, "instances", "inputs", spec.features, "x")


def decode_response(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Predictions of a response."""
    return _decode(payload, "predictions", "outputs", spec.predictions, "y")


def _decode(
    payload: object, by_row: str, by_column: str, names: tuple[str, ...], stem: str
) -> Table | Undecodable:
    if not isinstance(payload, dict):
        return Undecodable(Reason.WRONG_SHAPE, "the payload is no object")
    if by_row in payload:
        rows = payload[by_row]
        return from_rows(rows if isinstance(rows, list) else [rows], names, stem)
    columns = payload.get(by_column)
    if isinstance(columns, dict):
        return renamed(from_columns(columns), names)
    if isinstance(columns, list):
        return from_rows(columns, names, stem)
    if by_column in payload:
        return from_rows([columns], names, stem)
    return Undecodable(Reason.WRONG_SHAPE, f"neither {by_row} nor {by_column}")
