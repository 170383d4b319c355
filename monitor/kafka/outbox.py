"""What waits in the spool: a message for Kafka, with where it goes."""

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
    """``kind`` is RECORDS or LABELS; ``headers`` as kafka-python wants them."""

    kind: int
    partition: int
    value: bytes
    key: bytes | None = None
    headers: tuple[tuple[str, bytes], ...] = ()

    def pack(self) -> bytes:
        """As one entry of the spool."""
        key = self.key or b""
        said = [[name, value.decode("latin-1")] for name, value in self.headers]
        headers = orjson.dumps(said) if said else b""
        head = _HEAD.pack(self.kind, self.partition, len(key), len(headers))
        return b"".join((head, key, headers, self.value))

    @classmethod
    def unpack(cls, data: bytes) -> OutboxMessage:
        """Raises LogError for what is no parcel."""
        try:
            kind, partition, of_key, of_headers = _HEAD.unpack_from(data)
            start = _HEAD.size + of_key
            end = start + of_headers
            headers: tuple[tuple[str, bytes], ...] = ()
            if of_headers:
                headers = tuple(
                    (str(name), str(value).encode("latin-1"))
                    for name, value in orjson.loads(data[start:end])
                )
            return cls(kind, partition, data[end:], data[_HEAD.size : start] or None, headers)
        except (ValueError, TypeError, struct.error) as error:
            raise LogError(f"an entry of the spool is no message: {error!r}") from error
