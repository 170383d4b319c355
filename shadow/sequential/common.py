"""What every sequential method shares: its contract, its errors, its interval, its log arithmetic.

Vocabulary. An *e-process* E satisfies E[E_tau] <= 1 under the null hypothesis at every stopping
time tau; rejecting once E >= 1/alpha errs with probability at most alpha however often somebody
looks (Ville 1939). A *confidence sequence* is the set of parameters not rejected so far. All
evidence is kept as natural logarithms (``log_e``).

Merge rules (:class:`MergeRule`), because replicas and restarts have to add up:

* ``ADDITIVE``: the state is a sum over records; any split in any order gives the same state.
* ``PRODUCT``: bets depend on the order of arrival, so each replica bets on its own stream and the
  e-values multiply. Valid because, given everything that happened before on all replicas, the next
  record of each is still a fair game under the null hypothesis. Power is a little below that of
  one process over the whole stream; the guarantee is the same.
* ``AVERAGE``: for evidence on the *same* records (several tests of one hypothesis), whose
  e-values depend on each other: their mean is an e-value, their product is not.

``merge`` of processes that keep a running maximum restarts it at the merged value: the maximum of
a part belongs to another process and must not be carried over.
"""

from __future__ import annotations

import base64
import binascii
import math
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from importlib import import_module
from typing import Annotated, Any, ClassVar, Self

import numpy as np
import numpy.typing as npt

from understudy.shadow.sequential.contrib import MODULES
from understudy.shadow.sequential.contrib import __name__ as CONTRIB  # noqa: N812
from understudy.shadow.sequential.logspace import (
    HALF_LOG_2PI,
    Array,
    log_beta,
    log_beta_mixture,
    log_beta_mixture_1,
    log_beta_mixture_upper,
    log_beta_upper,
    logaddexp,
    logmeanexp,
    logsumexp,
    stirling_rest,
    stirling_rest_1,
)
from understudy.shadow.state import Converter, FieldError, Saved, Stateful, settings_of

__all__ = [
    "ANY_KIND",
    "HALF_LOG_2PI",
    "Array",
    "EProcess",
    "Ends",
    "Interval",
    "MergeRule",
    "Packed",
    "PackedShape",
    "Process",
    "SequentialError",
    "State",
    "binary",
    "choice",
    "count",
    "load",
    "log_beta",
    "log_beta_mixture",
    "log_beta_mixture_1",
    "log_beta_mixture_upper",
    "log_beta_upper",
    "logaddexp",
    "logmeanexp",
    "logsumexp",
    "non_negative",
    "p_value",
    "pack",
    "positive",
    "probability",
    "real",
    "reals",
    "reject",
    "same_length",
    "stirling_rest",
    "stirling_rest_1",
    "unpack",
]

State = dict[str, Any]
"""A state as JSON values."""
_VERSION = 2


class SequentialError(FieldError):
    """A bad argument or state; ``argument`` is its name and the message says what is allowed."""


class MergeRule(Enum):
    """How two states become the state of the union; see the module's text."""

    ADDITIVE = "additive"
    PRODUCT = "product"
    AVERAGE = "average"


@dataclass(frozen=True, slots=True)
class Interval:
    """A closed interval; infinite ends mean that nothing is known on that side.

    A running intersection may turn out empty (``lower > upper``): that has probability at most
    alpha when the assumptions hold, so it is shown rather than repaired.
    """

    lower: float = -math.inf
    upper: float = math.inf

    def __post_init__(self) -> None:
        if math.isnan(self.lower) or math.isnan(self.upper):
            raise SequentialError("interval", "must not have NaN as an end")

    @property
    def width(self) -> float:
        """upper - lower; negative when empty."""
        return self.upper - self.lower

    @property
    def is_empty(self) -> bool:
        """Whether no value is left."""
        return self.lower > self.upper

    @property
    def is_finite(self) -> bool:
        """Whether both ends are finite."""
        return math.isfinite(self.lower) and math.isfinite(self.upper)

    def __contains__(self, value: float) -> bool:
        return self.lower <= value <= self.upper

    def within(self, lower: float, upper: float) -> bool:
        """Whether it lies strictly inside (lower, upper), as for "practically equal"."""
        return not self.is_empty and lower < self.lower and self.upper < upper

    def intersect(self, other: Interval) -> Interval:
        """The running intersection: values that neither has excluded."""
        return Interval(max(self.lower, other.lower), min(self.upper, other.upper))

    def shift(self, by: float) -> Interval:
        """Both ends moved by ``by``."""
        return Interval(self.lower + by, self.upper + by)

    def scale(self, factor: float) -> Interval:
        """Both ends times ``factor`` (a negative factor swaps them)."""
        ends = sorted((self.lower * factor, self.upper * factor))
        return Interval(ends[0], ends[1]) if not self.is_empty else Interval(ends[1], ends[0])

    def to_list(self) -> list[float | None]:
        """As JSON: an infinite end is null."""
        return [x if math.isfinite(x) else None for x in (self.lower, self.upper)]

    @classmethod
    def from_list(cls, ends: Any, argument: str = "interval") -> Interval:
        """Undo :meth:`to_list`; SequentialError naming ``argument``."""
        if not isinstance(ends, list) or len(ends) != 2:
            raise SequentialError(argument, f"must be a pair of numbers or nulls, not {ends!r}")
        lower = -math.inf if ends[0] is None else real(argument, ends[0])
        return cls(lower, math.inf if ends[1] is None else real(argument, ends[1]))


class Process(Stateful, ABC):
    """Sufficient statistics that take batches, merge, and go through JSON.

    A subclass names itself by ``kind`` and its ``merge_rule``; it has an ``update`` of its own
    signature, whose batches hold records in their order of arrival. What its state is it declares
    (:mod:`understudy.shadow.state`): its settings, and what it has seen. The dict of
    :meth:`dump_state` holds only JSON values (no NaN or infinity), at most 4 KB when dumped,
    whatever n is.
    """

    kind: ClassVar[str]
    merge_rule: ClassVar[MergeRule]
    _kinds: ClassVar[dict[str, type[Process]]] = {}

    def __init_subclass__(cls, **kwargs: Any) -> None:
        super().__init_subclass__(**kwargs)
        kind = cls.__dict__.get("kind")
        if kind is not None:
            known = Process._kinds.setdefault(kind, cls)
            if (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
                raise TypeError(f"two processes call themselves {kind!r}")
            Process._kinds[kind] = cls

    @abstractmethod
    def merge(self, other: Self) -> Self:
        """The state of both together, as a new object, by ``merge_rule``.

        Raises SequentialError when the two were set up differently.
        """

    def dump_state(self) -> State:
        """The state as JSON values, which begin with the kind and the version."""
        return {"kind": self.kind, "version": _VERSION, **super().dump_state()}

    @classmethod
    def from_state(cls, state: Mapping[str, Any]) -> Self:
        """Undo :meth:`dump_state`; raises SequentialError naming the field at fault."""
        if state.get("kind") != cls.kind:
            raise SequentialError("kind", f"must be {cls.kind!r}, not {state.get('kind')!r}")
        if state.get("version") != _VERSION:
            raise SequentialError(
                "version", f"of {cls.kind!r} must be {_VERSION}, not {state.get('version')!r}"
            )
        body = {key: value for key, value in state.items() if key not in ("kind", "version")}
        try:
            return super().from_state(body)
        except FieldError as error:
            raise SequentialError(error.argument, error.problem) from None

    def begin_merge(self, other: object) -> Self:
        """A new process with the settings that both share, for ``merge`` to fill.

        Raises SequentialError unless ``other`` is of this class with equal settings.
        """
        if type(other) is not type(self):
            raise SequentialError("other", f"must be a {type(self).__name__} to be merged")
        for name, mine, theirs in settings_of(self, other):
            if not np.array_equal(mine, theirs):
                raise SequentialError(
                    "other", f"cannot be merged: {name} is {theirs!r} there and {mine!r} here"
                )
        return self.empty()


class EProcess(Process):
    """A process that carries evidence against one null hypothesis.

    ``log_e`` is the e-value now, which is what multiplicity procedures take. ``peak_log_e`` is its
    running maximum, kept by :meth:`_look` at each update, and gives the anytime p-value. The peak
    is not additive: after a merge it restarts at the merged value.
    """

    _peak: Saved[float] = 0.0

    @property
    @abstractmethod
    def log_e(self) -> float:
        """Natural log of the e-value now; 0 before any record."""

    @property
    def peak_log_e(self) -> float:
        """The largest ``log_e`` so far, at least 0."""
        return self._peak

    @property
    def p_value(self) -> float:
        """min over time of 1/E: an anytime-valid p-value in [0, 1]."""
        return p_value(self._peak)

    def rejects(self, alpha: float) -> bool:
        """Whether the null hypothesis has been rejected at any time so far, at level ``alpha``."""
        return reject(self._peak, alpha)

    def _look(self, log_e: float | None = None) -> None:
        """Raise the peak to ``log_e`` (of a moment inside a batch) or to the value now."""
        self._peak = max(self._peak, self.log_e if log_e is None else float(log_e))


def load(state: Mapping[str, Any]) -> Process:
    """The process that wrote ``state``, of whatever kind; SequentialError when unknown."""
    kind = state.get("kind")
    known = Process._kinds.get(kind) if isinstance(kind, str) else None
    if known is None:
        # It may be one that the service does not use, and has therefore not been loaded.
        for module in MODULES:
            import_module(f"{CONTRIB}.{module}")
        known = Process._kinds.get(kind) if isinstance(kind, str) else None
    if known is None:
        raise SequentialError("kind", f"must be one of {sorted(Process._kinds)}, not {kind!r}")
    return known.from_state(state)


def reject(log_e: float, alpha: float) -> bool:
    """Whether evidence ``log_e`` reaches 1/alpha (Ville's inequality)."""
    return log_e >= -math.log(probability("alpha", alpha))


def p_value(peak_log_e: float) -> float:
    """1/E in [0, 1] from the running maximum of log E."""
    return math.exp(-max(0.0, peak_log_e))


def real(argument: str, value: Any) -> float:
    """``value`` as a finite float."""
    if isinstance(value, (bool, str, bytes)) or value is None:
        raise SequentialError(argument, f"must be a number, not {value!r}")
    try:
        number = float(value)
    except (TypeError, ValueError, OverflowError):
        raise SequentialError(argument, f"must be a number, not {value!r}") from None
    if not math.isfinite(number):
        raise SequentialError(argument, f"must be finite, not {number}")
    return number


def probability(argument: str, value: Any) -> float:
    """``value`` as a float strictly between 0 and 1."""
    number = real(argument, value)
    if not 0.0 < number < 1.0:
        raise SequentialError(argument, f"must lie strictly between 0 and 1, not {number}")
    return number


def positive(argument: str, value: Any) -> float:
    """``value`` as a float above 0."""
    number = real(argument, value)
    if number <= 0.0:
        raise SequentialError(argument, f"must be above 0, not {number}")
    return number


def non_negative(argument: str, value: Any) -> float:
    """``value`` as a float of at least 0."""
    number = real(argument, value)
    if number < 0.0:
        raise SequentialError(argument, f"must be at least 0, not {number}")
    return number


def count(argument: str, value: Any) -> int:
    """``value`` as a whole number of at least 0 (below 2^53, so that floats hold it exactly)."""
    number = real(argument, value)
    if number < 0.0 or number != math.floor(number) or number > 2.0**53:
        raise SequentialError(argument, f"must be a whole number of at least 0, not {value!r}")
    return int(number)


def choice(argument: str, value: Any, *allowed: str) -> str:
    """``value`` when it is one of ``allowed``."""
    if value not in allowed:
        raise SequentialError(argument, f"must be one of {', '.join(allowed)}, not {value!r}")
    return str(value)


def reals(argument: str, values: npt.ArrayLike) -> Array:
    """A batch as a 1-D float array of finite values; a single number becomes a batch of one."""
    try:
        x = np.atleast_1d(np.asarray(values, dtype=np.float64))
    except (TypeError, ValueError):
        raise SequentialError(argument, "must hold only numbers") from None
    if x.ndim != 1:
        raise SequentialError(argument, f"must be one-dimensional, not of shape {x.shape}")
    if x.size and not np.isfinite(x).all():
        raise SequentialError(argument, "must hold only finite numbers")
    return x


def binary(argument: str, values: npt.ArrayLike) -> Array:
    """A batch of zeros and ones (or booleans) as a 1-D float array."""
    x = reals(argument, values)
    if x.size and not ((x == 0.0) | (x == 1.0)).all():
        raise SequentialError(argument, "must hold only 0 and 1")
    return x


def shares_of(arms: Array, share: npt.ArrayLike) -> Array:
    """The challenger's probabilities, strictly between 0 and 1, of records: one number for each, or
    one for all, also where those of all are alike."""
    rho = reals("share", share)
    if rho.size > 1:
        same_length(("arms", "share"), arms, rho)
        if (rho == rho[0]).all():
            rho = rho[:1]
    if not ((rho > 0.0) & (rho < 1.0)).all():
        raise SequentialError("share", "must lie strictly between 0 and 1")
    return rho


def same_length(names: tuple[str, str], first: Array, second: Array) -> None:
    """Raise SequentialError unless two batches have the same number of records."""
    if first.shape != second.shape:
        raise SequentialError(
            names[1], f"must be as long as {names[0]} ({first.size}), not {second.size}"
        )


def pack(values: npt.ArrayLike) -> str:
    """Floats as base64 of little-endian float64, exact and 10.7 bytes each."""
    return base64.b64encode(np.asarray(values, dtype="<f8").tobytes()).decode("ascii")


def unpack(argument: str, text: Any, size: int) -> Array:
    """Undo :func:`pack`; SequentialError unless it holds exactly ``size`` finite floats."""
    if not isinstance(text, str):
        raise SequentialError(argument, "must be base64 text")
    try:
        raw = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        raise SequentialError(argument, "must be base64 text") from None
    if len(raw) != 8 * size:
        raise SequentialError(argument, f"must hold {size} floats, not {len(raw) / 8:g}")
    values = np.frombuffer(raw, dtype="<f8").astype(np.float64)
    if not np.isfinite(values).all():
        raise SequentialError(argument, "must hold only finite numbers")
    return values


def _unpack_like(name: str, text: Any, now: Any) -> Array:
    return unpack(name, text, now.size).reshape(now.shape)


def _pack_shape(values: Any) -> State:
    return {"shape": list(values.shape), "values": pack(values)}


def _unpack_shape(name: str, state: Any, _: Any) -> Array:
    if not isinstance(state, Mapping) or not isinstance(state.get("shape"), list):
        raise SequentialError(name, "must have a shape and values")
    shape = tuple(count(name, size) for size in state["shape"])
    return unpack(name, state.get("values"), math.prod(shape)).reshape(shape)


def _load_any(name: str, state: Any, _: Any) -> Process:
    if not isinstance(state, Mapping):
        raise SequentialError(name, f"must be an object, not {state!r}")
    return load(state)


ANY_KIND = Converter(lambda process: process.dump_state(), _load_any)
"""Of a process that is one of several kinds."""
Packed = Annotated[Array, Converter(pack, _unpack_like)]
"""Exact, in the shape of the array that the constructor made."""
PackedShape = Annotated[Array, Converter(_pack_shape, _unpack_shape)]
"""The same, but with a custom shape."""
Ends = Annotated[
    Interval, Converter(Interval.to_list, lambda name, ends, now: Interval.from_list(ends, name))
]
"""Both ends; an infinite one is null."""
