"""Names of headers, query parameters and fields that carry credentials of clients.

Headers and parameters that match are not sent to challengers; what matches is never shown. Patterns
are names in which * stands for any text; upper and lower case, and - and _, are treated alike, as
servers do.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from urllib.parse import unquote_to_bytes

CREDENTIAL_HEADERS = (
    "authorization", "*-authorization", "cookie", "set-cookie", "*api-key*", "*apikey*",
    "*-access-key", "*-token", "*-secret", "*-password", "*-jwt*", "*subscription-key",
    "*functions-key", "x-amzn-oidc-*", "x-ms-client-principal*", "x-forwarded-client-cert",
)  # fmt: skip
CREDENTIAL_QUERY = (
    "*token", "*api-key", "*apikey", "*access-key", "key", "auth", "authorization", "*password",
    "*passwd", "*secret", "sig", "*signature", "jwt", "x-amz-*", "x-goog-*",
)  # fmt: skip

CREDENTIAL_FIELDS = (
    "*api-key", "*apikey", "*access-key", "*private-key", "*authorization", "*password", "*passwd",
    "*secret", "*jwt", "access-token", "auth-token", "bearer-token", "id-token", "refresh-token",
    "session-token", "*-access-token", "*-auth-token", "*-session-token", "cookie", "set-cookie",
)  # fmt: skip
"""Keys of payloads: fewer than of queries, since a key, a sign or a token is also what models read
and write."""

_BRACKETS = re.compile(rb"[\[\]]+")


def normal(name: bytes) -> bytes:
    """A name as servers see it: many do not tell - from _, and none upper from lower case."""
    return name.lower().replace(b"_", b"-")


def matcher(patterns: Sequence[str]) -> Callable[[bytes], bool]:
    """Tells whether a name matches one of ``patterns``."""
    if not patterns:
        return lambda name: False
    parts = (re.escape(normal(pattern.encode())).replace(rb"\*", rb".*") for pattern in patterns)
    matches = re.compile(b"|".join(parts), re.DOTALL).fullmatch
    return lambda name: matches(normal(name)) is not None


def names_in(parameter: bytes) -> Iterator[bytes]:
    """The name of a query parameter, decoded, and the keys in its brackets: ``a``, ``key`` and
    ``0`` of ``a[key][0]=1``."""
    yield from _BRACKETS.split(unquote_to_bytes(parameter.partition(b"=")[0]).strip())
