"""Payloads from files: bodies, rows of features, recorded requests."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from understudy.common.cells import count_cells
from understudy.common.files import CSV, FileError, json_values, objects
from understudy.common.unreadable import why_unreadable
from understudy.loadtest.errors import PlanError
from understudy.loadtest.payloads.columns import Columns
from understudy.loadtest.payloads.formats import in_format
from understudy.loadtest.payloads.request import Payload, as_body
from understudy.loadtest.payloads.variables import expand

_ACCESS = re.compile(
    r'^\S+ \S+ \S+ \[(?P<time>[^\]]+)\] "(?P<method>\S+) (?P<path>\S+)[^"]*" (?P<status>\d{3})'
)

_KEPT = re.compile(r"(?im)^(content-type|grpc-encoding):\s*(\S+)")
"""Headers of recorded requests that say what the body is."""


def of_rows(
    path: Path,
    form: str,
    rows: int,
    request_path: str,
    most: int,
    headers: Mapping[str, str],
    datatypes: Mapping[str, str] | None = None,
    delimiter: str | None = None,
) -> list[Payload]:
    """Payloads in format ``form`` from a CSV, JSONL, JSON or Parquet file of features, ``rows``
    rows in each, at most ``most`` payloads.

    Each column has one datatype, by the whole file, or that of ``datatypes`` (names of the Open
    Inference Protocol). Raises PlanError.
    """
    texts = path.suffix.lower() in CSV

    def read() -> Iterator[tuple[int, dict[str, Any]]]:
        # The standard library keeps NaN and integers of any size as they stand in the file.
        return objects(path, delimiter=delimiter, loads=json.loads)

    try:
        columns = Columns.of(count_cells((row for _, row in read()), texts), texts, datatypes or {})
        features = [columns.row(number, row) for number, row in _limited(read(), most * rows)]
    except FileError as error:
        raise PlanError(str(error)) from error
    except PlanError as error:
        raise PlanError(f"{path}: {error}") from error
    if not features:
        raise PlanError(f"{path}: has no rows")

    def encoded(part: list[dict[str, Any]]) -> Payload:
        body = as_body(in_format(form, part, columns.datatypes))
        return Payload(body, path=request_path, headers=headers)

    return [encoded(features[n : n + rows]) for n in range(0, len(features) - rows + 1, rows)] or [
        encoded(features)
    ]


def of_bodies(
    path: Path, request_path: str, most: int, headers: Mapping[str, str]
) -> list[Payload]:
    """A JSONL file, or a JSON list: each line or item a body, or an object with ``body`` and maybe
    ``path``, ``method``, ``headers`` and ``expect``."""
    payloads = []
    for number, value in _limited(_lines(path), most):
        if isinstance(value, dict) and "body" in value and set(value) <= {
            "body", "path", "method", "headers", "expect", "name"
        }:  # fmt: skip
            own = value.get("headers") or {}
            where = f"{path}: line {number}: headers"
            expect = value.get("expect") or {}
            if not isinstance(own, dict) or not isinstance(expect, dict):
                raise PlanError(f"{path}: line {number}: headers and expect must be objects")
            payloads.append(
                Payload(
                    as_body(value["body"]),
                    str(value.get("method", "POST")),
                    str(value.get("path", request_path)),
                    {**headers, **expand({str(k): str(v) for k, v in own.items()}, where)},
                    expect,
                )
            )
        else:
            payloads.append(Payload(as_body(value), path=request_path, headers=headers))
    if not payloads:
        raise PlanError(f"{path}: has no lines")
    return payloads


def recorded(path: Path, most: int, headers: Mapping[str, str]) -> list[Payload]:
    """Requests from an exported log of records, ordered by time: JSON lines of ``understudy records
    export LOG -o recorded.jsonl``. Mirrored requests, and requests whose body was too large for the
    log, are skipped. Raises PlanError."""
    if path.is_dir():
        raise PlanError(
            f"{path}: is a folder of records; export it first: "
            f"understudy records export {path} -o recorded.jsonl"
        )
    payloads = []
    for number, line in _limited(_lines(path), 100 * most):
        if not isinstance(line, dict):
            raise PlanError(f"{path}: line {number}: a record must be an object")
        record = line.get("record")
        if record is None or record.get("role") != "primary" or record.get("request") is None:
            continue
        try:
            body = record["request"]
            target = str(record["target"]).split(" ")
            payload = base64.b64decode(body["base64"]) if isinstance(body, dict) else body.encode()
            own = {
                name.lower(): value for name, value in _KEPT.findall(str(record["request_headers"]))
            }
            method, request_path = (
                (target[0], target[1]) if len(target) > 1 else ("POST", target[0])
            )
            payloads.append(
                Payload(payload, method, request_path, {**own, **headers}, at=float(record["time"]))
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise PlanError(f"{path}: line {number}: not a record: {error!r}") from error
        if len(payloads) >= most:
            break
    if not payloads:
        raise PlanError(f"{path}: has no requests with a payload")
    return sorted(payloads, key=lambda one: one.at or 0.0)


def access_log(path: Path, most: int) -> list[float]:
    """Times in unix seconds, ascending, of an access log in the common or combined format. Raises
    PlanError."""
    times = []
    try:
        with open(path, errors="replace") as file:
            for number, line in enumerate(file, 1):
                if not line.strip():
                    continue
                match = _ACCESS.match(line)
                if match is None:
                    raise PlanError(f"{path}: line {number}: not a line of an access log")
                try:
                    when = datetime.strptime(match["time"], "%d/%b/%Y:%H:%M:%S %z")
                except ValueError as error:
                    raise PlanError(f"{path}: line {number}: {error}") from error
                times.append(when.timestamp())
                if len(times) >= most:
                    break
    except OSError as error:
        raise PlanError(f"{path}: cannot be read: {why_unreadable(path, error)}") from error
    if not times:
        raise PlanError(f"{path}: has no requests")
    return sorted(times)


def _limited(lines: Iterator[tuple[int, Any]], most: int) -> Iterator[tuple[int, Any]]:
    for count, line in enumerate(lines):
        if count >= most:
            return
        yield line


def _lines(path: Path) -> Iterator[tuple[int, Any]]:
    try:
        # The standard library keeps NaN and integers of any size as they stand in the file.
        for number, _, value in json_values(path, loads=json.loads):
            yield number, value
    except FileError as error:
        raise PlanError(str(error)) from error
