"""The baseline: what the columns of a model version usually look like, in a file for people."""

from __future__ import annotations

import base64
import contextlib
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import orjson

from understudy.common.text import visible
from understudy.common.unreadable import why_unreadable
from understudy.monitor.baseline.parts import (
    check_parts,
    merged_calibration,
    merged_correlation,
    merged_performance,
)
from understudy.monitor.baseline.profiles import CategoryProfile, NumericProfile, Profile
from understudy.monitor.errors import BaselineError

__all__ = ["Baseline", "CategoryProfile", "Column", "NumericProfile"]

FORMAT = "understudy-baseline"
VERSION = 1

Role = Literal["feature", "prediction", "target"]
Kind = Literal["numeric", "boolean", "categorical", "datetime", "text", "vector"]
TOKEN_BYTES = 1 << 12
"""Of the sketch of a text's tokens."""
ROLES = ("feature", "prediction", "target")
KINDS = ("numeric", "boolean", "categorical", "datetime", "text", "vector")


@dataclass
class Column:
    """A raw column. ``missing`` counts nulls, ``nan`` NaNs, ``infinite`` and ``mistyped`` what
    their names say, of ``rows``. ``series`` are what its kind makes of it, by their full names;
    ``extra`` is what the kind needs to make the same of live values."""

    name: str
    role: Role
    kind: Kind
    rows: int = 0
    missing: int = 0
    nan: int = 0
    infinite: int = 0
    mistyped: int = 0
    series: dict[str, Profile] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "role": self.role,
            "kind": self.kind,
            "rows": self.rows,
            "missing": self.missing,
            "nan": self.nan,
            "infinite": self.infinite,
            "mistyped": self.mistyped,
            "extra": self.extra,
            "series": {name: profile.to_dict() for name, profile in self.series.items()},
        }

    @classmethod
    def from_dict(cls, name: str, data: Mapping[str, Any]) -> Column:
        """Undo :meth:`to_dict`. Raises KeyError, TypeError or ValueError."""
        role, kind = data["role"], data["kind"]
        if role not in ROLES or kind not in KINDS:
            raise ValueError(f"role {role!r} or kind {kind!r} is not known")
        counts = {k: int(data[k]) for k in ("rows", "missing", "nan", "infinite", "mistyped")}
        extra = dict(data.get("extra") or {})
        _check_extra(extra)
        series: dict[str, Profile] = {}
        for key, profile in data["series"].items():
            of_numbers = "edges" in profile
            reader = NumericProfile.from_dict if of_numbers else CategoryProfile.from_dict
            try:
                series[str(key)] = reader(profile)
            except (KeyError, TypeError, ValueError) as error:
                raise ValueError(f"{key}: {error}") from error
        return cls(name, role, kind, **counts, series=series, extra=extra)

    def merge(self, other: Column) -> Column:
        """Of the rows of both. Raises BaselineError for another kind of column."""
        if (self.role, self.kind) != (other.role, other.kind):
            raise BaselineError(
                f"column {self.name!r} is {self.role}, {self.kind} in one baseline and "
                f"{other.role}, {other.kind} in the other"
            )
        if self.extra.get("length") != other.extra.get("length"):
            raise BaselineError(
                f"column {self.name!r} has vectors of {self.extra.get('length')} numbers in one "
                f"baseline and of {other.extra.get('length')} in the other"
            )
        series: dict[str, Profile] = {}
        for name in dict.fromkeys((*self.series, *other.series)):
            mine, theirs = self.series.get(name), other.series.get(name)
            if mine is None or theirs is None:
                series[name] = mine or theirs  # type: ignore[assignment]
            elif isinstance(mine, NumericProfile) and isinstance(theirs, NumericProfile):
                series[name] = mine.merge(theirs)
            elif not isinstance(mine, NumericProfile) and not isinstance(theirs, NumericProfile):
                series[name] = mine.merge(theirs)  # counts of categories
            else:
                raise BaselineError(f"series {name!r} holds numbers in one baseline only")
        extra = {**other.extra, **self.extra}
        runs = [c.extra["longest_run"] for c in (self, other) if "longest_run" in c.extra]
        if runs:
            extra["longest_run"] = max(runs)
        if "tokens" in self.extra and "tokens" in other.extra:
            both = [base64.b64decode(c.extra["tokens"]) for c in (self, other)]
            joined = bytes(a | b for a, b in zip(*both, strict=True))
            extra["tokens"] = base64.b64encode(joined).decode()
        return Column(
            self.name,
            self.role,
            self.kind,
            self.rows + other.rows,
            self.missing + other.missing,
            self.nan + other.nan,
            self.infinite + other.infinite,
            self.mistyped + other.mistyped,
            series,
            extra,
        )


@dataclass
class Baseline:
    """``created`` is an ISO time in UTC, ``source`` says where the rows came from. ``duplicates``
    is the share of rows that were there shortly before. The optional parts: ``correlation``
    (``{"series": [...], "matrix": [[...]], "rows": n}``, of normal scores), ``calibration``
    (``{"prediction", "edges", "counts", "positives", "scores"}``, scores summed by bucket) and
    ``performance`` (``{metric: {"value", "deviation", "rows"}}``), ``together``
    (:class:`~understudy.monitor.baseline.together.JointProfile`), ``seasons``
    (:class:`~understudy.monitor.detectors.seasons.Profile`, with its series).

    :meth:`load` and :meth:`save` raise BaselineError, which names the file and the fault.

    >>> import tempfile
    >>> from pathlib import Path
    >>> from understudy import BaselineBuilder
    >>> builder = BaselineBuilder(model="delays")
    >>> builder.add(["distance"], [[float(n) for n in range(1_000)]])
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     builder.finish().save(Path(folder) / "baseline.json")
    ...     Baseline.load(Path(folder) / "baseline.json").rows
    1000
    """

    model: str
    model_version: str
    source: str
    created: str
    rows: int
    columns: dict[str, Column]
    duplicates: float | None = None
    correlation: dict[str, Any] | None = None
    calibration: dict[str, Any] | None = None
    performance: dict[str, Any] | None = None
    together: dict[str, Any] | None = None
    seasons: dict[str, Any] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "format": FORMAT,
            "version": VERSION,
            "model": self.model,
            "model_version": self.model_version,
            "source": self.source,
            "created": self.created,
            "rows": self.rows,
            "duplicates": self.duplicates,
            "performance": self.performance,
            "calibration": self.calibration,
            "correlation": self.correlation,
            "together": self.together,
            "seasons": self.seasons,
            "columns": {name: column.to_dict() for name, column in self.columns.items()},
        }

    @classmethod
    def from_dict(cls, data: Any, source: str = "baseline") -> Baseline:
        """Undo :meth:`to_dict`; ``source`` names it in errors. Raises BaselineError."""
        if not isinstance(data, dict) or data.get("format") != FORMAT:
            raise BaselineError(f"{source}: not a baseline; build one: understudy baseline build")
        if data.get("version") != VERSION:
            raise BaselineError(
                f"{source}: has version {data.get('version')!r} of the format, this program reads "
                f"version {VERSION}: build it again"
            )
        try:
            columns = {}
            for name, column in data["columns"].items():
                try:
                    columns[str(name)] = Column.from_dict(str(name), column)
                except (KeyError, TypeError, ValueError, AttributeError) as error:
                    raise BaselineError(
                        f"{source}: column {name!r} is damaged: {_said(error)}"
                    ) from error
            check_parts(data)
            return cls(
                str(data["model"]),
                str(data["model_version"]),
                str(data["source"]),
                str(data["created"]),
                int(data["rows"]),
                columns,
                data.get("duplicates"),
                data.get("correlation"),
                data.get("calibration"),
                data.get("performance"),
                data.get("together"),
                data.get("seasons"),
            )
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise BaselineError(f"{source}: is damaged: {_said(error)}") from error

    @classmethod
    def load(cls, path: Path) -> Baseline:
        """Read a file. Raises BaselineError."""
        try:
            data = orjson.loads(path.read_bytes())
        except OSError as error:
            raise BaselineError(f"{path}: cannot be read: {why_unreadable(path, error)}") from error
        except orjson.JSONDecodeError as error:
            raise BaselineError(f"{path}: not valid JSON: {error}") from error
        return cls.from_dict(data, str(path))

    def save(self, path: Path) -> None:
        """Write a file, whole or not at all. Raises BaselineError."""
        text = orjson.dumps(self.to_dict(), option=orjson.OPT_INDENT_2)
        fresh = path.with_name(f".{path.name}.{os.getpid()}")
        try:
            with open(fresh, "wb") as file:
                file.write(_compact(text))
                file.flush()
                os.fsync(file.fileno())
            os.replace(fresh, path)
        except OSError as error:
            with contextlib.suppress(OSError):
                fresh.unlink()
            raise BaselineError(f"{path}: cannot be written: {error.strerror or error}") from error

    def check(self, model: str, version: str) -> None:
        """Raise BaselineError when it belongs to another model or version. One that names none is
        for any."""
        if self.model and self.model != model:
            raise BaselineError(f"the baseline is that of model {self.model!r}, not of {model!r}")
        if self.model_version and version and self.model_version != version:
            raise BaselineError(
                f"the baseline is that of version {self.model_version!r} of {model!r}, not of "
                f"{version!r}: build one for it, or take the version out of the file"
            )

    def merge(self, other: Baseline) -> Baseline:
        """Of the rows of both. Raises BaselineError for baselines of different models."""
        for name in ("model", "model_version"):
            if getattr(self, name) != getattr(other, name):
                raise BaselineError(
                    f"{name} is {getattr(self, name)!r} in one and {getattr(other, name)!r} in the "
                    "other"
                )
        columns = dict(other.columns)
        for name, column in self.columns.items():
            theirs = columns.get(name)
            columns[name] = column if theirs is None else column.merge(theirs)
        rows = self.rows + other.rows
        duplicates = None
        if self.duplicates is not None and other.duplicates is not None and rows:
            duplicates = (self.duplicates * self.rows + other.duplicates * other.rows) / rows
        return Baseline(
            self.model,
            self.model_version,
            f"{self.source} + {other.source}",
            max(self.created, other.created),
            rows,
            columns,
            duplicates,
            merged_correlation(self.correlation, other.correlation),
            merged_calibration(self.calibration, other.calibration),
            merged_performance(self.performance, other.performance),
        )


def _check_extra(extra: Mapping[str, Any]) -> None:
    """Raise ValueError for what :func:`~understudy.monitor.baseline.kinds.expand` could not use."""
    if "tokens" in extra and len(base64.b64decode(extra["tokens"], validate=True)) != TOKEN_BYTES:
        raise ValueError(f"the sketch of its tokens must have {TOKEN_BYTES} bytes")
    length = extra.get("length", 0)
    if not isinstance(length, int) or length < 0:
        raise ValueError("length must be a whole number, at least 0")


def _said(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"{visible(str(error.args[0]))} is missing"
    if isinstance(error, (AttributeError, TypeError)):
        return "a part is of the wrong kind"
    return visible(str(error))


def _compact(text: bytes) -> bytes:
    """Lists of numbers on one line each, which is how people read them."""
    lines: list[bytes] = []
    held: list[bytes] = []
    for line in text.split(b"\n"):
        bare = line.strip()
        number = bare.rstrip(b",")[:1] in b"-0123456789" and bare[:1] != b""
        if lines and (held or lines[-1].endswith(b"[")) and number:
            held.append(bare)
        elif held:
            lines[-1] += b" ".join(held) + bare
            held = []
        else:
            lines.append(line)
    return b"\n".join(lines) + b"\n"
