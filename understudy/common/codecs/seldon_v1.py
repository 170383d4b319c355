"""Seldon Core V1: ``{"data": {"names": [name …], "ndarray": [row …]}}``, or a flat ``tensor``.

The prediction has the same form: ``{"data": {"names": …, "tensor": {"shape": …, "values": …}}}``.
``jsonData`` holds the rows of servers that take JSON of any kind, ``strData`` one text.
"""

from __future__ import annotations

from understudy.common.codecs.shape import from_rows, leaves_of, named, positional
from understudy.common.codecs.spec import ModelSpec, WireFormat
from understudy.common.codecs.table import Reason, Table, Undecodable


def decode_request(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Features of a request."""
    return _decode(payload, spec.features, "x")


def decode_response(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Predictions of a response."""
    if isinstance(payload, dict) and not _HOLDERS & payload.keys():
        status = payload.get("status")
        if isinstance(status, dict) and status.get("status") in ("FAILURE", 1):
            return Undecodable(Reason.ERROR_RESPONSE)
    return _decode(payload, spec.predictions, "y")


_HOLDERS = frozenset(("data", "jsonData", "strData", "binData"))


def _decode(payload: object, configured: tuple[str, ...], stem: str) -> Table | Undecodable:
    if not isinstance(payload, dict):
        return Undecodable(Reason.WRONG_SHAPE, "the payload is not an object")
    if "strData" in payload:
        return from_rows([payload["strData"]], configured, stem)
    if "jsonData" in payload:
        rows = payload["jsonData"]
        return from_rows(rows if isinstance(rows, list) else [rows], configured, stem)
    if "binData" in payload:
        return Undecodable(Reason.BINARY, "the data is in binData")
    data = payload.get("data")
    if not isinstance(data, dict):
        return Undecodable(Reason.WRONG_SHAPE, "there is no data")
    names = data.get("names")
    has_names = isinstance(names, list) and bool(names) and set(map(type, names)) == {str}
    own = tuple(names) if has_names and names is not None else ()
    if "ndarray" in data:
        table = from_rows(data["ndarray"], own or configured, stem)
    elif isinstance(data.get("tensor"), dict):
        table = _tensor(data["tensor"], own or configured, stem)
    else:
        return Undecodable(Reason.WRONG_SHAPE, "the data has neither ndarray nor tensor")
    if own and isinstance(table, Table) and table.names == own:
        return named(own, table.rows, table.values)  # checks the names, which are the client's
    return table


def _tensor(tensor: dict[str, object], names: tuple[str, ...], stem: str) -> Table | Undecodable:
    shape, values = tensor.get("shape"), tensor.get("values")
    if not isinstance(shape, list) or not isinstance(values, list) or not values:
        return Undecodable(Reason.WRONG_SHAPE, "a tensor lacks its shape or values")
    rows = shape[0] if shape else 1
    width, leaves = leaves_of(values)
    if width != 1 or type(rows) is not int or rows < 1 or len(leaves) % rows:
        return Undecodable(Reason.WRONG_SHAPE, "shape and values do not agree")
    return positional(leaves, rows, len(leaves) // rows, names, stem)


FORMAT = WireFormat(
    decode_request,
    decode_response,
    paths=(r"(?:.*/)?api/v(?:0\.1|1\.0)/predictions",),
    other_paths=(r"(?:.*/)?api/v(?:0\.1|1\.0)/(?:feedback|explanations|doc/.*)",),
    matches=lambda payload: (
        isinstance(data := payload.get("data"), dict) and ("ndarray" in data or "tensor" in data)
    ),
)
