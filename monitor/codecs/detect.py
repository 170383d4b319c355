"""Which wire format a payload is in: the configuration decides, then the path, then the content."""

from __future__ import annotations

import re
from functools import lru_cache

_PATHS = (
    (re.compile(r".*/v2/models/[^/]+(?:/versions/[^/]+)?/infer"), "open-inference-v2"),
    (re.compile(r".*/v1/models/[^/]+(?:/versions/[^/]+)?:predict"), "kserve-v1"),
    (re.compile(r"(?:.*/)?invocations"), "mlflow"),
)


@lru_cache(maxsize=1024)
def by_path(target: bytes) -> str | None:
    """The format whose inference path ends this request target; its query does not matter."""
    path = target.partition(b"?")[0].decode("latin-1")
    for pattern, protocol in _PATHS:
        if pattern.fullmatch(path):
            return protocol
    return None


def by_content(payload: object) -> str | None:
    """The format that a request's JSON looks like."""
    if not isinstance(payload, dict):
        return None
    if "dataframe_split" in payload or "dataframe_records" in payload:
        return "mlflow"
    inputs = payload.get("inputs")
    if isinstance(inputs, list) and inputs and isinstance(inputs[0], dict) and "shape" in inputs[0]:
        return "open-inference-v2"
    if "instances" in payload or "inputs" in payload:
        return "kserve-v1"
    return None
