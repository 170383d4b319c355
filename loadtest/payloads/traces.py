"""Published traces of language models: when requests came, and how long prompts and answers were.

Azure's LLM inference traces (CSV: ``TIMESTAMP,ContextTokens,GeneratedTokens``), Mooncake's (JSON
lines: ``timestamp`` in ms, ``input_length``, ``output_length``, ``hash_ids`` of blocks of 512
tokens, of which equal ones are shared prefixes) and BurstGPT's (CSV: ``Timestamp`` in s, ``Request
tokens``, ``Response tokens``).
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from understudy.common.unreadable import why_unreadable
from understudy.loadtest.errors import PlanError

BLOCK_TOKENS = 512
"""Tokens of a block of Mooncake's traces."""


@dataclass(frozen=True, slots=True)
class Traced:
    """A request of a trace: ``at`` in seconds, tokens of its prompt and answer, and the ids of the
    blocks of its prompt, where the trace has them."""

    at: float
    input_tokens: int
    output_tokens: int
    blocks: tuple[int, ...] = ()


def is_trace(path: Path) -> bool:
    """Whether a file is a trace of language models, by its first line. Raises PlanError."""
    return _reader(path, _first_line(path)) is not None


def read_trace(path: Path, most: int) -> list[Traced]:
    """The first ``most`` requests of a trace, ordered by time. Raises PlanError."""
    reader = _reader(path, _first_line(path))
    if reader is None:
        raise PlanError(
            f"{path}: not a trace of language models: expected Azure's CSV "
            "(TIMESTAMP,ContextTokens,GeneratedTokens), Mooncake's JSONL (timestamp, input_length, "
            "output_length) or BurstGPT's CSV (Timestamp, Request tokens, Response tokens)"
        )
    rows: list[Traced] = []
    try:
        with open(path, encoding="utf-8-sig", newline="") as file:
            for row in reader(path, file):
                rows.append(row)
                if len(rows) >= most:
                    break
    except (OSError, UnicodeDecodeError) as error:
        raise PlanError(f"{path}: cannot be read: {why_unreadable(path, error)}") from error
    if not rows:
        raise PlanError(f"{path}: has no requests")
    return sorted(rows, key=lambda row: row.at)


Reader = Callable[[Path, Any], Iterator[Traced]]


def _first_line(path: Path) -> str:
    try:
        with open(path, encoding="utf-8-sig", errors="replace") as file:
            return file.readline(1 << 20)
    except IsADirectoryError:
        return ""  # of records, see files.recorded()
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {why_unreadable(path, error)}") from error


def _reader(path: Path, line: str) -> Reader | None:
    if line.lstrip().startswith("{"):
        return _mooncake if '"input_length"' in line else None
    columns = {name.strip() for name in line.strip().split(",")}
    if {"TIMESTAMP", "ContextTokens", "GeneratedTokens"} <= columns:
        return _azure
    if {"Timestamp", "Request tokens", "Response tokens"} <= columns:
        return _burst_gpt
    return None


def _azure(path: Path, file: Any) -> Iterator[Traced]:
    def when(text: str) -> float:
        found = datetime.fromisoformat(text)
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()

    return _csv(path, file, "TIMESTAMP", "ContextTokens", "GeneratedTokens", when)


def _burst_gpt(path: Path, file: Any) -> Iterator[Traced]:
    return _csv(path, file, "Timestamp", "Request tokens", "Response tokens", float)


def _csv(
    path: Path, file: Any, at: str, asked: str, answered: str, when: Callable[[str], float]
) -> Iterator[Traced]:
    for number, row in enumerate(csv.DictReader(file), 2):
        with _line(path, number):
            yield _row(when(row[at].strip()), row[asked], row[answered])


def _mooncake(path: Path, file: Any) -> Iterator[Traced]:
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        with _line(path, number):
            row: Mapping[str, Any] = json.loads(line)
            blocks = tuple(int(one) for one in row.get("hash_ids") or ())
            at = float(row["timestamp"]) / 1e3
            yield _row(at, row["input_length"], row["output_length"], blocks)


def _row(at: float, asked: Any, answered: Any, blocks: tuple[int, ...] = ()) -> Traced:
    """A request has at least one token, and an answer at least one: BurstGPT's has 0 for those that
    failed."""
    return Traced(at, max(1, int(asked)), max(1, int(answered)), blocks)


class _line:  # noqa: N801  # a context, as contextlib's are
    """Turns what is wrong with a line into a PlanError that names it."""

    def __init__(self, path: Path, number: int) -> None:
        self._where = f"{path}: line {number}"

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, (KeyError, TypeError, ValueError, AttributeError)):
            raise PlanError(f"{self._where}: not a request of this trace: {error!r}") from error
