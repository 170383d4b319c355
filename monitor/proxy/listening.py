"""Closes a listening socket without losing the connections in its accept queue.

When a listening socket is closed, the kernel resets every connection that was not accepted, though
its client already sees it as connected. So new handshakes are stopped first, then the queue is
accepted until it is empty, then the socket is closed.
"""

from __future__ import annotations

import array
import contextlib
import select
import socket
import struct
import sys

_SO_ATTACH_FILTER = 26
# Classic BPF over TCP headers: it drops packets with SYN and without ACK, and accepts all others,
# so that handshakes in progress can complete.
_NO_NEW_ONES = (
    (0x30, 0, 0, 13),  # the byte of the flags
    (0x54, 0, 0, 0x12),  # SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)


def stop_new_connections(listener: socket.socket) -> bool:
    """Make the kernel drop new handshakes; clients retry after a second, and are refused once the
    socket is closed. False when the kernel does not support it: then a client that connects between
    the last check of the queue and the close of the socket is reset."""
    if sys.platform != "linux":
        return False
    code = array.array("B", b"".join(struct.pack("=HBBI", *step) for step in _NO_NEW_ONES))
    program = struct.pack("@HP", len(_NO_NEW_ONES), code.buffer_info()[0])
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        return True
    return False


def has_pending_connection(listener: socket.socket) -> bool:
    """Whether a connection waits to be accepted; none does where another process that has the same
    socket has shut it down."""
    look = select.poll()
    look.register(listener.fileno(), select.POLLIN)
    return any(events & select.POLLIN and not events & select.POLLHUP for _, events in look.poll(0))
