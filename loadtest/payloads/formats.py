"""Rows of features in the wire formats of model servers."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from understudy.common.text import did_you_mean
from understudy.loadtest.errors import PlanError

Row = Mapping[str, Any]


def open_inference(rows: Sequence[Row], datatypes: Mapping[str, str]) -> dict[str, Any]:
    """Open Inference Protocol V2: a tensor for each feature."""
    rows = _typed(rows, datatypes)
    tensors = []
    for name in _names(rows):
        data = [row.get(name) for row in rows]
        tensors.append(
            {
                "name": name,
                "shape": [len(rows)],
                "datatype": datatypes.get(name) or _datatype(name, data),
                "data": data,
            }
        )
    return {"inputs": tensors}


def open_inference_matrix(rows: Sequence[Row], datatypes: Mapping[str, str]) -> dict[str, Any]:
    """Open Inference Protocol V2 with one tensor of all numeric features, as scikit-learn runtimes
    expect; FP64, or the datatype of all features where it is another float."""
    names = _names(rows)
    data = [_number(name, row.get(name)) for row in rows for name in names]
    given = {datatypes.get(name, "FP64") for name in names}
    datatype = given.pop() if len(given) == 1 else "FP64"
    datatype = datatype if datatype in ("FP16", "BF16", "FP32") else "FP64"
    tensor = {
        "name": "input-0", "shape": [len(rows), len(names)], "datatype": datatype, "data": data
    }  # fmt: skip
    return {"inputs": [tensor]}


def kserve_v1(rows: Sequence[Row], _: Mapping[str, str]) -> dict[str, Any]:
    """KServe V1 and TF Serving: instances by name."""
    return {"instances": [dict(row) for row in rows]}


def mlflow(rows: Sequence[Row], datatypes: Mapping[str, str]) -> dict[str, Any]:
    """MLflow's /invocations: dataframe_split."""
    rows = _typed(rows, datatypes)
    names = _names(rows)
    data = [[row.get(name) for name in names] for row in rows]
    return {"dataframe_split": {"columns": names, "data": data}}


def columns(rows: Sequence[Row], datatypes: Mapping[str, str]) -> dict[str, Any]:
    """KServe V1, TF Serving and MLflow by column: inputs."""
    rows = _typed(rows, datatypes)
    return {"inputs": {name: [row.get(name) for row in rows] for name in _names(rows)}}


def mlflow_records(rows: Sequence[Row], datatypes: Mapping[str, str]) -> dict[str, Any]:
    """MLflow's /invocations: dataframe_records."""
    rows = _typed(rows, datatypes)
    return {"dataframe_records": [dict(row) for row in rows]}


def mlflow_instances(rows: Sequence[Row], datatypes: Mapping[str, str]) -> dict[str, Any]:
    """MLflow's and TF Serving's instances without names."""
    rows = _typed(rows, datatypes)
    names = _names(rows)
    return {"instances": [[row.get(name) for name in names] for row in rows]}


def plain(rows: Sequence[Row], _: Mapping[str, str]) -> Any:
    """Plain JSON: the object, or a list of them."""
    return dict(rows[0]) if len(rows) == 1 else [dict(row) for row in rows]


FORMATS: dict[str, Callable[[Sequence[Row], Mapping[str, str]], Any]] = {
    "open-inference-v2": open_inference,
    "open-inference-v2-matrix": open_inference_matrix,
    "kserve-v1": kserve_v1,
    "kserve-v1-columns": columns,
    "mlflow": mlflow,
    "mlflow-records": mlflow_records,
    "mlflow-instances": mlflow_instances,
    "mlflow-inputs": columns,
    "json": plain,
}


def in_format(name: str, rows: Sequence[Row], datatypes: Mapping[str, str] | None = None) -> Any:
    """Encode ``rows`` in the format ``name``; ``datatypes`` of tensors by feature, by default from
    these rows. Raises PlanError for an unknown format."""
    if name not in FORMATS:
        raise PlanError(
            f"unknown format {name!r}: choose one of {', '.join(FORMATS)}"
            f"{did_you_mean(name, FORMATS)}"
        )
    return FORMATS[name](rows, datatypes or {})


def _typed(rows: Sequence[Row], datatypes: Mapping[str, str]) -> Sequence[Row]:
    """With a fraction for every number of a column of floats: a server that compares types, as
    MLflow does with a signature, takes ``1`` for an integer."""
    floats = {name for name, datatype in datatypes.items() if datatype[:2] in ("FP", "BF")}
    if not floats:
        return rows
    return [
        {
            name: float(value) if name in floats and type(value) is int else value
            for name, value in row.items()
        }
        for row in rows
    ]


def _names(rows: Sequence[Row]) -> list[str]:
    return list(dict.fromkeys(name for row in rows for name in row))


def _datatype(name: str, data: Sequence[Any]) -> str:
    present = [value for value in data if value is not None]
    if all(isinstance(value, bool) for value in present):
        return "BOOL"
    if all(isinstance(value, (int, float)) for value in present):
        return (
            "INT64"
            if all(isinstance(v, int) for v in present) and len(present) == len(data)
            else "FP64"
        )
    if all(isinstance(value, str) for value in present):
        return "BYTES"
    raise PlanError(f"feature {name!r} has values of different types, but a tensor has one")


def _number(name: str, value: Any) -> float | None:
    if value is None or isinstance(value, (int, float)):
        return value
    raise PlanError(f"feature {name!r} is not a number: {value!r}")
