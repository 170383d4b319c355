"""MLflow's ``/invocations``: dataframe_split, dataframe_records, instances, inputs."""

from __future__ import annotations

from monitor.codecs import kserve_v1
from monitor.codecs.shape import from_records, from_rows
from monitor.codecs.spec import ModelSpec
from monitor.codecs.table import Reason, Table, Undecodable


def decode_request(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Features of a request; ``params`` are not features."""
    if not isinstance(payload, dict):
        return Undecodable(Reason.WRONG_SHAPE, "the payload is no object")
    split = payload.get("dataframe_split")
    if split is not None:
        if not isinstance(split, dict):
            return Undecodable(Reason.WRONG_SHAPE, "dataframe_split is no object")
        columns = split.get("columns")
        names = tuple(map(str, columns)) if isinstance(columns, list) else spec.features
        table = from_rows(split.get("data"), names, "x")
        if isinstance(table, Table) and columns is not None and table.names != names:
            return Undecodable(Reason.WRONG_SHAPE, "columns and data differ in width")
        return table
    records = payload.get("dataframe_records")
    if records is not None:
        if not isinstance(records, list) or set(map(type, records)) != {dict}:
            return Undecodable(Reason.WRONG_SHAPE, "dataframe_records is no list of objects")
        return from_records(records)
    return kserve_v1.decode_request(payload, spec)


def decode_response(payload: object, spec: ModelSpec) -> Table | Undecodable:
    """Predictions of a response."""
    return kserve_v1.decode_response(payload, spec)
