"""Payloads of every format, and short ways to decode them."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import strategies as st

from understudy.common.codecs import ModelSpec, Reason, Table, Undecodable, decode_exchange

V2 = b"/v2/models/m/infer"
V1 = b"/v1/models/m:predict"
MLFLOW = b"/invocations"
SPEC = ModelSpec("m")
NAMED = ModelSpec("m", features=("age", "fare"), predictions=("no", "yes"))


def decode(
    target: bytes,
    request: object,
    response: object = None,
    spec: ModelSpec = SPEC,
    status: int = 200,
) -> tuple[Table | Undecodable, Table | Undecodable]:
    decoded = decode_exchange(
        spec, target, b"", json.dumps(request).encode(), status, b"", json.dumps(response).encode()
    )
    return decoded.features, decoded.predictions


def reason(part: Table | Undecodable) -> Reason | None:
    return part.reason if isinstance(part, Undecodable) else None


def v2(
    *tensors: tuple[str, list[int], list[Any]], key: str = "inputs", datatype: str = "FP64"
) -> dict[str, Any]:
    return {
        key: [
            {"name": name, "shape": shape, "datatype": datatype, "data": data}
            for name, shape, data in tensors
        ]
    }


def sound(part: Table | Undecodable) -> bool:
    """What holds for every result, whatever the bytes were."""
    if isinstance(part, Undecodable):
        return part.reason != Reason.INTERNAL
    return (
        part.rows > 0
        and len(part.values) == part.rows * len(part.names)
        and len(set(part.names)) == len(part.names)
        and all(type(name) is str and name.encode("utf-8") is not None for name in part.names)
    )


KEYS = (
    *("inputs", "instances", "outputs", "predictions", "data", "shape", "name", "columns", "error"),
    *("dataframe_split", "dataframe_records", "parameters", "binary_data_size", "b64", "a", "b"),
)
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
JSON = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(st.sampled_from(KEYS), inner, max_size=4)
        # What has the outline of a payload gets further than chance.
        | st.fixed_dictionaries(
            {"name": st.text(max_size=3), "shape": st.lists(st.integers(0, 3)), "data": inner}
        )
    ),
    max_leaves=30,
)
PAYLOADS = JSON | st.dictionaries(st.sampled_from(KEYS), JSON, min_size=1, max_size=3)
TARGETS = st.sampled_from([V1, V2, MLFLOW, b"/own", b"/v2/health/live", b"\xff"])
CELLS = st.floats(allow_nan=False) | st.integers(-(2**53), 2**53) | st.text(max_size=4)
"""Cells without null: those of a column may not be told from a gap."""
