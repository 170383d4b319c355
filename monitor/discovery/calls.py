"""Asks a model server over HTTP/2: for plain requests, or by gRPC calls of the Open Inference
Protocol.

A :class:`CallAsker` takes the paths and documents of the protocol over HTTP and gives the answers
that a server over HTTP would, so that what asks does not have to know how.
"""

from __future__ import annotations

import json
import re
import ssl
from collections.abc import Mapping
from typing import Any
from urllib.parse import unquote, unquote_to_bytes

from understudy.common import grpc_status
from understudy.common.codecs import Undecodable
from understudy.common.codecs.infer_message import infer_request
from understudy.common.codecs.open_inference_grpc import response_of
from understudy.common.grpc_messages import SERVICE, FramingError, framed, frames
from understudy.common.http2_client import Http2Client, Http2Response
from understudy.common.protobuf import ProtobufError, fields, packed, signed, text
from understudy.common.protobuf_writer import text as text_field
from understudy.monitor.config.fields import server_address
from understudy.monitor.discovery.asking import Reply

HEALTH = "/grpc.health.v1.Health/Check"
_SERVING = 1
_MODEL = re.compile(r"/v2/models/([^/]+)(?:/versions/([^/]+))?(/infer)?")
_HTTP = {
    grpc_status.OK: 200,
    grpc_status.INVALID_ARGUMENT: 400,
    grpc_status.UNAUTHENTICATED: 401,
    grpc_status.PERMISSION_DENIED: 403,
    grpc_status.NOT_FOUND: 404,
    grpc_status.UNIMPLEMENTED: 404,
    grpc_status.UNAVAILABLE: 503,
    grpc_status.DEADLINE_EXCEEDED: 504,
}
"""The status that an answer over HTTP would have."""
_CALL = ((b"content-type", b"application/grpc"), (b"te", b"trailers"))


class Http2Asker:
    """As :class:`understudy.monitor.discovery.asking.Asker`, over HTTP/2. Raises OSError when the
    server cannot be reached."""

    def __init__(
        self,
        url: str,
        timeout: float = 5.0,
        headers: Mapping[str, str] | None = None,
        tls: ssl.SSLContext | None = None,
        server_name: str | None = None,
    ) -> None:
        address = server_address(url)
        if address.secure and tls is None:
            tls = ssl.create_default_context()
        given = {name.lower(): value for name, value in (headers or {}).items()}
        self._path = address.path
        self._authority = given.pop("host", address.authority)
        self._headers = tuple((k.encode(), v.encode("latin-1")) for k, v in given.items())
        self._client = Http2Client(
            address.host, address.port, tls if address.secure else None, server_name, timeout,
            unix=address.socket,
        )  # fmt: skip

    def __enter__(self) -> Http2Asker:
        return self

    def __exit__(self, *_: object) -> None:
        self._client.close()

    def get(self, path: str) -> Reply:
        """GET ``path``. Raises OSError, with the reason, when the server does not answer."""
        return _reply(self._ask("GET", self._path + path))

    def post(self, path: str, document: Any) -> Reply:
        """POST a document as JSON; bytes are sent as they are. Raises OSError."""
        raw = document if isinstance(document, bytes) else json.dumps(document).encode()
        about = ((b"content-type", b"application/json"),)
        return _reply(self._ask("POST", self._path + path, about, raw))

    def _ask(
        self, method: str, path: str, about: tuple[Any, ...] = (), body: bytes = b""
    ) -> Http2Response:
        return self._client.request(method, path, self._authority, (*about, *self._headers), body)


class CallAsker(Http2Asker):
    """Asks by gRPC calls. Paths that no method stands for are not found, and a method that the
    server does not have is not found either."""

    def get(self, path: str) -> Reply:
        """What the call that stands for ``path`` says, as JSON. Raises OSError."""
        if path in ("/", "/v2/health/live"):
            return self._flag("ServerLive", b"")
        if path == "/v2/health/ready":
            return self._ready()
        if path == "/v2":
            return self._document("ServerMetadata", b"", _server)
        named = _MODEL.fullmatch(path)
        if named is not None and not named[3]:
            return self._document("ModelMetadata", _names(named[1], named[2]), _metadata)
        return Reply(404, {}, b"")

    def post(self, path: str, document: Any) -> Reply:
        """The same; inference is ``ModelInfer``. Raises OSError."""
        if path == "/v2/repository/index":
            return self._document("RepositoryIndex", b"", _index)
        named = _MODEL.fullmatch(path)
        if named is None or not named[3]:
            return Reply(404, {}, b"")
        value = json.loads(document) if isinstance(document, bytes) else document
        try:
            request = infer_request(value, unquote(named[1]), unquote(named[2] or ""))
        except ValueError as error:
            return Reply(400, {}, str(error).encode())
        return self._document("ModelInfer", request, None)

    def model_ready(self, name: str) -> bool | None:
        """What ``ModelReady`` says of a model; None where the call fails. Raises OSError."""
        reply = self._flag("ModelReady", text_field(1, name))
        return reply.status == 200 if reply.status in (200, 503) else None

    def _ready(self) -> Reply:
        """Whether the server is ready, by its protocol and by the health service, if it has it."""
        reply = self._flag("ServerReady", b"")
        if reply.status != 200:
            return reply
        health = self._call(HEALTH, b"")
        if isinstance(health, bytes) and _number(health, 1) not in (None, _SERVING):
            return Reply(503, {}, b"the health service says that it is not serving")
        return reply

    def _flag(self, method: str, request: bytes) -> Reply:
        message = self._call(SERVICE + method, request)
        if isinstance(message, Reply):
            return message
        return Reply(200 if _number(message, 1) else 503, {}, b"")

    def _document(self, method: str, request: bytes, read: Any) -> Reply:
        message = self._call(SERVICE + method, request)
        if isinstance(message, Reply):
            return message
        if read is not None:
            try:
                value = read(message)
            except ProtobufError as error:
                return Reply(502, {}, str(error).encode())
        else:
            value = response_of(b"content-type: application/grpc", framed(message))
            outputs = value["outputs"] if isinstance(value, dict) else [{"data": value}]
            unread = next((o["data"] for o in outputs if isinstance(o["data"], Undecodable)), None)
            if unread is not None:
                return Reply(502, {}, f"{unread.reason}: {unread.detail}".encode())
        about = {"content-type": "application/json"}
        return Reply(200, about, json.dumps(value).encode())

    def _call(self, path: str, request: bytes) -> bytes | Reply:
        """The message of the answer, or what went wrong. Raises OSError."""
        found = self._ask("POST", path, _CALL, framed(request))
        said = found.fields.get(b"grpc-status")
        if said is None:
            status = found.status if found.status >= 400 else 502
            return Reply(status, {}, b"the answer is not one of gRPC")
        code = grpc_status.code_of(said)
        if code != grpc_status.OK:
            why = unquote_to_bytes(found.fields.get(b"grpc-message", b""))
            name = grpc_status.NAMES[code].encode()
            return Reply(_HTTP.get(code, 500), {}, b"%b: %b" % (name, why))
        try:
            return next((found.body[a:b] for zipped, a, b in frames(found.body) if not zipped), b"")
        except FramingError as error:
            return Reply(502, {}, str(error).encode())


def _reply(found: Http2Response) -> Reply:
    headers = {
        name.decode("latin-1"): value.decode("latin-1") for name, value in found.fields.items()
    }
    return Reply(found.status, headers, found.body)


def _names(name: str, version: str | None) -> bytes:
    return text_field(1, unquote(name)) + (text_field(2, unquote(version)) if version else b"")


def _number(message: bytes, wanted: int) -> int | None:
    try:
        found = [value for tag, value, _ in fields(message, 0, len(message)) if tag == wanted << 3]
    except ProtobufError:
        return None
    return found[-1] if found else None


def _server(message: bytes) -> dict[str, Any]:
    """Raises ProtobufError."""
    found: dict[str, Any] = {"name": "", "version": ""}
    for tag, begin, end in fields(message, 0, len(message)):
        if tag in (0x0A, 0x12):
            found["name" if tag == 0x0A else "version"] = text(message, begin, end)
    return found


def _metadata(message: bytes) -> dict[str, Any]:
    """Raises ProtobufError."""
    found: dict[str, Any] = {"name": "", "inputs": [], "outputs": []}
    for tag, begin, end in fields(message, 0, len(message)):
        if tag == 0x0A:
            found["name"] = text(message, begin, end)
        elif tag in (0x22, 0x2A):
            found["inputs" if tag == 0x22 else "outputs"].append(_tensor(message, begin, end))
    return found


def _tensor(message: bytes, begin: int, end: int) -> dict[str, Any]:
    """Raises ProtobufError."""
    found: dict[str, Any] = {"name": "", "datatype": "", "shape": []}
    for tag, first, last in fields(message, begin, end):
        if tag in (0x0A, 0x12):
            found["name" if tag == 0x0A else "datatype"] = text(message, first, last)
        elif tag == 0x1A:
            found["shape"] += map(signed, packed(message, first, last))
        elif tag == 0x18:
            found["shape"].append(signed(first))
    return found


def _index(message: bytes) -> list[dict[str, Any]]:
    """Raises ProtobufError."""
    found = []
    for tag, begin, end in fields(message, 0, len(message)):
        if tag == 0x0A:
            one = {"name": "", "version": ""}
            for inner, first, last in fields(message, begin, end):
                if inner in (0x0A, 0x12):
                    one["name" if inner == 0x0A else "version"] = text(message, first, last)
            found.append(one)
    return found
