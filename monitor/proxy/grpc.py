"""What the exchanges need to know of gRPC: how a call ended, and whether it can be copied."""

from __future__ import annotations

from collections.abc import Collection

from understudy.common.grpc_messages import HEAD
from understudy.monitor.proxy.head import ResponseHead
from understudy.monitor.records import grpc_status, record


def answered_outcome(head: ResponseHead, call: bool, overload: Collection[int]) -> int:
    """The outcome of a response that arrived whole. That of a ``call`` is in its gRPC status; one
    without a status is judged by the HTTP status, and is an error also where that is none.
    ``overload`` are HTTP statuses."""
    status = head.status
    if call:
        code = head.grpc_status
        if code != grpc_status.NONE:
            return grpc_status.outcome_of(code)
        if status < 400:
            return record.SERVER_ERROR
    elif status < 400:
        return record.OK
    if status in overload:
        return record.MODEL_OVERLOAD
    return record.CLIENT_ERROR if status < 500 else record.SERVER_ERROR


def call_status(head: ResponseHead | None, outcome: int, status: int) -> int:
    """The gRPC status that a call ended with, its client's view: what the model server said, or
    the proxy if the call did not end with an answer; ``status`` is the HTTP status."""
    if head is not None and head.grpc_status != grpc_status.NONE:
        return head.grpc_status
    if head is not None and outcome in record.ANSWERED:
        return grpc_status.own_status("", head.status)
    return grpc_status.own_status(record.OUTCOMES[outcome], status)


def is_unary(body: bytes | None) -> bool:
    """Whether the messages of a request, which was kept whole, are one: only such a call is copied
    to challengers, since the messages of a stream may depend on its answers."""
    if body is None or len(body) < HEAD.size:
        return False
    size: int = HEAD.unpack_from(body)[1]
    return size == len(body) - HEAD.size
