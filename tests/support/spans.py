"""What spans are made of: records of traced requests, and a configuration that they belong to."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from understudy.monitor.records.encode import encode
from understudy.monitor.records.record import OK, ROLE_PRIMARY, Record, decode_batch
from understudy.monitor.telemetry.otlp.spans import Finished

CONFIG = """
version: 1
listen: 127.0.0.1:8080
models:
  - {name: m, version: "3"}
  - {name: scores, paths: [/score/*, /exact]}
champion: {url: "https://models.example/base"}
challengers:
  - name: candidate
    url: "unix:/run/model.sock"
    rewrite_path: {/v2/models/m/: /v2/models/n/}
"""
TRACE, PARENT, SPAN, CALL = "0af7651916cd43dd8448eb211c80319c", "1" * 16, "2" * 16, "3" * 16


def finished(outcome: int = OK, status: int = 200, **changes: Any) -> Finished:
    text = f"{PARENT} {SPAN} {CALL} 03 POST 1 0 ".encode()
    of = Finished(
        "m", "3", "champion", "", ROLE_PRIMARY, status, outcome, 1000.5, 30_000_000, 20_000_000,
        5_000_000, b"r1", b"/v2/models/m/infer", b"", TRACE.encode(), text, "",
    )  # fmt: skip
    return replace(of, **changes)


def traced_record(
    number: int, arm: int, role: int, trace: str, span: str, sampled: bool = False
) -> Record:
    """A record of an answered request with the id ``number``, without payloads; ``span`` is what
    follows the trace id."""
    numbers = (0, arm, 200, role, OK, 1.7e9 + number, 10_000_000, 5_000_000, 0, 7, 7)
    _, parts = encode(
        *numbers, b"r%d" % number, f"{trace} {span}".encode(), b"", b"/v2/models/delays/infer", b"",
        b"", None, None, 0, number, sampled, True,
    )  # fmt: skip
    (record,) = decode_batch(b"".join(parts))
    return record
