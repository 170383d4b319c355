"""KServe V1, which is TensorFlow Serving's REST API: row form and column form.

Request ``{"instances": [row …]}`` or ``{"inputs": {name: tensor}}``; response
``{"predictions": [row …]}`` or ``{"outputs": …}``.
"""

from __future__ import annotations

from understudy.common.codecs.shape import from_columns, from_rows, is_bytes
from understudy.common.codecs.spec import ModelSpec, WireFormat
from understudy.common.codecs.table import Reason, Table, Undecodable


def decode_request(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Features of a request."""
    if not isinstance(payload, dict):
        return Undecodable(Reason.WRONG_SHAPE, "the payload is not an object")
    if "instances" in payload:
        rows = payload["instances"]
        return from_rows(rows if isinstance(rows, list) else [rows], spec.features, "x")
    if "inputs" in payload:
        return _by_column(payload["inputs"], spec.features, "x")
    return Undecodable(Reason.WRONG_SHAPE, "neither instances nor inputs")


def decode_response(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Predictions of a response."""
    if not isinstance(payload, dict):
        return Undecodable(Reason.WRONG_SHAPE, "the payload is not an object")
    if "predictions" in payload:
        return result(payload["predictions"], spec.predictions)
    if "outputs" in payload:
        return _by_column(payload["outputs"], spec.predictions, "y")
    if "error" in payload:
        return Undecodable(Reason.ERROR_RESPONSE)
    return Undecodable(Reason.WRONG_SHAPE, "neither predictions nor outputs")


def result(value: object, names: tuple[str, ...]) -> Table | Undecodable:
    """The output of a model: rows, or a mapping of columns, or a single row."""
    if isinstance(value, list):
        return from_rows(value, names, "y")
    if value is None:
        return Undecodable(Reason.EMPTY)
    if isinstance(value, dict) and set(map(type, value.values())) == {list}:
        lengths = set(map(len, value.values()))
        if len(lengths) == 1:
            return from_columns(value, names)
    return from_rows([value], names, "y")


def _by_column(value: object, names: tuple[str, ...], stem: str) -> Table | Undecodable:
    """A mapping of tensors, or the only tensor."""
    if isinstance(value, dict) and not is_bytes(value):
        return from_columns(value, names)
    return from_rows(value if isinstance(value, list) else [value], names, stem)


MODEL_PATH = r".*/v1/models/[^/:]+(?:/(?:versions|labels)/[^/:]+)?"
FORMAT = WireFormat(
    decode_request,
    decode_response,
    paths=(MODEL_PATH + ":predict",),
    other_paths=(MODEL_PATH + "(?:/metadata|:explain)?",),
    matches=lambda payload: "instances" in payload or "inputs" in payload,
)
