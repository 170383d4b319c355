"""Payloads of gRPC calls: messages of the Open Inference Protocol, or messages of any service."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import unquote

from understudy.common.codecs.infer_message import infer_request
from understudy.common.grpc_messages import INFER, FramingError, framed, frames
from understudy.common.unreadable import why_unreadable
from understudy.loadtest.errors import PlanError
from understudy.loadtest.payloads.request import Payload

CONTENT_TYPE = "application/grpc"
_HTTP_PATH = re.compile(r".*/v2/models/(?P<model>[^/]+)(?:/versions/(?P<version>[^/]+))?/infer")


@dataclass(frozen=True, slots=True)
class Calls:
    """How payloads become messages: of ``model``, which a path such as ``/v2/models/NAME/infer``
    names otherwise, and ``version``; ``raw``: with the bytes of tensors behind the message."""

    model: str = ""
    version: str = ""
    raw: bool = True

    def of(self, payload: Payload) -> Payload:
        """A request of V2 JSON as the call that says the same; one that is a call stays. Raises
        PlanError."""
        if is_call(payload):
            return payload
        path = payload.path.partition("?")[0]
        named = _HTTP_PATH.fullmatch(path)
        model, version = self.model, self.version
        if named is not None:
            model = model or unquote(named["model"])
            version = version or unquote(named["version"] or "")
        elif path not in ("/", INFER):
            raise PlanError(
                f"payloads.path: {path!r}: over gRPC, only calls of ModelInfer are made of JSON; "
                "give messages of other services as payloads.messages"
            )
        if not payload.body:
            raise PlanError("payloads: a call needs a message: give bodies, rows, messages …")
        try:
            value = json.loads(payload.body)
            if not model and not (isinstance(value, dict) and value.get("model_name")):
                raise PlanError("payloads.model: name the model that gRPC calls are for")
            message = infer_request(value, model, version, self.raw)
        except ValueError as error:
            raise PlanError(f"payloads: over gRPC: {error}") from error
        kept = {k: v for k, v in payload.headers.items() if k.lower() != "content-type"}
        headers = {"content-type": CONTENT_TYPE, **kept}
        return replace(payload, body=framed(message), method="POST", path=INFER, headers=headers)


def is_call(payload: Payload) -> bool:
    """Whether a payload is the body of a gRPC call already."""
    return any(
        name.lower() == "content-type" and value.startswith(CONTENT_TYPE)
        for name, value in payload.headers.items()
    )


def of_messages(path: Path, call_path: str, most: int, headers: Mapping[str, str]) -> list[Payload]:
    """Calls of the messages in a file, one after the other, each with the head of five bytes that
    gRPC gives it; ``call_path`` is that of the method, by default ``ModelInfer``. Raises
    PlanError."""
    try:
        whole = path.read_bytes()
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {why_unreadable(path, error)}") from error
    payloads = []
    where = INFER if call_path == "/" else call_path
    try:
        for compressed, begin, end in frames(whole):
            if compressed and not any(name.lower() == "grpc-encoding" for name in headers):
                raise PlanError(f"{path}: a message is compressed: set headers.grpc-encoding")
            body = framed(whole[begin:end], compressed)
            about = {"content-type": CONTENT_TYPE, **headers}
            payloads.append(Payload(body, path=where, headers=about))
            if len(payloads) >= most:
                break
    except FramingError as error:
        raise PlanError(
            f"{path}: {error}: each message needs a head, a byte 0 and its length in four bytes"
        ) from error
    if not payloads:
        raise PlanError(f"{path}: has no messages")
    return payloads
