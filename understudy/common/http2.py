"""Framing, header compression and flow control of HTTP/2: the only module that knows the library.

``ngh2`` binds libnghttp2 and does no input or output. Where it is not installed, :data:`AVAILABLE`
is False, and connections speak HTTP/1.1 only.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

try:
    from ngh2 import (
        Configuration,
        Connection,
        ConnectionClosed,
        DataReceived,
        GoAwayReceived,
        NGH2Error,
        RequestReceived,
        ResponseReceived,
        Role,
        SettingsReceived,
        StreamClosed,
        TrailersReceived,
    )

    AVAILABLE = True
except ImportError:
    AVAILABLE = False
    if not TYPE_CHECKING:

        class NGH2Error(Exception):
            """Stands for the library's error."""

        class Missing:
            """Stands for the library's classes."""

        Configuration = Connection = ConnectionClosed = DataReceived = GoAwayReceived = Missing
        RequestReceived = ResponseReceived = Role = SettingsReceived = StreamClosed = Missing
        TrailersReceived = Missing

__all__ = [
    "AVAILABLE",
    "Connection",
    "ConnectionClosed",
    "DataReceived",
    "EngineError",
    "GoAwayReceived",
    "RequestReceived",
    "ResponseReceived",
    "SettingsReceived",
    "StreamClosed",
    "TrailersReceived",
    "client",
    "server",
]

INSTALL = "HTTP/2 needs the package ngh2 (pip install ngh2)"
"""What to say where the library is missing."""
EngineError = NGH2Error

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""The first bytes of a client."""
STREAMS = 100
"""Most requests of a client's connection at a time, and to a model server over one connection."""
WINDOW = 256 * 1024
"""Bytes that a peer may send of one message before it is read. Those of all streams fit into the
window of the connection, so that a stream that is not read does not stop the others."""
FRAME = 64 * 1024
"""Largest frame that is accepted."""
ACKS = 1000
SETTINGS = 32
RESETS = (1000, 33)
GLITCHES = (10_000, 330)
CONTINUATIONS = 8
"""Limits against floods; a peer that exceeds one loses its connection. Resets (a burst, and how
many a second) are those of clients: CVE-2023-44487."""
FIELD_BYTES = 128 * 1024
"""Largest list of fields that is unpacked; a request with a larger one than the limits of clients
say gets a 431, and beyond this its connection ends."""

NO_ERROR = 0
INTERNAL_ERROR = 2
REFUSED = 7
CANCEL = 8
"""Codes of frames that end a stream or a connection."""

_MAX_CONCURRENT_STREAMS = 3
_INITIAL_WINDOW_SIZE = 4
_MAX_FRAME_SIZE = 5
_MAX_HEADER_LIST_SIZE = 6
_ENABLE_PUSH = 2


def _configuration(fields: int) -> Configuration:
    return Configuration(
        auto_window_update=False,
        max_outbound_ack=ACKS,
        max_settings=SETTINGS,
        max_continuations=CONTINUATIONS,
        stream_reset_rate_limit=RESETS,
        glitch_rate_limit=GLITCHES,
        max_inbound_header_list_size=FIELD_BYTES,
        max_inbound_header_count=fields,
    )


def server(head_bytes: int, fields: int) -> Connection:
    """The engine of a client's connection. ``head_bytes`` is announced as the limit of a head,
    ``fields`` is the largest number of fields that is unpacked."""
    engine = Connection(Role.SERVER, _configuration(fields))
    engine.initiate_connection(
        {
            _MAX_CONCURRENT_STREAMS: STREAMS,
            _INITIAL_WINDOW_SIZE: WINDOW,
            _MAX_FRAME_SIZE: FRAME,
            _MAX_HEADER_LIST_SIZE: head_bytes,
        }
    )
    engine.set_local_window_size(STREAMS * WINDOW)
    return engine


def client(fields: int) -> Connection:
    """The engine of a connection to a model server; ``fields`` is the largest number of fields that
    is unpacked."""
    engine = Connection(Role.CLIENT, _configuration(fields))
    settings: Any = {_ENABLE_PUSH: 0, _INITIAL_WINDOW_SIZE: WINDOW, _MAX_FRAME_SIZE: FRAME}
    engine.initiate_connection(settings)
    engine.set_local_window_size(STREAMS * WINDOW)
    return engine


def streams_of(engine: Connection) -> int:
    """How many requests the peer allows at a time, at most :data:`STREAMS`."""
    return min(STREAMS, engine.remote_settings.get(_MAX_CONCURRENT_STREAMS, STREAMS))
