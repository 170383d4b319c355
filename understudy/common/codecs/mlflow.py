"""MLflow's ``/invocations``: dataframe_split, dataframe_records, instances, inputs."""

from __future__ import annotations

from itertools import chain
from typing import Any

from understudy.common.codecs import kserve_v1
from understudy.common.codecs.shape import from_records, from_rows, named
from understudy.common.codecs.spec import ModelSpec, WireFormat
from understudy.common.codecs.table import Reason, Table, Undecodable


def decode_request(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Features of a request; ``params`` are not features."""
    if not isinstance(payload, dict):
        return Undecodable(Reason.WRONG_SHAPE, "the payload is not an object")
    if "dataframe_split" in payload:
        return _split(payload["dataframe_split"], spec.features, "x")
    if "dataframe_records" in payload:
        records = payload["dataframe_records"]
        if not isinstance(records, list):
            return Undecodable(Reason.WRONG_SHAPE, "dataframe_records is not a list")
        if not records:
            return Undecodable(Reason.EMPTY)
        if set(map(type, records)) != {dict}:
            return Undecodable(Reason.WRONG_SHAPE, "a record is not an object")
        return from_records(records, spec.features)
    return kserve_v1.decode_request(payload, spec)


def _split(split: Any, configured: tuple[str, ...], stem: str) -> Table | Undecodable:
    if not isinstance(split, dict):
        return Undecodable(Reason.WRONG_SHAPE, "dataframe_split is not an object")
    columns, rows = split.get("columns"), split.get("data")
    if columns is None:
        return from_rows(rows, configured, stem)
    if not isinstance(columns, list) or not isinstance(rows, list):
        return Undecodable(Reason.WRONG_SHAPE, "columns or data is not a list")
    if not columns or not rows:
        return Undecodable(Reason.EMPTY)
    if len(columns) == 1 and not {list, dict} & set(map(type, rows)):
        values = rows
    elif set(map(type, rows)) != {list} or set(map(len, rows)) != {len(columns)}:
        return Undecodable(Reason.WRONG_SHAPE, "columns and data differ in width")
    else:
        values = rows[0] if len(rows) == 1 else list(chain.from_iterable(rows))
    if set(map(type, columns)) != {str}:
        if not {list, dict}.isdisjoint(map(type, columns)):
            return Undecodable(Reason.WRONG_SHAPE, "a column's name is not a scalar")
        columns = map(str, columns)  # data frames may have numbers for names
    return named(tuple(columns), len(rows), values, configured)


def decode_response(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Predictions of a response: below ``predictions``, or bare."""
    if isinstance(payload, dict):
        if "dataframe_split" in payload:  # CSV
            return _split(payload["dataframe_split"], spec.predictions, "y")
        if "instances" in payload:  # JSON lines
            return kserve_v1.result(payload["instances"], spec.predictions)
        if "predictions" in payload or "outputs" in payload:
            return kserve_v1.decode_response(payload, spec)
        if "error_code" in payload or "error" in payload:
            return Undecodable(Reason.ERROR_RESPONSE)
    return kserve_v1.result(payload, spec.predictions)


FORMAT = WireFormat(
    decode_request,
    decode_response,
    paths=(r"(?:.*/)?invocations",),
    matches=lambda payload: "dataframe_split" in payload or "dataframe_records" in payload,
)
