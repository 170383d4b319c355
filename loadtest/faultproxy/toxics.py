"""Faults of a stream of bytes. Names and attributes are Toxiproxy's, except ``corrupt`` and
``http_error``.

Times in attributes are in milliseconds, as in Toxiproxy; the delay of the slicer in microseconds.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

DEFAULTS: Mapping[str, Mapping[str, float]] = {
    "latency": {"latency": 0, "jitter": 0},
    "bandwidth": {"rate": 0},
    "slow_close": {"delay": 0},
    "timeout": {"timeout": 0},
    "reset_peer": {"timeout": 0},
    "slicer": {"average_size": 0, "size_variation": 0, "delay": 0},
    "limit_data": {"bytes": 0},
    "corrupt": {"probability": 0.001},
    "http_error": {"status": 503, "probability": 1.0},
}
"""Attributes and their defaults, by type. A latency delays every piece; a bandwidth of
KB/s; slow_close keeps a closed end open; timeout drops all bytes, and closes after that time (0:
never); reset_peer resets the connection; a slicer cuts into pieces; limit_data closes after so many
bytes, which truncates; corrupt changes single bytes; http_error responds instead of the server, and
closes."""


class ToxicError(ValueError):
    """An invalid toxic."""


@dataclass(slots=True)
class Toxic:
    """A fault. ``stream``: downstream is towards the client; ``toxicity`` is the share of
    connections that it affects."""

    name: str
    type: str
    stream: Literal["upstream", "downstream"] = "downstream"
    toxicity: float = 1.0
    attributes: dict[str, float] = field(default_factory=dict)

    @classmethod
    def parse(cls, data: Mapping[str, Any]) -> Toxic:
        """From the API's JSON. Raises ToxicError."""
        kind = str(data.get("type", ""))
        if kind not in DEFAULTS:
            raise ToxicError(f"invalid toxic type {kind!r}: {', '.join(DEFAULTS)}")
        stream = str(data.get("stream") or "downstream")
        if stream not in ("upstream", "downstream"):
            raise ToxicError(
                f"stream was invalid, can be either upstream or downstream: {stream!r}"
            )
        toxic = cls(str(data.get("name") or f"{kind}_{stream}"), kind, stream)  # type: ignore[arg-type]
        toxic.attributes = dict(DEFAULTS[kind])
        toxic.update(data)
        return toxic

    def update(self, data: Mapping[str, Any]) -> None:
        """Update attributes and toxicity from the API's JSON. Raises ToxicError."""
        attributes = data.get("attributes") or {}
        if not isinstance(attributes, Mapping):
            raise ToxicError("attributes must be an object")
        for name, value in attributes.items():
            if name not in DEFAULTS[self.type]:
                raise ToxicError(f"{self.type} has no attribute {name!r}")
            if isinstance(value, bool) or not isinstance(value, (int, float)) or value < 0:
                raise ToxicError(f"{self.type}.{name} must be a number, at least 0")
            self.attributes[name] = float(value)
        toxicity = data.get("toxicity", self.toxicity)
        if isinstance(toxicity, bool) or not isinstance(toxicity, (int, float)):
            raise ToxicError("toxicity must be a number")
        self.toxicity = min(1.0, max(0.0, float(toxicity)))

    def to_dict(self) -> dict[str, Any]:
        """As the API's JSON."""
        return {
            "name": self.name,
            "type": self.type,
            "stream": self.stream,
            "toxicity": self.toxicity,
            "attributes": self.attributes,
        }


class Closed(Exception):
    """The connection must be closed; ``reset``: with a RST."""

    def __init__(self, reset: bool = False) -> None:
        super().__init__()
        self.reset = reset


async def apply_toxics(
    toxics: list[Toxic], data: bytes, forwarded: int, chance: random.Random
) -> list[bytes]:
    """Apply ``toxics`` to ``data``; return the pieces to send (none: dropped). ``forwarded`` bytes
    were sent before. Raises Closed."""
    pieces = [data]
    for toxic in toxics:
        at = toxic.attributes
        if toxic.type == "timeout":
            if at["timeout"]:
                await asyncio.sleep(at["timeout"] / 1e3)
                raise Closed
            return []
        if toxic.type == "reset_peer":
            await asyncio.sleep(at["timeout"] / 1e3)
            raise Closed(reset=True)
        if toxic.type == "latency":
            jitter = at["jitter"] * (2.0 * chance.random() - 1.0) if at["jitter"] else 0.0
            await asyncio.sleep(max(0.0, at["latency"] + jitter) / 1e3)
        elif toxic.type == "bandwidth" and at["rate"]:
            await asyncio.sleep(sum(map(len, pieces)) / (at["rate"] * 1e3))
        elif toxic.type == "slicer" and at["average_size"] >= 1:
            pieces = _sliced(pieces, int(at["average_size"]), int(at["size_variation"]), chance)
            await asyncio.sleep(at["delay"] / 1e6)
        elif toxic.type == "limit_data":
            left = int(at["bytes"]) - forwarded
            if sum(map(len, pieces)) >= left:
                raise _Truncated(b"".join(pieces)[: max(0, left)])
        elif toxic.type == "http_error":
            if chance.random() < at["probability"]:
                raise _Truncated(_error(int(at["status"])))
        elif toxic.type == "corrupt":
            pieces = [_corrupted(piece, at["probability"], chance) for piece in pieces]
    return pieces


class _Truncated(Closed):
    def __init__(self, rest: bytes) -> None:
        super().__init__()
        self.rest = rest


def rest_of(closed: Closed) -> bytes:
    """Bytes to send before the connection closes."""
    return closed.rest if isinstance(closed, _Truncated) else b""


def _error(status: int) -> bytes:
    body = b'{"error": "injected"}'
    head = (
        f"HTTP/1.1 {status} Injected\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\nconnection: close\r\n\r\n"
    )
    return head.encode() + body


def _sliced(pieces: list[bytes], size: int, variation: int, chance: random.Random) -> list[bytes]:
    slices = []
    for piece in pieces:
        index = 0
        while index < len(piece):
            step = max(1, size + chance.randint(-variation, variation))
            slices.append(piece[index : index + step])
            index += step
    return slices


def _corrupted(piece: bytes, probability: float, chance: random.Random) -> bytes:
    corrupted = bytearray(piece)
    for index in range(len(corrupted)):
        if chance.random() < probability:
            corrupted[index] ^= 1 << chance.randrange(8)
    return bytes(corrupted)
