"""Which wire format a payload is in: the configuration decides, then the path, then the content."""

from __future__ import annotations

import re
from functools import lru_cache

NOT_INFERENCE = "not-inference"
"""Where a path belongs to one of the protocols and yet asks for no prediction."""

_MODEL_V1 = r".*/v1/models/[^/:]+(?:/(?:versions|labels)/[^/:]+)?"
_MODEL_V2 = r".*/v2/models/[^/]+(?:/versions/[^/]+)?"
_PATHS = (
    (re.compile(_MODEL_V2 + "/infer"), "open-inference-v2"),
    (re.compile(_MODEL_V1 + ":predict"), "kserve-v1"),
    (re.compile(r"(?:.*/)?invocations"), "mlflow"),
    (re.compile(_MODEL_V2 + "(?:/(?:ready|config|stats|load|unload))?"), NOT_INFERENCE),
    (re.compile(r".*/v2(?:/health/(?:live|ready))?"), NOT_INFERENCE),
    (re.compile(_MODEL_V1 + "(?:/metadata|:explain|:classify|:regress)?"), NOT_INFERENCE),
)
_LONGEST = 512
"""Bytes of a path that is remembered, so that odd ones do not fill the memory."""


def by_path(target: bytes | str) -> str | None:
    """The format whose inference path ends this request target; its query does not matter."""
    if isinstance(target, str):
        target = target.encode("utf-8", "replace")
    path = target.partition(b"?")[0]
    return _known(path) if len(path) <= _LONGEST else _match(path)


def _match(path: bytes) -> str | None:
    text = path.decode("latin-1")
    for pattern, protocol in _PATHS:
        if pattern.fullmatch(text):
            return protocol
    return None


_known = lru_cache(maxsize=1024)(_match)


def by_content(payload: object) -> str | None:
    """The format that a request's JSON looks like."""
    if not isinstance(payload, dict):
        return None
    if "dataframe_split" in payload or "dataframe_records" in payload:
        return "mlflow"
    if "instances" in payload:
        return "kserve-v1"
    if "inputs" not in payload:
        return None
    inputs = payload["inputs"]
    if isinstance(inputs, list) and inputs and isinstance(inputs[0], dict) and "shape" in inputs[0]:
        return "open-inference-v2"
    return "kserve-v1"
