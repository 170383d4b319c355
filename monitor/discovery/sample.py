"""A request that a model should be able to answer, made from what its server says about it."""

from __future__ import annotations

import json
from math import prod
from typing import Any, NamedTuple
from urllib.parse import quote

from understudy.monitor.discovery.server import (
    MLFLOW,
    OPENAI,
    SELDON,
    TORCHSERVE,
    V1,
    V2,
    FoundModel,
)

_LARGEST = 10_000
"""Elements of a tensor."""
_VALUES: dict[str, Any] = {"BOOL": True, "BYTES": "text"}


class Sample(NamedTuple):
    """A request: its path, its body (JSON), and whether the body was made to fit the model."""

    path: str
    body: bytes
    fits: bool


def path_of(model: FoundModel) -> str:
    """The path of inference requests."""
    name = quote(model.name, safe="")
    return {
        V2: f"/v2/models/{name}/infer",
        V1: f"/v1/models/{name}:predict",
        MLFLOW: "/invocations",
        OPENAI: "/v1/chat/completions",
        SELDON: "/api/v1.0/predictions",
        TORCHSERVE: f"/predictions/{name}",
    }[model.protocol]


def sample_of(model: FoundModel) -> Sample:
    """A request for one row: zeros and short texts. Where the server does not describe the inputs,
    it has the form of the protocol only."""
    path = path_of(model)
    if model.protocol == V2:
        tensors = [_tensor(one.name, one.datatype, one.shape) for one in model.inputs]
        whole = bool(tensors) and None not in tensors
        unknown = [{"name": "x", "shape": [1, 1], "datatype": "FP64", "data": [0.0]}]
        return Sample(path, json.dumps({"inputs": tensors if whole else unknown}).encode(), whole)
    if model.protocol == OPENAI:
        messages = [{"role": "user", "content": "Hello"}]
        body = {"model": model.name, "messages": messages, "max_tokens": 1}
        return Sample(path, json.dumps(body).encode(), True)
    forms = {MLFLOW: {"inputs": [{"x": 0.0}]}, SELDON: {"data": {"ndarray": [[0.0]]}}}
    form = forms.get(model.protocol, {"instances": [{"x": 0.0}]})
    return Sample(path, json.dumps(form).encode(), False)


def _tensor(name: str, datatype: str, shape: tuple[int, ...]) -> dict[str, Any] | None:
    sizes = [size if size > 0 else 1 for size in shape] or [1]
    if prod(sizes) > _LARGEST or not datatype:
        return None
    value = _VALUES.get(datatype, 0 if "INT" in datatype else 0.0)
    return {"name": name, "shape": sizes, "datatype": datatype, "data": [value] * prod(sizes)}
