"""Which units take part: salted, sticky, and monotone in the share.

A unit (a request id, a user) is hashed with a salt to a point in [0, 1). It takes part when the
point lies below the share, so a larger share keeps everyone who was in, and every replica decides
alike without talking to another. Different salts give independent points.

Only the standard library is used here: the workers of the data plane import this module.
"""

from __future__ import annotations

from hashlib import blake2b

_POINTS = 1 << 64


def threshold(share: float) -> int:
    """The bound that :func:`point` has to stay below for a ``share`` in [0, 1] of all units."""
    if not 0.0 <= share <= 1.0:
        raise ValueError(f"share must lie in [0, 1], not {share}")
    return round(share * _POINTS)


def point(salt: bytes, unit: bytes) -> int:
    """A uniform integer in [0, 2^64) for ``unit``; ``salt`` is at most 64 bytes long."""
    return int.from_bytes(blake2b(unit, digest_size=8, key=salt).digest(), "little")
