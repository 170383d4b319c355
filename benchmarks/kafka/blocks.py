"""Columnar blocks against Arrow and JSON lines: CPU per record and bytes, at 20 features.

What a sidecar pays is everything from a decoded record to the compressed bytes; what an evaluator
pays is everything from the bytes back to records and tables. Records are decoded from real payloads
just before, as in the service. Figures are the least of many short rounds, all contenders in each:
what else runs on the machine takes caches away, which only adds to the CPU time of a round. The
medians stand beside them in the JSON.
"""

from __future__ import annotations

import gc
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import orjson
import pyarrow
import pyarrow.ipc as ipc
import zstandard

from benchmarks.harness import Claim, Result, environment, median
from understudy.common.codecs import ModelSpec, Table, decode_exchange
from understudy.monitor.evidence.blocks import Builder, RecordBlock, Row, decode, encode
from understudy.monitor.evidence.blocks.block import NUMBERS, TEXTS
from understudy.monitor.records.encode import encode as encode_record
from understudy.monitor.records.handoff import Names
from understudy.monitor.records.log import Spool
from understudy.monitor.records.record import Record, decode_batch

FEATURES = tuple(f"feature_{number:02d}" for number in range(20))
SPEC = ModelSpec("m", "1", "mlflow", FEATURES, ("p",))
NAMES = Names(1, (("m", "1", "mlflow"),), ("champion", "challenger"))
SIZES = (64, 256, 1024)
TARGET_US = 3.0
Make = Callable[[random.Random], list[Any]]


def numeric(chance: random.Random) -> list[Any]:
    """Twenty measurements with four digits."""
    return [round(chance.gauss(0.0, 1.0), 4) for _ in FEATURES]


def mixed(chance: random.Random) -> list[Any]:
    """Half measurements, of which some are missing; whole numbers, texts, truth values."""
    row: list[Any] = [round(chance.gauss(0.0, 1.0), 4) for _ in range(10)]
    row[0] = None if chance.random() < 0.1 else row[0]
    row += [chance.randrange(100) for _ in range(5)]
    row += [chance.choice(("north", "south", "east", "west")) for _ in range(3)]
    return [*row, chance.random() < 0.5, chance.randrange(10**9)]


def batches(count: int, size: int, make: Make) -> list[bytes]:
    """Batches of encoded records, as workers hand them over."""
    chance = random.Random(7)
    made, at = [], 1.77e9
    for _ in range(count):
        parts: list[bytes] = []
        for _ in range(size):
            at += chance.expovariate(1000.0)
            asked = orjson.dumps(
                {"dataframe_records": [dict(zip(FEATURES, make(chance), strict=True))]}
            )
            said = orjson.dumps({"predictions": [round(chance.random(), 6)]})
            taken = round(chance.lognormvariate(15.0, 0.5))
            request_id = str(chance.getrandbits(128).to_bytes(16, "big").hex())
            _, encoded = encode_record(
                *(0, 0, 200, 0, 0, at, taken, taken - 1000, 500, len(asked), len(said)),
                *(request_id.encode(), b"%032x" % chance.getrandbits(128), b"", b"/invocations"),
                *(b"content-type: application/json", b"", asked, said),
            )
            parts += encoded
        made.append(b"".join(parts))
    return made


def rows_of(batch: bytes) -> list[Row]:
    """Records with what the codecs make of them."""
    rows_: list[Row] = []
    for r in decode_batch(batch):
        d = decode_exchange(
            SPEC, r.target, r.request_headers, r.request_body, r.status, r.response_headers,
            r.response_body,
        )  # fmt: skip
        rows_.append((NAMES, r, d.features, d.predictions))
    return rows_


class Contender:
    """``write`` turns rows into the messages that are full with them, ``finish`` gives the rest;
    ``read`` turns a message into as many rows again."""

    name: str
    spread = False

    def __init__(self, size: int) -> None:
        """Messages of ``size`` records."""

    def write(self, rows: list[Row]) -> list[bytes]:
        raise NotImplementedError

    def finish(self) -> list[bytes]:
        return []

    def read(self, data: bytes) -> int:
        raise NotImplementedError


# Contenders ---------------------------------------------------------------------------------------


class Blocks(Contender):
    """The builder is the same over all batches, as in a sidecar."""

    name = "blocks"
    partitions = 1

    def __init__(self, size: int) -> None:
        self.builder = Builder("sidecar", "run", self.partitions, size)

    def built(self, rows: list[Row]) -> list[RecordBlock]:
        return self.builder.extend(NAMES, [row[1:] for row in rows], 1.0)

    def write(self, rows: list[Row]) -> list[bytes]:
        return [encode(block) for block in self.built(rows)]

    def finish(self) -> list[bytes]:
        return [encode(block) for block in self.builder.flush(1.0, everything=True)]

    def read(self, data: bytes) -> int:
        block = decode(data)
        assert isinstance(block, RecordBlock)
        return sum(1 for _ in block.rows())


class Spread(Blocks):
    """Twelve partitions: each of their blocks fills twelve times as slowly."""

    name = "blocks, 12 partitions"
    spread = True
    partitions = 12


def arrow_batch(block: RecordBlock) -> Any:
    """The same columns as Arrow arrays; numbers are taken over without a copy."""
    arrays = [pyarrow.array(block.numbers[name]) for name in NUMBERS]
    names = [*NUMBERS, *TEXTS]
    for name in TEXTS:
        texts = block.texts[name]
        if texts.same is not None:
            arrays.append(
                pyarrow.DictionaryArray.from_arrays(
                    np.zeros(block.count, np.int8), pyarrow.array([texts.same])
                )
            )
            continue
        ends = np.zeros(block.count + 1, np.int32)
        np.cumsum(texts.lengths, out=ends[1:])
        buffers = [None, pyarrow.py_buffer(ends), pyarrow.py_buffer(texts.data)]
        arrays.append(pyarrow.Array.from_buffers(pyarrow.binary(), block.count, buffers))
    for grid in (*block.features, *block.predictions):
        for name in grid.names:
            column = grid.column(name)
            plain = column.kinds is None and column.numbers is not None
            arrays.append(pyarrow.array(column.numbers if plain else column.values()))
            names.append(name)
    return pyarrow.RecordBatch.from_arrays(arrays, names)


class Arrow(Blocks):
    """One zstd frame around an Arrow stream that is not compressed."""

    name = "Arrow IPC, zstd by us"
    compression: str | None = None

    def write(self, rows: list[Row]) -> list[bytes]:
        return [self.packed(block) for block in self.built(rows)]

    def finish(self) -> list[bytes]:
        return [self.packed(block) for block in self.builder.flush(1.0, everything=True)]

    def packed(self, block: RecordBlock) -> bytes:
        batch = arrow_batch(block)
        sink = pyarrow.BufferOutputStream()
        options = ipc.IpcWriteOptions(compression=self.compression)
        with ipc.new_stream(sink, batch.schema, options=options) as writer:
            writer.write_batch(batch)
        data: bytes = sink.getvalue().to_pybytes()
        return data if self.compression else zstandard.ZstdCompressor(level=1).compress(data)

    def read(self, data: bytes) -> int:
        return read_arrow(data, self.compression is None)


class ArrowZstd(Arrow):
    name = "Arrow IPC, its zstd"
    compression = "zstd"


class ArrowLz4(Arrow):
    name = "Arrow IPC, its lz4"
    compression = "lz4"


def read_arrow(data: bytes, outer: bool) -> int:
    if outer:
        data = zstandard.ZstdDecompressor().decompress(data)
    batch = ipc.open_stream(data).read_next_batch()
    columns = [column.to_pylist() for column in batch.columns]
    several = len(NUMBERS) + len(TEXTS)
    count = 0
    for row in zip(*columns, strict=True):
        record = Record()
        record.proxy_id = 0
        for name, cell in zip((*NUMBERS, *TEXTS), row, strict=False):
            setattr(record, name, cell)
        cells = row[several:]
        Table(FEATURES, 1, list(cells[:20]))
        Table(("p",), 1, list(cells[20:]))
        count += 1
    return count


class Lines(Contender):
    name = "JSON lines, zstd"

    def write(self, rows: list[Row]) -> list[bytes]:
        return write_lines(rows)

    def read(self, data: bytes) -> int:
        return read_lines(data)


def write_lines(rows: list[Row]) -> list[bytes]:
    lines = []
    for _, r, asked, said in rows:
        assert isinstance(asked, Table)
        assert isinstance(said, Table)
        data: dict[str, Any] = {name: getattr(r, name) for name in NUMBERS}
        data |= {name: getattr(r, name).decode("latin-1") for name in TEXTS}
        data["features"] = dict(zip(asked.names, asked.values, strict=True))
        data["predictions"] = dict(zip(said.names, said.values, strict=True))
        lines.append(orjson.dumps(data))
    return [zstandard.ZstdCompressor(level=1).compress(b"\n".join(lines))]


def read_lines(data: bytes) -> int:
    count = 0
    for line in zstandard.ZstdDecompressor().decompress(data).split(b"\n"):
        one = orjson.loads(line)
        record = Record()
        record.proxy_id = 0
        for name in NUMBERS:
            setattr(record, name, one[name])
        for name in TEXTS:
            setattr(record, name, one[name].encode("latin-1"))
        Table(tuple(one["features"]), 1, list(one["features"].values()))
        Table(tuple(one["predictions"]), 1, list(one["predictions"].values()))
        count += 1
    return count


CONTENDERS: tuple[type[Contender], ...] = (Blocks, Arrow, ArrowZstd, ArrowLz4, Lines, Spread)


# Measuring ----------------------------------------------------------------------------------------


def measure(contender: Contender, batches_in: list[bytes]) -> tuple[float, float, float]:
    """CPU µs per record of writing and of reading, and bytes per record.

    Times are those of the median batch: one that was interrupted does not count.
    """
    writing: list[float] = []
    reading: list[float] = []
    size = count = got = 0
    for number, batch in enumerate(batches_in, start=1):
        rows = rows_of(batch)
        count += len(rows)
        before = time.process_time_ns()
        messages = contender.write(rows)
        if number == len(batches_in):
            messages += contender.finish()
        middle = time.process_time_ns()
        here = sum(map(contender.read, messages))
        after = time.process_time_ns()
        got += here
        size += sum(map(len, messages))
        writing.append((middle - before) / len(rows))
        reading.append((after - middle) / max(1, here))
    assert got == count, contender.name
    whole = contender.spread  # whose blocks fill over several batches
    write = sum(writing) / len(writing) if whole else statistics.median(writing)
    return write / 1e3, statistics.median(reading) / 1e3, size / count


def messages_of(batches_in: list[bytes], size: int) -> list[bytes]:
    blocks = Blocks(size)
    return [m for batch in batches_in for m in blocks.write(rows_of(batch))] + blocks.finish()


def columns_us(messages: list[bytes], count: int) -> float:
    """CPU µs per record from the bytes to columns: what a vectorised reader pays."""
    before = time.process_time_ns()
    for message in messages:
        block = decode(message)
        assert isinstance(block, RecordBlock)
        for grid in block.features:
            grid.floats()
    return (time.process_time_ns() - before) / count / 1e3


def spool_us(messages: list[bytes], count: int) -> tuple[float, float]:
    """CPU µs per record of putting blocks into the spool, and of getting them out again."""
    with tempfile.TemporaryDirectory() as folder:
        spool = Spool(Path(folder), 10**9, sync_seconds=None)
        before = time.process_time_ns()
        for at in range(0, len(messages), 4):
            spool.append(messages[at : at + 4], mark=b"m" * 500)
        middle = time.process_time_ns()
        got = 0
        while entries := spool.read():
            got += len(entries)
            spool.acknowledge(entries[-1].index + 1)
        after = time.process_time_ns()
        spool.close()
    assert got == len(messages)
    return (middle - before) / count / 1e3, (after - middle) / count / 1e3


def run(quick: bool) -> Result:
    """Measure everything."""
    rounds, per_round = (5, 2048) if quick else (15, 8192)
    result = Result("kafka-blocks", environment(pyarrow=pyarrow.__version__, features=20))
    header = ["format", "write, CPU µs", "read to rows, CPU µs", "bytes"]
    for label, make in (("numbers", numeric), ("mixed", mixed)):
        for size in SIZES if label == "numbers" else SIZES[1:2]:
            data = batches(per_round // size, size, make)
            results: dict[str, list[tuple[float, float, float]]] = {c.name: [] for c in CONTENDERS}
            columns: list[float] = []
            spooled: list[tuple[float, float]] = []
            messages = messages_of(data, size)
            for kind in CONTENDERS:
                measure(kind(size), data[:2])
            for _ in range(rounds):
                gc.collect()
                for kind in CONTENDERS:
                    results[kind.name].append(measure(kind(size), data))
                columns.append(columns_us(messages, per_round))
                spooled.append(spool_us(messages, per_round))
            names = ("write_us", "read_us", "bytes")
            summary = {
                name: dict(zip(names, map(min, zip(*seen, strict=True)), strict=True))
                for name, seen in results.items()
            }
            result.measurements[f"{label}_{size}"] = {
                **summary,
                "columns_us": min(columns),
                "spool_in_us": min(i for i, _ in spooled),
                "spool_out_us": min(o for _, o in spooled),
                "medians": {
                    name: dict(zip(names, map(median, zip(*seen, strict=True)), strict=True))
                    for name, seen in results.items()
                },
            }
            rows = [[name, *one.values()] for name, one in summary.items()]
            result.tables.append((f"Per record, {label}, blocks of {size}", header, rows))
    result.claims = claims(result.measurements)
    return result


def claims(measured: dict[str, Any]) -> list[Claim]:
    at = measured["numbers_256"]
    blocks, arrow, lines = at["blocks"], at["Arrow IPC, zstd by us"], at["JSON lines, zstd"]
    mixture = measured["mixed_256"]["blocks"]["write_us"]
    spool = at["spool_in_us"] + at["spool_out_us"]
    to_lines, to_arrow = "ratio to JSON lines + zstd", "ratio to Arrow IPC in one zstd frame"
    writing = "writing, from record to compressed bytes"
    return [
        Claim(f"{writing}, CPU µs, blocks of 256", blocks["write_us"], TARGET_US, "<="),
        Claim(f"{writing}, CPU µs, features of mixed types", mixture, TARGET_US, "<="),
        Claim("reading to records and tables, CPU µs", blocks["read_us"], 4.0, "<="),
        Claim("reading to columns of floats, CPU µs", at["columns_us"], 1.0, "<="),
        Claim("through the spool and out of it, CPU µs", spool, 1.0, "<="),
        Claim(f"writing, {to_arrow}", blocks["write_us"] / arrow["write_us"], 1.0, "<="),
        Claim(f"writing, {to_lines}", blocks["write_us"] / lines["write_us"], 0.6, "<="),
        Claim(f"reading, {to_lines}", blocks["read_us"] / lines["read_us"], 0.6, "<="),
        Claim(f"bytes, {to_lines}", blocks["bytes"] / lines["bytes"], 1.0, "<="),
        Claim(f"bytes, {to_arrow}", blocks["bytes"] / arrow["bytes"], 1.0, "<="),
    ]
