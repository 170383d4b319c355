"""A listening socket that is closed without losing those who wait in its queue.

The kernel resets every connection that nobody has accepted when a listening socket is closed, and
whoever is in there has been told already that it is connected. So at first no one new is let in,
then the queue is emptied, then the socket is closed.
"""

from __future__ import annotations

import array
import contextlib
import select
import socket
import struct
import sys

_SO_ATTACH_FILTER = 26
# Classic BPF, which sees TCP headers here: 0 bytes are kept of what has SYN and no ACK, all of the
# rest, so that handshakes under way can end.
_NO_NEW_ONES = (
    (0x30, 0, 0, 13),  # the byte of the flags
    (0x54, 0, 0, 0x12),  # SYN and ACK
    (0x15, 0, 1, 0x02),  # SYN alone?
    (0x06, 0, 0, 0),
    (0x06, 0, 0, 0xFFFFFFFF),
)


def let_nobody_in(listener: socket.socket) -> bool:
    """Have the kernel drop requests for connections; who sends them asks again after a second, and
    is refused once the socket is closed. False where the kernel cannot: then whoever comes between
    the last look into the queue and the end of the socket is reset."""
    if sys.platform != "linux":
        return False
    code = array.array("B", b"".join(struct.pack("=HBBI", *step) for step in _NO_NEW_ONES))
    program = struct.pack("@HP", len(_NO_NEW_ONES), code.buffer_info()[0])
    with contextlib.suppress(OSError):
        listener.setsockopt(socket.SOL_SOCKET, _SO_ATTACH_FILTER, program)
        return True
    return False


def somebody_waits(listener: socket.socket) -> bool:
    """Whether a connection is there to be accepted."""
    look = select.poll()
    look.register(listener.fileno(), select.POLLIN)
    return bool(look.poll(0))
