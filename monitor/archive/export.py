"""A record log as Parquet, with typed columns, or as JSON lines."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import orjson

from understudy.monitor.archive.records import LabelItem, Log, Progress, RecordItem
from understudy.monitor.config.model import Config
from understudy.monitor.errors import LogError, MissingExtraError
from understudy.monitor.evidence.redaction import redaction_of

_ROW_GROUP = 65_536


def to_parquet(
    log: Log, config: Config | None, target: Path, progress: Progress | None = None
) -> dict[str, Any]:
    """Write the records to ``target`` and return a summary. The log is read twice, first to find
    the columns. Columns that ``config`` redacts are left out. Raises LogError, ReplayError or
    MissingExtraError."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise MissingExtraError(
            "writing Parquet needs pyarrow: pip install 'understudy-serving[parquet]'"
        ) from error
    from understudy.monitor.evidence.blocks.arrow import Layout, to_arrow

    layout = Layout(_hides(config))
    for block in log.blocks(config, progress):
        layout.add(block)
    schema = layout.schema()
    records = rows = undecoded = 0
    log.restart()
    with (
        _atomic_file(target) as path,
        parquet.ParquetWriter(path, schema, compression="zstd") as writer,
    ):
        for block in log.blocks(config, progress):
            batch = to_arrow(block, schema)
            writer.write_batch(batch, row_group_size=_ROW_GROUP)
            records += block.count
            rows += batch.num_rows
            if block.request is not None:
                undecoded += int((block.request < 0).sum())
    columns = [name for name in schema.names if name.partition(".")[1]]
    return {"records": records, "rows": rows, "undecoded": undecoded, "columns": columns}


def labels_to_parquet(log: Log, target: Path, progress: Progress | None = None) -> int:
    """Write the labels and return their number. A label may have any type, so it is JSON text."""
    import pyarrow
    from pyarrow import parquet

    stamp = pyarrow.timestamp("us", "UTC")
    schema = pyarrow.schema(
        [
            ("received", stamp),
            ("at", stamp),
            ("request_id", pyarrow.string()),
            ("row", pyarrow.uint32()),
            ("label", pyarrow.string()),
            ("label_number", pyarrow.float64()),
            ("reward", pyarrow.float64()),
        ]
    )
    count = 0
    rows: list[dict[str, Any]] = []
    with (
        _atomic_file(target) as path,
        parquet.ParquetWriter(path, schema, compression="zstd") as writer,
    ):

        def write() -> None:
            writer.write_batch(pyarrow.RecordBatch.from_pylist(rows, schema))
            rows.clear()

        for item in log.items(progress):
            if not isinstance(item, LabelItem):
                continue
            label, at = item.label, item.label.at
            plain = isinstance(label.label, (int, float))
            rows.append(
                {
                    "received": round(item.received * 1e6),
                    "at": None if at is None else round(at * 1e6),
                    "request_id": label.request_id,
                    "row": label.row,
                    "label": None if label.label is None else orjson.dumps(label.label).decode(),
                    "label_number": float(label.label) if plain else None,  # type: ignore[arg-type]
                    "reward": label.reward,
                }
            )
            count += 1
            if len(rows) >= _ROW_GROUP:
                write()
        write()
    return count


def to_lines(log: Log, target: Path, progress: Progress | None = None) -> dict[str, Any]:
    """Write records and labels as JSON lines with their payloads, the format that
    ``understudy replay`` and load tests read. Return their numbers."""
    records = labels = 0
    with _atomic_file(target) as path, path.open("wb") as file:
        for item in log.items(progress):
            file.write(item.line.rstrip(b"\n") + b"\n")
            records += isinstance(item, RecordItem)
            labels += isinstance(item, LabelItem)
    return {"records": records, "labels": labels}


def _hides(config: Config | None) -> Any:
    if config is None:
        return lambda name: False
    return redaction_of(config).hides


@contextmanager
def _atomic_file(target: Path) -> Iterator[Path]:
    """A temporary file that is renamed to ``target`` on success. Raises LogError."""
    path = target.with_name(f".{target.name}.part")
    try:
        yield path
        os.replace(path, target)
    except OSError as error:
        path.unlink(missing_ok=True)
        raise LogError(f"{target}: cannot be written: {error.strerror or error}") from error
    except BaseException:
        path.unlink(missing_ok=True)
        raise
