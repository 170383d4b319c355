"""Readers of CSV, JSON lines and Parquet files, one for each format.

Text files are UTF-8; a byte order mark at the beginning, as spreadsheets write it, is not part of
the first column's name. Errors name the file and the line.
"""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import orjson

CSV = (".csv",)
LINES = (".jsonl", ".ndjson")
PARQUET = (".parquet", ".pq")
_BOM = b"\xef\xbb\xbf"

Broken = Callable[["FileError"], None]
"""What to do about a line that cannot be read: raise the error, or count it and return."""


class FileError(Exception):
    """A file that cannot be read. ``line`` counts from 1; 0 stands for the file as a whole."""

    def __init__(self, path: Path, message: str, line: int = 0) -> None:
        self.path, self.message, self.line = path, message, line
        super().__init__(f"{path}: line {line}: {message}" if line else f"{path}: {message}")


def fail(error: FileError) -> None:
    """Raise it: the default for broken lines."""
    raise error


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """The lines of a file that are not empty, by their number. Raises FileError."""
    try:
        with path.open("rb") as file:
            yield from numbered(file)
    except OSError as error:
        raise unreadable(path, error) from error


def numbered(found: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """Those of the lines that are not empty, by their number, without a byte order mark."""
    for number, line in enumerate(found, start=1):
        content = line.removeprefix(_BOM) if number == 1 else line
        if content.strip():
            yield number, content


def lines_of(body: bytes) -> Iterator[tuple[int, bytes]]:
    """The same for what is in memory already; no line is copied before its turn."""

    def split() -> Iterator[bytes]:
        start = 0
        while start < len(body):
            stop = body.find(b"\n", start)
            stop = len(body) if stop < 0 else stop
            yield body[start:stop]
            start = stop + 1

    return numbered(split())


def json_lines(
    path: Path, broken: Broken = fail, loads: Callable[[bytes], Any] = orjson.loads
) -> Iterator[tuple[int, int, Any]]:
    """Number, length in bytes, and value of each line that is not empty.

    ``loads`` parses a line and raises ValueError. Raises FileError.
    """
    for number, line in lines(path):
        try:
            value = loads(line)
        except ValueError as error:
            broken(FileError(path, f"not valid JSON: {error}", number))
            continue
        yield number, len(line), value


def json_objects(path: Path, broken: Broken = fail) -> Iterator[tuple[int, int, dict[str, Any]]]:
    """The same where each line must be an object."""
    for number, size, value in json_lines(path, broken):
        if isinstance(value, dict):
            yield number, size, value
        else:
            broken(FileError(path, "must be an object", number))


def csv_rows(path: Path, broken: Broken = fail) -> Iterator[tuple[int, list[str]]]:
    """The header, which has a name for each column and none twice, then rows of as many cells.

    The number is that of the line on which a row ends. Empty lines are left out. Raises FileError.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.reader(file)
            header: list[str] | None = None
            while True:
                try:
                    row = next(reader, None)
                except csv.Error as error:
                    broken(FileError(path, str(error), reader.line_num))
                    continue
                if row is None:
                    break
                if header is None:
                    if not row:
                        raise FileError(path, "is empty")
                    header = row
                    twice = _twice(header)
                    if twice is not None:
                        raise FileError(path, f"the column {twice!r} is there twice", 1)
                elif len(row) != len(header):
                    if row:
                        message = f"has {len(row)} cells instead of {len(header)}"
                        broken(FileError(path, message, reader.line_num))
                    continue
                yield reader.line_num, row
            if header is None:
                raise FileError(path, "is empty")
    except OSError as error:
        raise unreadable(path, error) from error
    except UnicodeDecodeError as error:
        raise FileError(path, "is not UTF-8") from error


def csv_objects(path: Path, broken: Broken = fail) -> Iterator[tuple[int, dict[str, str]]]:
    """Rows as cells by the name of their column, with the number of the line. Raises FileError."""
    rows = csv_rows(path, broken)
    _, header = next(rows)
    for number, row in rows:
        yield number, dict(zip(header, row, strict=True))


class ParquetFile:
    """A Parquet file: the ``names`` of its columns, how many ``rows`` it has, and these in batches.

    Raises FileError, also where pyarrow is not installed.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            from pyarrow import ArrowException, parquet
        except ImportError:
            message = "reading Parquet needs pyarrow: pip install 'understudy-serving[parquet]'"
            raise FileError(path, message) from None
        self._failures: type[Exception] = ArrowException
        try:
            self._file = parquet.ParquetFile(path)
        except (OSError, ArrowException) as error:
            raise self._error(error, "not a Parquet file") from error
        self.names: list[str] = self._file.schema_arrow.names
        self.rows = int(self._file.metadata.num_rows)
        twice = _twice(self.names)
        if twice is not None:
            raise FileError(path, f"the column {twice!r} is there twice")

    def batches(self, most: int) -> Iterator[Any]:
        """Each a pyarrow.RecordBatch of at most so many rows. Raises FileError."""
        found = self._file.iter_batches(most)
        while True:
            try:
                batch = next(found, None)
            except (OSError, self._failures) as error:
                raise self._error(error, "is damaged") from error
            if batch is None:
                return
            yield batch

    def _error(self, error: Exception, what: str) -> FileError:
        if isinstance(error, OSError) and error.errno is not None:
            return unreadable(self.path, error)
        # Arrow uses OSError without a number for bytes that it cannot parse.
        return FileError(self.path, f"{what}: {str(error).strip()}")


def unreadable(path: Path, error: OSError) -> FileError:
    """What the system says of a file, without its number and the name once more."""
    return FileError(path, f"cannot be read: {error.strerror or error}")


def _twice(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
