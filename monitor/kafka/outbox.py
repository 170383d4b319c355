"""An entry of the spool: a message for Kafka, with its topic and partition."""

from __future__ import annotations

import struct
from dataclasses import dataclass

import orjson

from understudy.monitor.errors import LogError

RECORDS = 0
"""For the topic of records."""
LABELS = 1
"""For the topic of labels."""
_HEAD = struct.Struct("<BHHI")
"""kind · partition · lengths of key and headers"""


@dataclass(frozen=True, slots=True)
class OutboxMessage:
    """``kind`` is RECORDS or LABELS; ``headers`` are in kafka-python's format."""

    kind: int
    partition: int
    value: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()

    def pack(self) -> bytes:
        """Serialize to one entry of the spool."""
        key = self.key or b""
        pairs = [[name, value.decode("latin-1")] for name, value in self.headers]
        headers = orjson.dumps(pairs) if pairs else b""
        head = _HEAD.pack(self.kind, self.partition, len(key), len(headers))
        return b"".join((head, key, headers, self.value))

    @classmethod
    def unpack(cls, data: bytes) -> OutboxMessage:
        """Parse an entry of the spool. Raises LogError for one that is not valid."""
        try:
            kind, partition, key_length, headers_length = _HEAD.unpack_from(data)
            start = _HEAD.size + key_length
            end = start + headers_length
            headers: tuple[tuple[str, bytes], ...] = ()
            if headers_length:
                headers = tuple(
                    (str(name), str(value).encode("latin-1"))
                    for name, value in orjson.loads(data[start:end])
                )
            return cls(kind, partition, data[end:], data[_HEAD.size : start] or None, headers)
        except (ValueError, TypeError, struct.error) as error:
            raise LogError(f"not a valid entry of the spool: {error!r}") from error
