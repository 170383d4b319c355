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
from typing import Any, ClassVar, Self

import numpy as np
import numpy.typing as npt
from scipy import special

Array = npt.NDArray[np.float64]
State = dict[str, Any]

HALF_LOG_2PI = 0.5 * math.log(2.0 * math.pi)
_VERSION = 1


class SequentialError(ValueError):
    """A bad argument or state; ``argument`` is its name and the message says what is allowed."""

    def __init__(self, argument: str, problem: str) -> None:
        self.argument = argument
        super().__init__(f"{argument} {problem}")


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
        """JSON form: an infinite end is None."""
        return [x if math.isfinite(x) else None for x in (self.lower, self.upper)]

    @classmethod
    def from_list(cls, ends: Any, argument: str = "interval") -> Interval:
        """Undo :meth:`to_list`."""
        if not isinstance(ends, (list, tuple)) or len(ends) != 2:
            raise SequentialError(argument, f"must be a pair of numbers or nulls, not {ends!r}")
        lower = -math.inf if ends[0] is None else real(argument, ends[0])
        upper = math.inf if ends[1] is None else real(argument, ends[1])
        return cls(lower, upper)


class Process(ABC):
    """Sufficient statistics that take batches, merge, and go through JSON.

    A subclass names itself by ``kind`` and its ``merge_rule``; it has an ``update`` of its own
    signature, whose batches hold records in their order of arrival. The dict of :meth:`to_dict`
    holds only JSON values (no NaN or infinity), at most 4 KB when dumped, whatever n is.
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

    @abstractmethod
    def to_dict(self) -> State:
        """The state as JSON values; begin it with :meth:`head`."""

    @classmethod
    @abstractmethod
    def from_dict(cls, state: Mapping[str, Any]) -> Self:
        """Undo :meth:`to_dict`; raises SequentialError naming the field at fault."""

    def head(self) -> State:
        """The fields every state begins with."""
        return {"kind": self.kind, "version": _VERSION}

    @classmethod
    def check_head(cls, state: Mapping[str, Any]) -> None:
        """Raise SequentialError unless ``state`` was written by this kind and version."""
        if state.get("kind") != cls.kind:
            raise SequentialError("kind", f"must be {cls.kind!r}, not {state.get('kind')!r}")
        if state.get("version") != _VERSION:
            raise SequentialError(
                "version", f"of {cls.kind!r} must be {_VERSION}, not {state.get('version')!r}"
            )

    def check_same(self, other: object, *names: str) -> None:
        """Raise SequentialError unless ``other`` is of this class with equal attributes ``names``.

        For the settings that two states must share before they can be merged.
        """
        if type(other) is not type(self):
            raise SequentialError("other", f"must be a {type(self).__name__} to be merged")
        for name in names:
            mine, theirs = getattr(self, name), getattr(other, name)
            if not np.array_equal(mine, theirs):
                raise SequentialError(
                    "other", f"cannot be merged: {name} is {theirs!r} there and {mine!r} here"
                )


class EProcess(Process):
    """A process that carries evidence against one null hypothesis.

    ``log_e`` is the e-value now, which is what multiplicity procedures take. ``peak_log_e`` is its
    running maximum, kept by :meth:`_look` at each update, and gives the anytime p-value. The peak
    is not additive: after a merge it restarts at the merged value.
    """

    _peak: float = 0.0

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
        raise SequentialError("kind", f"must be one of {sorted(Process._kinds)}, not {kind!r}")
    return known.from_dict(state)


# --- evidence -----------------------------------------------------------------------------------


def reject(log_e: float, alpha: float) -> bool:
    """Whether evidence ``log_e`` reaches 1/alpha (Ville's inequality)."""
    return log_e >= -math.log(probability("alpha", alpha))


def p_value(peak_log_e: float) -> float:
    """1/E in [0, 1] from the running maximum of log E."""
    return math.exp(-max(0.0, peak_log_e))


# --- arithmetic in log space --------------------------------------------------------------------


def log_beta(a: npt.ArrayLike, b: npt.ArrayLike) -> Array:
    """ln B(a, b), elementwise. For differences at large counts use :func:`log_beta_mixture`."""
    return np.asarray(special.betaln(a, b), dtype=np.float64)


def logaddexp(a: float, b: float) -> float:
    """ln(e^a + e^b) of two numbers, -inf allowed."""
    high, low = (a, b) if a >= b else (b, a)
    return high if low == -math.inf else high + math.log1p(math.exp(low - high))


def logsumexp(values: npt.ArrayLike, axis: int = -1) -> Array:
    """ln of the sum of exponentials along ``axis``; all -inf gives -inf."""
    x = np.asarray(values, dtype=np.float64)
    top = np.max(x, axis=axis, keepdims=True)
    safe = np.where(np.isfinite(top), top, 0.0)
    with np.errstate(divide="ignore"):
        total = np.log(np.sum(np.exp(x - safe), axis=axis, keepdims=True)) + safe
    return np.asarray(np.squeeze(total, axis=axis), dtype=np.float64)


def logmeanexp(
    values: npt.ArrayLike, log_weights: npt.ArrayLike | None = None, axis: int = -1
) -> Array:
    """ln of the mean of exponentials along ``axis``.

    ``log_weights`` (logs of weights that sum to one, broadcastable) make it a weighted mean: the
    log of a mixture of e-values, itself an e-value.
    """
    x = np.asarray(values, dtype=np.float64)
    if log_weights is None:
        return logsumexp(x, axis) - math.log(x.shape[axis])
    return logsumexp(x + np.asarray(log_weights, dtype=np.float64), axis)


def stirling_rest(x: Array) -> Array:
    """ln Gamma(x) - [(x - 1/2) ln x - x + ln(2 pi)/2] for x > 0, to about 1e-13."""
    big = np.maximum(x, 10.0)
    r = 1.0 / big
    r2 = r * r
    series = r * (1 / 12 - r2 * (1 / 360 - r2 * (1 / 1260 - r2 * (1 / 1680 - r2 / 1188))))
    if np.all(x >= 10.0):
        return np.asarray(series)
    small = np.minimum(x, 10.0)
    exact = special.gammaln(small) - ((small - 0.5) * np.log(small) - small + HALF_LOG_2PI)
    return np.asarray(np.where(x >= 10.0, series, exact))


def stirling_rest_1(x: float) -> float:
    if x < 10.0:
        return math.lgamma(x) - ((x - 0.5) * math.log(x) - x + HALF_LOG_2PI)
    r = 1.0 / x
    r2 = r * r
    return r * (1 / 12 - r2 * (1 / 360 - r2 * (1 / 1260 - r2 * (1 / 1680 - r2 / 1188))))


def log_beta_mixture(
    k: npt.ArrayLike, n: npt.ArrayLike, p: npt.ArrayLike, a: npt.ArrayLike, b: npt.ArrayLike
) -> Array:
    """ln of the Beta(a, b) mixture of binomial likelihood ratios against ``p``, elementwise.

    lnB(a+k, b+n-k) - lnB(a, b) - k ln p - (n-k) ln(1-p): the e-process of k successes in n trials
    against success probability p (Robbins 1970), shared by paired tests, rates, quantiles and
    the tail detector. ``0 <= k <= n``, ``0 < p < 1``, ``a, b > 0`` (not checked); the arrays
    broadcast. Written around (n+a+b) KL(posterior mean, p), so that it keeps about 1e-9 absolute
    accuracy at n = 1e9, where a difference of ``betaln`` loses six digits.
    """
    k, n, p, a, b = (np.asarray(x, dtype=np.float64) for x in (k, n, p, a, b))
    a1, b1 = a + k, b + (n - k)
    total = a1 + b1
    gap = a1 / total - p
    kl = a1 * np.log1p(gap / p) + b1 * np.log1p(-gap / (1.0 - p))
    shape = 0.5 * np.log(total / a1 / b1) + HALF_LOG_2PI
    rest = stirling_rest(a1) + stirling_rest(b1) - stirling_rest(total)
    prior = a * np.log(p) + b * np.log1p(-p) - special.betaln(a, b)
    return np.asarray(kl + shape + rest + prior, dtype=np.float64)


def log_beta_mixture_1(k: float, n: float, p: float, a: float, b: float) -> float:
    """:func:`log_beta_mixture` of plain numbers, an order of magnitude faster for a single one."""
    a1, b1 = a + k, b + (n - k)
    total = a1 + b1
    gap = a1 / total - p
    kl = a1 * math.log1p(gap / p) + b1 * math.log1p(-gap / (1.0 - p))
    shape = 0.5 * math.log(total / a1 / b1) + HALF_LOG_2PI
    rest = stirling_rest_1(a1) + stirling_rest_1(b1) - stirling_rest_1(total)
    prior = a * math.log(p) + b * math.log1p(-p)
    return kl + shape + rest + prior - float(special.betaln(a, b))


def log_beta_upper(p: float, a: float, b: float) -> float:
    """ln P(X > p) for X ~ Beta(a, b), also where the probability underflows.

    Beyond about e^-650 the tail is f(p)/s, the first term of its expansion at the edge (s the slope
    of -ln f there), which is accurate to a thousandth at that distance.
    """
    tail = float(special.betaincc(a, b, p))
    if tail > 1e-280:
        return math.log(tail)
    slope = (b - 1.0) / (1.0 - p) - (a - 1.0) / p
    log_density = (a - 1.0) * math.log(p) + (b - 1.0) * math.log1p(-p) - float(special.betaln(a, b))
    return log_density - math.log(max(slope, 1.0))


def log_beta_mixture_upper(k: float, n: float, p: float, a: float, b: float) -> float:
    """The one-sided form of :func:`log_beta_mixture_1`: Beta(a, b) cut to (p, 1).

    Evidence that the success probability exceeds p; a supermartingale when it is p or less at every
    trial (each likelihood ratio has theta > p). Howard et al. 2021 (arXiv:1810.08240), Prop. 7.
    """
    whole = log_beta_mixture_1(k, n, p, a, b)
    return whole + log_beta_upper(p, a + k, b + n - k) - log_beta_upper(p, a, b)


# --- arguments ----------------------------------------------------------------------------------


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


def same_length(names: tuple[str, str], first: Array, second: Array) -> None:
    """Raise SequentialError unless two batches have the same number of records."""
    if first.shape != second.shape:
        raise SequentialError(
            names[1], f"must be as long as {names[0]} ({first.size}), not {second.size}"
        )


# --- state --------------------------------------------------------------------------------------


def field(state: Mapping[str, Any], name: str) -> Any:
    """``state[name]``; SequentialError naming the field when it is missing."""
    if name not in state:
        raise SequentialError(name, "is missing from the state")
    return state[name]


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
