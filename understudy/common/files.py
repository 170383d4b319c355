"""Readers of CSV, JSON lines and Parquet files, one for each format.

Text files are UTF-8; a byte order mark at the start, as spreadsheets write it, is not part of
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
"""Handles a line that cannot be read: raises the error, or counts it and returns."""


class FileError(Exception):
    """A file that cannot be read. ``line`` counts from 1; 0 stands for the file as a whole."""

    def __init__(self, path: Path, message: str, line: int = 0) -> None:
        self.path, self.message, self.line = path, message, line
        super().__init__(f"{path}: line {line}: {message}" if line else f"{path}: {message}")


def fail(error: FileError) -> None:
    """Raise it: the default for broken lines."""
    raise error


def lines(path: Path) -> Iterator[tuple[int, bytes]]:
    """(number, line) of each non-empty line of a file. Raises FileError."""
    try:
        with path.open("rb") as file:
            yield from numbered(file)
    except OSError as error:
        raise unreadable(path, error) from error


def numbered(found: Iterable[bytes]) -> Iterator[tuple[int, bytes]]:
    """(number, line) of each non-empty line, without a byte order mark."""
    for number, line in enumerate(found, start=1):
        content = line.removeprefix(_BOM) if number == 1 else line
        if content.strip():
            yield number, content


def json_lines(
    path: Path, broken: Broken = fail, loads: Callable[[bytes], Any] = orjson.loads
) -> Iterator[tuple[int, int, Any]]:
    """(number, length in bytes, value) of each non-empty line.

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
    """As :func:`json_lines`, if each line must be an object."""
    for number, size, value in json_lines(path, broken):
        if isinstance(value, dict):
            yield number, size, value
        else:
            broken(FileError(path, "must be an object", number))


def csv_rows(path: Path, broken: Broken = fail) -> Iterator[tuple[int, list[str]]]:
    """The header, with unique names, then rows with as many cells.

    The number is that of the line on which a row ends. Empty lines are skipped. Raises FileError.
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
                    duplicate = _first_duplicate(header)
                    if duplicate is not None:
                        raise FileError(path, f"duplicate column: {duplicate!r}", 1)
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
    """(line number, cells by column name) of each row. Raises FileError."""
    rows = csv_rows(path, broken)
    _, header = next(rows)
    for number, row in rows:
        yield number, dict(zip(header, row, strict=True))


class ParquetFile:
    """A Parquet file: the ``names`` of its columns, the number of ``rows``, and batches of rows.

    Raises FileError, also if pyarrow is not installed.
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
        duplicate = _first_duplicate(self.names)
        if duplicate is not None:
            raise FileError(path, f"duplicate column: {duplicate!r}")

    def batches(self, most: int) -> Iterator[Any]:
        """Each a pyarrow.RecordBatch of at most ``most`` rows. Raises FileError."""
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
    """A FileError with the message of an OSError, without its number and file name."""
    return FileError(path, f"cannot be read: {error.strerror or error}")


def _first_duplicate(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
