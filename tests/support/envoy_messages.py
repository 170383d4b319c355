"""What Envoy tells an external processor, written by hand: ``ProcessingRequest`` messages."""

from __future__ import annotations

from tests.support.grpc_calls import PATH


def field(number: int, content: bytes | int) -> bytes:
    """A field of a message."""
    if isinstance(content, int):
        return bytes((number << 3, content))
    size = len(content)
    length = b""
    while size > 127:
        length, size = length + bytes((size & 127 | 128,)), size >> 7
    return bytes((number << 3 | 2,)) + length + bytes((size,)) + content


def header_map(headers: dict[bytes, bytes]) -> bytes:
    lines = (field(1, name) + field(3, value) for name, value in headers.items())
    return b"".join(field(1, line) for line in lines)


def headers(number: int, of: dict[bytes, bytes], end: bool = False) -> bytes:
    mode = field(10, 1) if number == 2 else b""
    return field(number, field(1, header_map(of)) + (field(3, 1) if end else b"")) + mode


def body(number: int, piece: bytes, end: bool = False) -> bytes:
    return field(number, field(1, piece) + (field(2, 1) if end else b""))


def request(path: bytes, method: bytes = b"POST", **more: bytes) -> bytes:
    named = {name.replace("_", "-").encode(): value for name, value in more.items()}
    return headers(2, {b":path": path, b":method": method, **named})


def call(path: bytes = PATH) -> bytes:
    return request(path, content_type=b"application/grpc", x_request_id=b"rid")


ANSWERED = headers(3, {b":status": b"200", b"content-type": b"application/grpc"})
GOOD = field(7, field(1, header_map({b"grpc-status": b"0"})))
