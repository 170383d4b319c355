"""Which sender speaks to a target."""

from __future__ import annotations

from collections.abc import Sequence

from understudy.loadtest.engine.answer import Check
from understudy.loadtest.engine.pool import Target
from understudy.loadtest.engine.script import Script
from understudy.loadtest.engine.sender import Sender


def sender_of(
    target: Target,
    payloads: Sequence[bytes],
    check: Check | None = None,
    first: int = 0,
    stride: int = 1,
    script: Script | None = None,
) -> Sender:
    """The sender of an open loop; see :class:`Sender`. Over HTTP/2 each payload is sent by itself,
    without a ``script``. Raises ValueError and OSError."""
    if target.http2:
        # Where HTTP/2 is not used, its library does not have to be there.
        from understudy.loadtest.engine.http2_sender import Http2Sender

        return Http2Sender(target.endpoint(), payloads, check, first, stride)
    return Sender(target.endpoint(), payloads, check, first, stride, script)
