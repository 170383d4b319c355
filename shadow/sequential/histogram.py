"""Mergeable counts over fixed edges, small enough to be state.

Bucket i of m edges holds values in (edges[i-1], edges[i]]; bucket 0 everything at or below the
first edge and bucket m everything above the last. The edges are whatever the caller's latency
sketch has; logarithmic ones, 2^(i/s), are recognised and stored as three integers.

How large is the state? Counts are stored as variable-length integers, at most 5 bytes each up to
3.4e10 records, so two arms over 2^8 = 256 edges (a factor of 4 to either side of a quantile, at 64
buckets per doubling) stay under 4 KB whatever n is: see :func:`edges_around`.
"""

from __future__ import annotations

import base64
import binascii
import math
import zlib
from collections.abc import Mapping
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt

from understudy.shadow.sequential.arms import of_arms
from understudy.shadow.sequential.common import (
    Array,
    SequentialError,
    State,
    pack,
    positive,
    reals,
    unpack,
)
from understudy.shadow.state import Converter, Saved, Setting, Stateful, Through

MAX_EDGES = 8192
Counts = npt.NDArray[np.int64]


def edges_around(centre: float, *, doublings: float = 2.0, per_doubling: int = 64) -> Array:
    """Edges 2^(i/per_doubling) from centre/2^doublings to centre*2^doublings.

    They are a subset of the edges of any sketch with as many buckets per doubling, so that a whole
    sketch can be folded onto them exactly (:func:`fold`). ``centre`` is a first estimate of
    the quantile, for example from the champion's past; a quantile outside gives an infinite end.
    """
    middle = round(math.log2(positive("centre", centre)) * per_doubling)
    reach = max(1, round(positive("doublings", doublings) * per_doubling))
    if 2 * reach > MAX_EDGES:
        raise SequentialError("doublings", f"would need more than {MAX_EDGES} edges")
    return _powers(per_doubling, middle - reach, middle + reach)


def fold(counts: npt.ArrayLike, edges: npt.ArrayLike, onto: npt.ArrayLike) -> Counts:
    """Counts over ``edges`` as counts over the coarser ``onto``, exactly.

    Raises SequentialError when an edge of ``onto`` is not an edge of ``edges`` (to 1e-12).
    """
    fine, coarse = check_edges(edges), check_edges(onto)
    given = check_counts("counts", counts, fine.size + 1)
    at = np.clip(np.searchsorted(fine, coarse * (1.0 - 1e-12)), 0, fine.size - 1)
    if not np.allclose(fine[at], coarse, rtol=1e-12, atol=0.0):
        raise SequentialError("onto", "must be a subset of the edges that are folded")
    below = np.cumsum(given)[at]
    return np.diff(below, prepend=0, append=int(given.sum())).astype(np.int64)


def check_edges(edges: npt.ArrayLike) -> Array:
    """Edges as a strictly increasing float array of 1 to 8192 finite values."""
    e = reals("edges", edges)
    if not 0 < e.size <= MAX_EDGES:
        raise SequentialError("edges", f"must be 1 to {MAX_EDGES} values, not {e.size}")
    if not (np.diff(e) > 0.0).all():
        raise SequentialError("edges", "must increase strictly")
    return e


def check_counts(argument: str, counts: npt.ArrayLike, size: int) -> Counts:
    """Bucket counts as int64: whole, at least 0, of length ``size``."""
    c = reals(argument, counts)
    if c.size != size:
        raise SequentialError(argument, f"must have one count per bucket ({size}), not {c.size}")
    if not ((c >= 0.0) & (c == np.floor(c)) & (c < 2.0**53)).all():
        raise SequentialError(argument, "must hold whole numbers of at least 0")
    return c.astype(np.int64)


def bucket_counts(edges: Array, values: Array) -> Counts:
    """Counts per bucket, length edges + 1."""
    return np.bincount(np.searchsorted(edges, values), minlength=edges.size + 1).astype(np.int64)


def pack_counts(counts: Counts) -> str:
    """Counts as base64 text: variable-length integers, deflated when that is smaller."""
    raw = bytearray()
    for value in counts.tolist():
        while value > 127:
            raw.append(128 | (value & 127))
            value >>= 7
        raw.append(value)
    small = zlib.compress(bytes(raw), 9)
    plain = len(small) >= len(raw)
    body = (b"p" + bytes(raw)) if plain else (b"z" + small)
    return base64.b64encode(body).decode("ascii")


def unpack_counts(argument: str, text: Any, size: int) -> Counts:
    """Undo :func:`pack_counts`; SequentialError unless there are exactly ``size`` counts."""
    if not isinstance(text, str):
        raise SequentialError(argument, "must be base64 text")
    try:
        body = base64.b64decode(text, validate=True)
        if body[:1] == b"z":
            inflate = zlib.decompressobj()
            raw = inflate.decompress(body[1:], 10 * size + 1)
        else:
            raw = body[1:]
    except (binascii.Error, ValueError, zlib.error):
        raise SequentialError(argument, "must be counts as packed by pack_counts") from None
    values, value, shift = [], 0, 0
    for byte in raw:
        value |= (byte & 127) << shift
        shift += 7
        if byte < 128:
            values.append(value)
            value, shift = 0, 0
    if len(values) != size or shift or any(v >= 2**53 for v in values):
        raise SequentialError(argument, f"must hold {size} counts")
    return np.array(values, dtype=np.int64)


def _powers(per_doubling: int, first: int, last: int) -> Array:
    return np.asarray(2.0 ** (np.arange(first, last + 1) / per_doubling))


def pack_edges(edges: Array) -> State:
    """Edges as three integers when they are 2^(i/s), else as packed floats."""
    if edges.size >= 4 and edges[0] > 0.0:
        first, last = (math.log2(float(e)) for e in (edges[0], edges[-1]))
        scale = round((edges.size - 1) / (last - first))
        low = round(first * scale)
        if scale > 0 and np.allclose(
            edges, _powers(scale, low, low + edges.size - 1), rtol=1e-13, atol=0.0
        ):
            return {"per_doubling": scale, "first": low, "last": low + edges.size - 1}
    return {"edges": pack(edges), "size": int(edges.size)}


def unpack_edges(state: Any) -> Array:
    """Undo :func:`pack_edges`."""
    if not isinstance(state, Mapping):
        raise SequentialError("edges", "must be an object")
    if "per_doubling" not in state:
        size = state.get("size")
        if not isinstance(size, int) or not 0 < size <= MAX_EDGES:
            raise SequentialError("size", f"must be 1 to {MAX_EDGES}, not {size!r}")
        return check_edges(unpack("edges", state.get("edges"), size))
    numbers = [x for name in ("per_doubling", "first", "last") if type(x := state.get(name)) is int]
    if len(numbers) != 3:
        raise SequentialError("per_doubling", "and first and last must be whole numbers")
    scale, first, last = numbers
    if scale <= 0 or not 0 < last - first < MAX_EDGES or max(-first, last) > 1000 * scale:
        raise SequentialError("per_doubling", "and first and last must describe edges")
    return _powers(scale, first, last)


def _unpack_arms(name: str, texts: Any, now: Any) -> Counts:
    if not isinstance(texts, list) or len(texts) != 2:
        raise SequentialError(name, "must be the counts of two arms")
    return np.stack([unpack_counts(name, text, now.shape[1]) for text in texts])


Edges = Annotated[Array, Converter(pack_edges, lambda name, state, now: unpack_edges(state))]
PackedCounts = Annotated[
    Counts, Converter(pack_counts, lambda name, text, now: unpack_counts(name, text, now.size))
]
CountsOfArms = Annotated[
    Counts, Converter(lambda counts: [pack_counts(one) for one in counts], _unpack_arms)
]


class TwoHistograms(Stateful):
    """Counts of champion and challenger over shared edges; both additive."""

    edges: Setting[Edges]
    counts: Saved[CountsOfArms]

    def __init__(self, edges: npt.ArrayLike) -> None:
        self.edges = check_edges(edges)
        self.counts = np.zeros((2, self.edges.size + 1), dtype=np.int64)

    @property
    def totals(self) -> tuple[int, int]:
        """Records of champion and challenger."""
        return int(self.counts[0].sum()), int(self.counts[1].sum())

    def at_or_below(self) -> tuple[Counts, Counts]:
        """For champion and challenger, how many values are at or below each edge."""
        below = np.cumsum(self.counts[:, :-1], axis=1)
        return below[0], below[1]

    def update(self, arms: npt.ArrayLike, values: npt.ArrayLike) -> None:
        """Count records; ``arms`` is 1 for the challenger and 0 for the champion."""
        self.count(*of_arms(arms, values))

    def count(self, arm: Array, x: Array) -> None:
        """The same for arrays that are known to hold arms and values."""
        width = self.edges.size + 1
        cell = np.searchsorted(self.edges, x) + width * arm.astype(np.int64)
        if cell.size < max(64, self.counts.size // 8):
            np.add.at(self.counts.reshape(-1), cell, 1)
        else:
            self.counts += np.bincount(cell, minlength=2 * width).reshape(2, width)

    def update_counts(self, champion: npt.ArrayLike, challenger: npt.ArrayLike) -> None:
        """Add bucket counts, each of length edges + 1."""
        size = self.edges.size + 1
        self.counts += np.stack(
            (
                check_counts("champion", champion, size),
                check_counts("challenger", challenger, size),
            )
        )

    def merge(self, other: TwoHistograms) -> TwoHistograms:
        """Add the counts of two histograms over the same edges."""
        if not np.array_equal(self.edges, other.edges):
            raise SequentialError("other", "cannot be merged: its edges differ")
        both = TwoHistograms(self.edges)
        both.counts = self.counts + other.counts
        return both


OfEdges = Annotated[TwoHistograms, Through("edges")]
"""The histograms that a constructor is given by their edges."""
