"""Bodies of gRPC calls of the Open Inference Protocol, written by protobuf."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np
from tritonclient.grpc import service_pb2 as pb
from tritonclient.utils import serialize_byte_tensor

from understudy.common.grpc_messages import INFER, STREAM_INFER, framed

PATH, STREAM_PATH = INFER.encode(), STREAM_INFER.encode()
HEADERS = b"content-type: application/grpc"
Tensor = tuple[str, str, Any]
"""Name, datatype, array."""
CONTENTS = {
    "BOOL": "bool_contents",
    **dict.fromkeys(("INT8", "INT16", "INT32"), "int_contents"),
    "INT64": "int64_contents",
    **dict.fromkeys(("UINT8", "UINT16", "UINT32"), "uint_contents"),
    "UINT64": "uint64_contents",
    "FP32": "fp32_contents",
    "FP64": "fp64_contents",
    "BYTES": "bytes_contents",
}


def raw_of(datatype: str, array: Any) -> bytes:
    if datatype == "BYTES":
        return bytes(serialize_byte_tensor(array.astype(object)).item())
    if datatype == "BF16":
        return array.astype("<f4").view("<u2").reshape(-1)[1::2].tobytes()  # type: ignore[no-any-return]
    return array.astype(array.dtype.newbyteorder("<")).tobytes()  # type: ignore[no-any-return]


def _fill(described: Any, raws: Any, tensors: Iterable[Tensor], raw: bool) -> None:
    for name, datatype, array in tensors:
        one = described.add(name=name, datatype=datatype, shape=list(array.shape))
        if raw:
            raws.append(raw_of(datatype, array))
            continue
        cells = array.reshape(-1).tolist()
        if datatype == "BYTES":
            cells = [cell.encode() for cell in cells]
        getattr(one.contents, CONTENTS[datatype]).extend(cells)


def request_message(*tensors: Tensor, raw: bool = True, id_: str = "", model: str = "m") -> Any:
    message = pb.ModelInferRequest(model_name=model, id=id_)
    _fill(message.inputs, message.raw_input_contents, tensors, raw)
    return message


def response_message(*tensors: Tensor, raw: bool = True, id_: str = "") -> Any:
    message = pb.ModelInferResponse(model_name="m", id=id_)
    _fill(message.outputs, message.raw_output_contents, tensors, raw)
    return message


def body_of(*messages: Any) -> bytes:
    return b"".join(framed(message.SerializeToString()) for message in messages)


def floats(*cells: float) -> Any:
    return np.array(cells, np.float32)
