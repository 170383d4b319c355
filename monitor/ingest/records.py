"""Posted records, converted to the records of workers.

An item names its features and predictions, or holds the payloads as sent. Either way it becomes the
record that a worker would have made, and is evaluated in the same way.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

import orjson

from understudy.common.codecs.headers import fields_of
from understudy.common.grpc_messages import INFER, STREAM_INFER, model_of
from understudy.monitor.baseline.kinds import instant
from understudy.monitor.config.fields import MODEL_NAME
from understudy.monitor.errors import IngestError
from understudy.monitor.records.encode import encode
from understudy.monitor.records.record import (
    ANSWERED,
    CLIENT_ERROR,
    ENDS,
    OK,
    OUTCOMES,
    ROLE_PRIMARY,
    ROLES,
    SERVER_ERROR,
)

MOST_ITEMS = 10_000
MOST_ROWS = 10_000
MAX_NAME_BYTES = 4 * 1024 * 1024
"""Names of features in a payload that repeats them for each row."""
MAX_AHEAD_SECONDS = 300.0
"""How far the time of a record may be ahead of the local clock."""
MAX_BEHIND_SECONDS = 30 * 86400.0
JSON_HEADERS = b"content-type: application/json"
_READ_HEADERS = frozenset(
    (
        *("content-type", "content-encoding", "inference-header-content-length"),
        *("grpc-encoding", "grpc-status"),
    )
)
"""Headers that codecs read."""
_MAX_VALUE = 256
_NAMED = re.compile(
    r".*/(?:v[12]/models/([^/]+?)(?:/versions/([^/]+?))?(?:/infer|:\w+)"
    r"|predictions/([^/]+)(?:/([^/]+))?)"
)
"""Model and version in a path of V2, V1 or TorchServe."""
_KEYS = frozenset(
    (
        *("model", "version", "arm", "request_id", "trace_id", "time", "duration_seconds"),
        *("status", "outcome", "features", "predictions", "request", "response", "path"),
        *("request_base64", "response_base64", "request_headers", "response_headers"),
        *("request_bytes", "response_bytes", "first_byte_seconds", "role"),
    )
)


@dataclass(frozen=True, slots=True)
class Item:
    """One exchange. ``model`` is (name, version, protocol), ``started`` is unix seconds,
    ``duration`` and ``first_byte`` are seconds. ``*_headers`` are lines joined by CRLF, and
    ``*_size`` are bytes on the wire where the body is not there."""

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
    request_headers: bytes = JSON_HEADERS
    response_headers: bytes = JSON_HEADERS
    request_size: int = 0
    response_size: int = 0
    first_byte: float = 0.0
    role: int = ROLE_PRIMARY

    def encode(self, model: int, arm: int) -> bytes:
        """The record as a worker packs it; ``model`` and ``arm`` index the batch's names."""
        _, parts = encode(
            model,
            arm,
            self.status,
            self.role,
            self.outcome,
            self.started,
            round(self.duration * 1e9),
            round(self.first_byte * 1e9),
            0,
            len(self.request or b"") or self.request_size,
            len(self.response or b"") or self.response_size,
            self.request_id.encode(),
            self.trace_id.encode(),
            b"",
            self.path.encode(),
            self.request_headers,
            self.response_headers,
            self.request,
            self.response,
        )
        return b"".join(parts)


class KnownModels:
    """The declared models, each (name, version, protocol), and arms.

    ``patterns`` are names that others may have, in which ``*`` is any text, and ``most`` how many
    of these are counted separately; further ones count as the last of ``models``.
    ``paths`` are the paths that the configuration gives to models, each with its model.
    """

    def __init__(
        self,
        models: Sequence[tuple[str, str, str]],
        arms: Sequence[str],
        patterns: Sequence[str] = (),
        most: int = 0,
        paths: Sequence[tuple[str, tuple[str, str, str]]] = (),
    ) -> None:
        self.models = list(models)
        self.arms = list(arms)
        self.others = bool(patterns)
        """Whether there are models that are not listed."""
        self._patterns = [re.compile(re.escape(one).replace(r"\*", ".*")) for one in patterns]
        self._most = most
        self._found: dict[tuple[str, str], tuple[str, str, str]] = {}
        self._paths = [
            (re.compile(re.escape(path).replace(r"\*", "[^/]+")), model) for path, model in paths
        ]

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
        if isinstance(name, str) and not result and self._fits(name, version):
            return self._other(name, str(version or ""))
        known = ", ".join(f"{n} {v}".strip() for n, v, _ in self.models)
        said = "which model?" if len(result) > 1 else f"no model {name!r} {version or ''}".strip()
        raise IngestError(f"{said}; declared are: {known}")

    def served(self, path: str, body: bytes | None, headers: bytes) -> tuple[str, str, str]:
        """The model that answered a request: by the paths of models, then by the name in the path
        or, of a gRPC call, in its message; without one, the only model,
        or the one that stands for all others.

        Raises IngestError.
        """
        path = path.partition("?")[0]
        for pattern, model in self._paths:
            if pattern.fullmatch(path):
                return model
        name, version = "", ""
        if path.endswith((INFER, STREAM_INFER)):
            if body is not None:
                encoding = fields_of(headers).get(b"grpc-encoding", b"")
                name, version = model_of(body, encoding) or ("", "")
        elif (match := _NAMED.fullmatch(path)) is not None:
            name = unquote(match[1] or match[3])
            version = match[2] or match[4] or ""
        found = [model for model in self.models if model[0] == name]
        if len(found) == 1:
            return found[0]
        if self.others and not found and not self._fits(name, version):
            return self.models[-1]
        return self.model(name or None, version or None)

    def _fits(self, name: str, version: object) -> bool:
        return (
            (version is None or isinstance(version, str))
            and re.fullmatch(MODEL_NAME, name) is not None
            and any(pattern.fullmatch(name) is not None for pattern in self._patterns)
        )

    def _other(self, name: str, version: str) -> tuple[str, str, str]:
        """A model that is not listed."""
        rest = self.models[-1]
        known = self._found.get((name, version))
        if known is None and len(self._found) < self._most:
            known = self._found[name, version] = (name, version[:63], rest[2])
        return known or rest


def item_of(data: object, declared: KnownModels, now: float) -> Item:
    """One posted object; ``now`` is unix seconds. Raises IngestError that names the field."""
    if not isinstance(data, Mapping):
        raise IngestError("must be an object")
    unknown = sorted(set(data) - _KEYS)
    if unknown:
        raise IngestError(f"{unknown[0]}: is not known; known are {', '.join(sorted(_KEYS))}")
    arm = data.get("arm", declared.arms[0])
    if arm not in declared.arms:
        raise IngestError(f"arm: {arm!r} is none of {', '.join(declared.arms)}")
    started = _time(data.get("time"), now)
    duration = _number(data, "duration_seconds", 0.0, 0.0, 86400.0)
    outcome = _outcome(data.get("outcome"))
    answered = outcome is None or outcome in ANSWERED
    status = int(_number(data, "status", 200.0 if answered else 0.0, 0.0, 599.0))
    if outcome is None:
        outcome = OK if status < 400 else CLIENT_ERROR if status < 500 else SERVER_ERROR
    if status < 100 and answered:
        raise IngestError("status: must lie between 100 and 599, or be 0 if nothing was answered")
    rows, features = _table(data, "features")
    answers, predictions = _table(data, "predictions")
    request, response = _raw(data, "request"), _raw(data, "response")
    size, response_size = (
        int(_number(data, name, 0.0, 0.0, 1e15)) for name in ("request_bytes", "response_bytes")
    )
    if (features is None) == (request is None and not size):
        raise IngestError("features: give either features or the request as it was sent")
    path = data.get("path")
    named = data.get("model"), data.get("version")
    headers, response_headers = _headers(data, "request"), _headers(data, "response")
    if features is None and named[0] is None and isinstance(path, str):
        model = declared.served(path, request, headers)
    else:
        model = declared.model(*named)
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
        _text(data, "trace_id"), str(path), request, response, headers, response_headers, size,
        response_size, _number(data, "first_byte_seconds", 0.0, 0.0, 86400.0), _role(data),
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


def _outcome(value: object) -> int | None:
    if value is None:
        return None
    if value not in ENDS:
        raise IngestError(f"outcome: {value!r} is not one of {', '.join(ENDS)}")
    return OUTCOMES.index(str(value))


def _raw(data: Mapping[str, Any], name: str) -> bytes | None:
    """A payload: as JSON or text, or, of any kind, in base64."""
    value, encoded = data.get(name), data.get(name + "_base64")
    if encoded is not None:
        if value is not None or not isinstance(encoded, str):
            raise IngestError(f"{name}_base64: must be a text, instead of {name}")
        try:
            return base64.b64decode(encoded, validate=True)
        except binascii.Error as error:
            raise IngestError(f"{name}_base64: {error}") from error
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else orjson.dumps(value)


def _headers(data: Mapping[str, Any], name: str) -> bytes:
    """The headers that codecs read, as lines."""
    value = data.get(name + "_headers")
    if value is None:
        return JSON_HEADERS
    if not isinstance(value, Mapping):
        raise IngestError(f"{name}_headers: must be an object of texts by name")
    lines = []
    for key, text in value.items():
        if str(key).lower() not in _READ_HEADERS:
            continue
        if not isinstance(text, str) or len(text) > _MAX_VALUE or not text.isprintable():
            raise IngestError(f"{name}_headers: {key}: must be a text in one line")
        lines.append(f"{key.lower()}: {text}")
    return "\r\n".join(lines).encode("latin-1", "replace")


def _role(data: Mapping[str, Any]) -> int:
    role = data.get("role", ROLES[ROLE_PRIMARY])
    if role not in ROLES:
        raise IngestError(f"role: {role!r} is neither of {', '.join(ROLES)}")
    return ROLES.index(role)


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
