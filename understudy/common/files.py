"""Readers of CSV, JSON lines, JSON lists and Parquet files, one for each format.

Text files are UTF-8, or UTF-16 with a byte order mark, as spreadsheets write them; the mark is not
part of the first column's name. Columns of a CSV file are separated by commas, semicolons, tabs or
bars, whichever splits its first lines best. Errors name the file and the line.
"""

from __future__ import annotations

import csv
import io
import itertools
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from understudy.common.json_items import Document, ItemsError
from understudy.common.unreadable import why_unreadable

CSV = (".csv", ".tsv")
LINES = (".jsonl", ".ndjson")
JSON = (".json",)
PARQUET = (".parquet", ".pq")
ENDINGS = ".csv, .jsonl or .parquet (or .tsv, or .json with a list)"
DELIMITERS = ",;\t|"
MISSING = frozenset(("", "NA", "N/A", "null", "None"))
"""Texts of a CSV file that stand for no value."""
_BOM = b"\xef\xbb\xbf"
_LOOKED_AT = 65_536
"""Bytes at the start of a CSV file by which its delimiter is found."""
_LINES_LOOKED_AT = 20

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


def parsed(data: bytes) -> Any:
    """The value of JSON. Raises ValueError."""
    # Imported here: what only checks a delimiter does not need it.
    import orjson

    return orjson.loads(data)


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
    path: Path, broken: Broken = fail, loads: Callable[[bytes], Any] = parsed
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


def json_items(
    path: Path, loads: Callable[[bytes], Any] = parsed
) -> Iterator[tuple[int, int, Any]]:
    """(number, length in bytes, value) of each item of a JSON list; of any other document, itself.

    The file is never parsed as a whole. ``loads`` parses an item and raises ValueError. Raises
    FileError.
    """
    document = Document()
    try:
        with path.open("rb") as file:
            start = file.read(_LOOKED_AT).removeprefix(_BOM)
            pieces = itertools.chain((start,), iter(lambda: file.read(_LOOKED_AT), b""))
            found = itertools.chain.from_iterable(
                itertools.chain(map(document.feed, pieces), iter((document.finish(),)))
            )
            for number, item in found:
                try:
                    yield number, len(item or b""), loads(item or b"")
                except ValueError as error:
                    raise FileError(path, f"item {number}: not valid JSON: {error}") from error
    except ItemsError as error:
        raise FileError(path, f"not valid JSON: {error}") from error
    except OSError as error:
        raise unreadable(path, error) from error


def is_json_list(path: Path) -> bool:
    """Whether a file is one of JSON with a list, as rows are; False where it cannot be read."""
    if path.suffix.lower() not in JSON:
        return False
    try:
        with path.open("rb") as file:
            return file.read(_LOOKED_AT).removeprefix(_BOM).lstrip().startswith(b"[")
    except OSError:
        return False


def json_values(
    path: Path, broken: Broken = fail, loads: Callable[[bytes], Any] = parsed
) -> Iterator[tuple[int, int, Any]]:
    """(number, length in bytes, value): of each item of a ``.json`` file, otherwise of each line.
    Raises FileError."""
    if path.suffix.lower() in JSON:
        return json_items(path, loads)
    return json_lines(path, broken, loads)


def objects(
    path: Path,
    broken: Broken = fail,
    *,
    delimiter: str | None = None,
    loads: Callable[[bytes], Any] = parsed,
) -> Iterator[tuple[int, dict[str, Any]]]:
    """(number, row by name of the column) of a file of any format, by the ending of its name.

    The cells of a CSV file are texts, and ``delimiter`` is detected by default. Raises FileError.
    """
    kind = path.suffix.lower()
    if kind in CSV:
        yield from csv_objects(path, broken, delimiter)
    elif kind in (*LINES, *JSON):
        for number, _, value in json_values(path, broken, loads):
            if isinstance(value, dict):
                yield number, value
            else:
                broken(FileError(path, "must be an object", number))
    elif kind in PARQUET:
        yield from ParquetFile(path).objects()
    else:
        raise FileError(path, f"must end in {ENDINGS}")


def delimiter(text: str) -> str:
    """The delimiter that a user names: a character, or ``tab``. Raises ValueError."""
    found = "\t" if text in ("tab", "\\t") else text
    if len(found) != 1 or found in '"\r\n':
        raise ValueError(f"not a valid delimiter: {text!r} (examples: ';', '|', tab)")
    return found


def delimiter_of(text: str) -> str:
    """The delimiter that splits the first lines of a CSV file into the most columns, the same
    number on each; a comma where there is one column."""
    best, most = ",", 1
    for delimiter in DELIMITERS:
        try:
            rows = itertools.islice(csv.reader(io.StringIO(text), delimiter=delimiter), 20)
            widths = [len(row) for row in rows if row]
        except csv.Error:
            continue
        # The last line may have been cut off; one broken line decides nothing.
        steady = sum(width == widths[0] for width in widths) >= 0.7 * len(widths) if widths else 0
        if steady and widths[0] > most:
            best, most = delimiter, widths[0]
    return best


def _encoding(start: bytes) -> str:
    return "utf-16" if start.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"


def _dialect(path: Path, delimiter: str | None) -> tuple[str, str]:
    """Encoding and delimiter of a CSV file. Raises OSError."""
    with path.open("rb") as file:
        start = file.read(_LOOKED_AT)
    encoding = _encoding(start)
    if delimiter is not None:
        return encoding, delimiter
    lines = start.decode(encoding, "replace").splitlines(keepends=True)
    return encoding, delimiter_of("".join(lines[:_LINES_LOOKED_AT]))


def csv_rows(
    path: Path, broken: Broken = fail, delimiter: str | None = None
) -> Iterator[tuple[int, list[str]]]:
    """The header, with unique names, then rows with as many cells.

    The number is that of the line on which a row ends. Empty lines are skipped. ``delimiter`` is
    detected by default. Raises FileError.
    """
    try:
        encoding, delimiter = _dialect(path, delimiter)
        with path.open(newline="", encoding=encoding) as file:
            reader = csv.reader(file, delimiter=delimiter)
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
    except UnicodeError as error:
        raise FileError(path, "is not UTF-8") from error


def csv_objects(
    path: Path, broken: Broken = fail, delimiter: str | None = None
) -> Iterator[tuple[int, dict[str, str]]]:
    """(line number, cells by column name) of each row. Raises FileError."""
    rows = csv_rows(path, broken, delimiter)
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

    def columns(self, most: int) -> Iterator[dict[str, list[Any]]]:
        """The cells of at most ``most`` rows by column, as a client sends them in JSON. Raises
        FileError."""
        for batch in self.batches(most):
            columns = {}
            for index, name in enumerate(self.names):
                try:
                    columns[name] = _as_sent(batch.column(index))
                except (self._failures, ValueError, OverflowError) as error:
                    raise FileError(self.path, f"column {name!r}: {error}") from error
            yield columns

    def objects(self, most: int = 8192) -> Iterator[tuple[int, dict[str, Any]]]:
        """(number, row by name of the column), read in parts of ``most`` rows. Raises FileError."""
        number = 0
        for columns in self.columns(most):
            for row in zip(*columns.values(), strict=True):
                number += 1
                yield number, dict(zip(columns, row, strict=True))

    def _error(self, error: Exception, what: str) -> FileError:
        if isinstance(error, OSError) and error.errno is not None:
            return unreadable(self.path, error)
        # Arrow uses OSError without a number for bytes that it cannot parse.
        return FileError(self.path, f"{what}: {str(error).strip()}")


def _as_sent(column: Any) -> list[Any]:
    """A column's cells as a client sends them in JSON: times as ISO 8601, decimals as numbers."""
    from pyarrow import types

    kind = column.type.value_type if types.is_dictionary(column.type) else column.type
    if "[ns" in str(kind) and not types.is_dictionary(column.type):
        column = column.cast(_microseconds(kind), safe=False)
    cells: list[Any] = column.to_pylist()
    if types.is_timestamp(kind) or types.is_date(kind) or types.is_time(kind):
        return [None if cell is None else cell.isoformat() for cell in cells]
    if types.is_decimal(kind):
        return [None if cell is None else float(cell) for cell in cells]
    if types.is_duration(kind):
        return [None if cell is None else cell.total_seconds() for cell in cells]
    if types.is_binary(kind) or types.is_large_binary(kind) or types.is_fixed_size_binary(kind):
        return [None if cell is None else cell.decode("utf-8", "replace") for cell in cells]
    return cells


def _microseconds(kind: Any) -> Any:
    """The type without nanoseconds, which Python's own times do not have."""
    import pyarrow

    if pyarrow.types.is_timestamp(kind):
        return pyarrow.timestamp("us", kind.tz)
    return pyarrow.time64("us") if pyarrow.types.is_time(kind) else pyarrow.duration("us")


def unreadable(path: Path, error: OSError) -> FileError:
    """A FileError with the message of an OSError, without its number and file name."""
    return FileError(path, f"cannot be read: {why_unreadable(path, error)}")


def _first_duplicate(names: list[str]) -> str | None:
    seen: set[str] = set()
    for name in names:
        if name in seen:
            return name
        seen.add(name)
    return None
