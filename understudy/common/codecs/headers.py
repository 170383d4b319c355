"""Header lines as a mapping."""

from __future__ import annotations


def fields_of(lines: bytes) -> dict[bytes, bytes]:
    """The values by name of lines joined by CRLF, all in lower case. Values of lines with the same
    name are joined by commas.

    >>> fields_of(b"Content-Type: text/csv")
    {b'content-type': b' text/csv'}
    """
    found: dict[bytes, bytes] = {}
    for line in lines.lower().split(b"\r\n"):
        name, _, value = line.partition(b":")
        name = name.strip()
        found[name] = found[name] + b"," + value if name in found else value
    return found
