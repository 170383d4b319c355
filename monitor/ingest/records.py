"""Posted records, converted to the records of workers.

An item names its features and predictions, or holds the payloads as sent. Either way it becomes the
record that a worker would have made, and is evaluated in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from understudy.monitor.baseline.kinds import instant
from understudy.monitor.errors import IngestError
from understudy.monitor.records.record import (
    CLIENT_ERROR,
    ENDS,
    OK,
    OUTCOMES,
    ROLE_PRIMARY,
    SERVER_ERROR,
    encode,
)

MOST_ITEMS = 10_000
MOST_ROWS = 10_000
MAX_NAME_BYTES = 4 * 1024 * 1024
"""Names of features in a payload that repeats them for each row."""
MAX_AHEAD_SECONDS = 300.0
"""How far the time of a record may be ahead of the local clock."""
MAX_BEHIND_SECONDS = 30 * 86400.0
_HEADERS = b"content-type: application/json"
_KEYS = frozenset(
    (
        *("model", "version", "arm", "request_id", "trace_id", "time", "duration_seconds"),
        *("status", "outcome", "features", "predictions", "request", "response", "path"),
    )
)


@dataclass(frozen=True, slots=True)
class Item:
    """One exchange. ``model`` is (name, version, protocol), ``started`` is unix seconds,
    ``duration`` is seconds."""

    model: tuple[str, str, str]
    arm: str
    request_id: str
    status: int
    outcome: int
    started: float
    duration: float
    trace_id: str
    path: str
    request: bytes | None
    response: bytes | None

    def encode(self, model: int, arm: int) -> bytes:
        """The record as a worker packs it; ``model`` and ``arm`` index the batch's names."""
        _, parts = encode(
            model,
            arm,
            self.status,
            ROLE_PRIMARY,
            self.outcome,
            self.started,
            round(self.duration * 1e9),
            0,
            0,
            len(self.request or b""),
            len(self.response or b""),
            self.request_id.encode(),
            self.trace_id.encode(),
            b"",
            self.path.encode(),
            _HEADERS,
            _HEADERS,
            self.request,
            self.response,
        )
        return b"".join(parts)


class KnownModels:
    """The declared models, each (name, version, protocol), and arms."""

    def __init__(self, models: Sequence[tuple[str, str, str]], arms: Sequence[str]) -> None:
        self.models = list(models)
        self.arms = list(arms)

    def model(self, name: object, version: object) -> tuple[str, str, str]:
        """(name, version, protocol) of a declared model; if ``name`` is None, of the only one.

        Raises IngestError.
        """
        result = [
            model
            for model in self.models
            if name in (None, model[0]) and version in (None, "", model[1])
        ]
        if len(result) == 1:
            return result[0]
        known = ", ".join(f"{n} {v}".strip() for n, v, _ in self.models)
        said = "which model?" if len(result) > 1 else f"no model {name!r} {version or ''}".strip()
        raise IngestError(f"{said}; declared are: {known}")


def item_of(data: object, declared: KnownModels, now: float) -> Item:
    """One posted object; ``now`` is unix seconds. Raises IngestError that names the field."""
    if not isinstance(data, Mapping):
        raise IngestError("must be an object")
    unknown = sorted(set(data) - _KEYS)
    if unknown:
        raise IngestError(f"{unknown[0]}: is not known; known are {', '.join(sorted(_KEYS))}")
    model = declared.model(data.get("model"), data.get("version"))
    arm = data.get("arm", declared.arms[0])
    if arm not in declared.arms:
        raise IngestError(f"arm: {arm!r} is none of {', '.join(declared.arms)}")
    started = _time(data.get("time"), now)
    duration = _number(data, "duration_seconds", 0.0, 0.0, 86400.0)
    status = int(_number(data, "status", 200.0, 100.0, 599.0))
    outcome = _outcome(data.get("outcome"), status)
    rows, features = _table(data, "features")
    answers, predictions = _table(data, "predictions")
    request, response = _raw(data, "request"), _raw(data, "response")
    if (features is None) == (request is None):
        raise IngestError("features: give either features or the request as it was sent")
    path = data.get("path")
    if features is not None:
        if predictions is not None and answers != rows:
            raise IngestError(f"predictions: {answers} rows for {rows} of the features")
        path, request, response = _payloads(model, rows, features, predictions)
    elif not isinstance(path, str) or not path.startswith("/"):
        raise IngestError(
            "path: is required with a request as it was sent, such as /v1/models/m:predict"
        )
    return Item(
        model, str(arm), _text(data, "request_id"), status, outcome, started, duration,
        _text(data, "trace_id"), str(path), request, response,
    )  # fmt: skip


def _time(value: object, now: float) -> float:
    if value is None:
        return now
    result = instant(value)
    if result is None:
        raise IngestError(f"time: not a valid time: {value!r} (unix seconds or ISO 8601)")
    if not now - MAX_BEHIND_SECONDS <= result <= now + MAX_AHEAD_SECONDS:
        where = "the future" if result > now else "the past"
        raise IngestError(f"time: {value!r} is too far in {where}")
    return result


def _number(data: Mapping[str, Any], name: str, default: float, low: float, high: float) -> float:
    value = data.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        raise IngestError(f"{name}: must be a number, not {value!r}")
    if not low <= value <= high:
        raise IngestError(f"{name}: must lie between {low:g} and {high:g}, not {value!r}")
    return float(value)


def _text(data: Mapping[str, Any], name: str) -> str:
    value = data.get(name, "")
    if not isinstance(value, str) or len(value) > 256:
        raise IngestError(f"{name}: must be a text of at most 256 characters")
    return value


def _outcome(value: object, status: int) -> int:
    if value is None:
        return OK if status < 400 else CLIENT_ERROR if status < 500 else SERVER_ERROR
    if value not in ENDS:
        raise IngestError(f"outcome: {value!r} is not one of {', '.join(ENDS)}")
    return OUTCOMES.index(str(value))


def _raw(data: Mapping[str, Any], name: str) -> bytes | None:
    value = data.get(name)
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else orjson.dumps(value)


def _table(data: Mapping[str, Any], name: str) -> tuple[int, dict[str, list[Any]] | None]:
    """Rows and columns of an object, an object of lists, or a list of objects."""
    value = data.get(name)
    if value is None:
        return 0, None
    if isinstance(value, list):
        if not value or not all(isinstance(row, Mapping) for row in value):
            raise IngestError(f"{name}: a list must hold an object for each row")
        names = dict.fromkeys(key for row in value for key in row)
        return _bounded(name, {key: [row.get(key) for row in value] for key in names})
    if not isinstance(value, Mapping) or not value:
        raise IngestError(f"{name}: must be an object of values by name, or a list of such")
    lists = [isinstance(cell, list) for cell in value.values()]
    if all(lists) and len({len(cell) for cell in value.values()}) == 1:
        return _bounded(name, {str(key): list(cells) for key, cells in value.items()})
    return 1, {str(key): [cell] for key, cell in value.items()}


def _bounded(name: str, columns: dict[str, list[Any]]) -> tuple[int, dict[str, list[Any]]]:
    rows = len(next(iter(columns.values())))
    if not 0 < rows <= MOST_ROWS:
        raise IngestError(f"{name}: must have between 1 and {MOST_ROWS:,} rows, not {rows:,}")
    return rows, columns


def _payloads(
    model: tuple[str, str, str],
    rows: int,
    features: dict[str, list[Any]],
    predictions: dict[str, list[Any]] | None,
) -> tuple[str, bytes, bytes | None]:
    """Path and payloads that the model's codec decodes to the same columns."""
    name, _, protocol = model
    if protocol == "json":
        raise IngestError("features: the model uses plain JSON: post the request as it was sent")
    if protocol == "open-inference-v2":
        path = f"/v2/models/{name}/infer"
        request: Any = {"inputs": _tensors(features, rows)}
        response: Any = {"model_name": name, "outputs": _tensors(predictions or {}, rows)}
    else:
        if sum(map(len, features)) * rows > MAX_NAME_BYTES:
            raise IngestError(
                f"features: the names, once for each row, take more than {MAX_NAME_BYTES:,} bytes"
            )
        path = f"/v1/models/{name}:predict" if protocol == "kserve-v1" else "/invocations"
        row_objects = _rows(features, rows)
        request = {"instances": row_objects}
        if protocol != "kserve-v1":
            split = {"columns": list(features), "data": [list(row.values()) for row in row_objects]}
            request = {"dataframe_split": split}
        response = {"predictions": _rows(predictions or {}, rows)}
    answered = orjson.dumps(response) if predictions is not None else None
    return path, orjson.dumps(request), answered


def _rows(columns: dict[str, list[Any]], rows: int) -> list[dict[str, Any]]:
    return [{name: cells[row] for name, cells in columns.items()} for row in range(rows)]


def _tensors(columns: dict[str, list[Any]], rows: int) -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "shape": [rows, 1],
            "datatype": "BYTES" if any(isinstance(c, str) for c in cells) else "FP64",
            "data": cells,
        }
        for name, cells in columns.items()
    ]
