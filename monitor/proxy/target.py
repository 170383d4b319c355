"""Request targets other than paths: absolute targets, ``*``, and rejected ones.

Pure functions over bytes, without input or output.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from urllib.parse import quote, unquote_to_bytes, urlsplit

from understudy.monitor.errors import HttpError

HOST_VALUE = re.compile(rb"[A-Za-z0-9\-._~%!$&'()*+,;=:\[\]]*")
"""Grammar of a Host field or an authority."""


_ODD = re.compile(rb"%|//|/\.")


def normal_path(path: bytes) -> bytes:
    """The path that servers take this one for: decoded, without empty and dot segments.

    It is compared and never sent.

    >>> normal_path(b"/v1//models/a/../m%3Apredict")
    b'/v1/models/m:predict'
    """
    if _ODD.search(path) is None:
        return path
    kept: list[bytes] = []
    for segment in unquote_to_bytes(path).split(b"/"):
        if segment == b"..":
            del kept[-1:]
        elif segment not in (b"", b"."):
            kept.append(segment)
    return b"/" + b"/".join(kept)


_UNQUOTED = "/:@!$&'()*+,;=-._~"
"""Signs that a path may have as they are (RFC 3986, 3.3)."""


def spellings(path: bytes) -> tuple[bytes, bytes]:
    """The path as it is, and as servers take it, encoded so that it can be sent."""
    return path, quote(normal_path(path), safe=_UNQUOTED).encode()


def rewritten(target: bytes, rewrites: Sequence[tuple[bytes, bytes]]) -> bytes:
    """The target with the first of these beginnings that fits replaced.

    One that is spelled in another way fits as well: otherwise it would reach another model than the
    one that is meant.

    >>> rewritten(b"/v2/models/m/infer?x=1", [(b"/v2/models/m/", b"/v2/models/n/")])
    b'/v2/models/n/infer?x=1'
    """
    path, mark, query = target.partition(b"?")
    for spelled in spellings(path):
        for old, new in rewrites:
            if spelled.startswith(old):
                return new + spelled[len(old) :] + mark + query
    return target


def origin_form(method: bytes, target: bytes) -> tuple[bytes, bytes | None]:
    """The path to request, and the authority that replaces Host (RFC 9112, 3.2.2).

    The authority is None for ``OPTIONS *``. Raises HttpError: 405 for CONNECT, 400 for a malformed
    target.
    """
    if method == b"CONNECT":
        raise HttpError(405, "method", "CONNECT is not for this server")
    if target == b"*" and method == b"OPTIONS":
        return target, None
    try:
        parts = urlsplit(target)
    except ValueError:
        parts = None
    if parts is None or parts.scheme.lower() not in (b"http", b"https") or not parts.netloc:
        raise HttpError(400, "bad_request_line", "the request target is malformed")
    if b"@" in parts.netloc or HOST_VALUE.fullmatch(parts.netloc) is None:
        raise HttpError(400, "bad_host", "the authority of the target is malformed")
    begin = target.index(b"//") + 2 + len(parts.netloc)
    path = target[begin:].partition(b"#")[0]
    return (path if path.startswith(b"/") else b"/" + path), parts.netloc
