"""What a room says is wrong, and the finding that it becomes.

A :class:`Signal` is pure data: a room that watches something (quality, drift, performance, …)
gives the same one again as long as it holds. A :class:`Finding` is the story of one key: it opens
once, is updated while it lasts, and closes.

Everything is bounded here, since names and values come from other people's data: texts that are too
long are cut, lists keep their first items, and numbers that are not finite become None where there
may be none.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from hashlib import sha256
from typing import Any, TypeVar

from understudy.monitor.errors import FindingError

T = TypeVar("T")
KINDS = ("quality", "drift", "performance", "validation", "objective", "other")
"""What a finding may be about; ``other`` is for what sums several up."""
SEVERITIES = ("info", "warning", "critical")
"""From the least to the worst."""
EVENTS = ("opened", "updated", "reopened", "acknowledged", "closed")
"""Kinds of changes."""
MAX_KEY = 512
MAX_NAME = 256
MAX_TEXT = 2000
MAX_FEATURES = 20
MAX_EXAMPLES = 20
MAX_ASSUMPTIONS = 20


def rank(severity: str) -> int:
    """0, 1, 2 from the least to the worst. Raises FindingError for a word that is none."""
    if severity not in SEVERITIES:
        raise FindingError(f"severity {severity!r} is none of {', '.join(SEVERITIES)}")
    return SEVERITIES.index(severity)


@dataclass(frozen=True, slots=True)
class Contribution:
    """How much a feature has to do with it: ``share`` of the whole from 0 to 1, ``detail`` in
    words."""

    name: str
    share: float
    detail: str = ""

    def __post_init__(self) -> None:
        _set(self, "name", _text("feature", self.name, MAX_NAME))
        _set(self, "detail", _text("detail", self.detail, MAX_TEXT))
        share = _number("share", self.share)
        if not -1e-6 <= share <= 1.0 + 1e-6:
            raise FindingError(f"share {share!r} of {self.name!r} is not between 0 and 1")
        _set(self, "share", min(1.0, max(0.0, share)))

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"name": self.name, "share": self.share, "detail": self.detail}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Contribution:
        """Raises FindingError when something is missing or wrong."""
        return cls(**_known(cls, data))


@dataclass(frozen=True, slots=True)
class Size:
    """How large: ``value`` now, ``baseline`` before, and an interval [``low``, ``high``] for the
    value where there is one, in ``unit`` ("" for a bare number)."""

    name: str
    unit: str
    baseline: float | None
    value: float
    low: float | None
    high: float | None

    def __post_init__(self) -> None:
        _set(self, "name", _text("name of the size", self.name, MAX_NAME))
        _set(self, "unit", _text("unit", self.unit, MAX_NAME))
        _set(self, "value", _number("value", self.value))
        for name in ("baseline", "low", "high"):
            _set(self, name, _perhaps(name, getattr(self, name)))
        if self.low is not None and self.high is not None and self.low > self.high:
            raise FindingError(f"interval from {self.low!r} to {self.high!r} is empty")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {field.name: getattr(self, field.name) for field in fields(self)}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Size:
        """Raises FindingError when something is missing or wrong."""
        return cls(**_known(cls, data))


@dataclass(frozen=True, slots=True)
class Signal:
    """What a room says is wrong at present.

    ``key`` is the identity: the same key is the same finding. ``version`` and ``segment`` are ""
    for all. ``since`` is the change-point estimate in unix seconds. ``features`` are ranked, the
    first one contributes most. ``examples`` are request ids. Raises FindingError for what no signal
    can be: no key, no title, a kind or severity that is none, a share that is not finite.
    """

    key: str
    kind: str
    model: str
    version: str
    segment: str
    severity: str
    title: str
    since: float | None = None
    features: tuple[Contribution, ...] = ()
    size: Size | None = None
    rule: str = ""
    guarantee: str = ""
    examples: tuple[str, ...] = ()
    advice: str = ""
    assumptions: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        _set(self, "key", _key(_text("key", self.key)))
        if self.kind not in KINDS:
            raise FindingError(f"kind {self.kind!r} is none of {', '.join(KINDS)}")
        rank(self.severity)
        for name in ("model", "version", "segment"):
            _set(self, name, _text(name, getattr(self, name), MAX_NAME))
        for name in ("title", "rule", "guarantee", "advice"):
            _set(self, name, _text(name, getattr(self, name), MAX_TEXT))
        if not self.title:
            raise FindingError(f"signal {self.key!r} needs a title")
        _set(self, "since", _perhaps("since", self.since))
        _set(self, "features", _several("features", self.features, MAX_FEATURES, Contribution))
        for name, most in (("examples", MAX_EXAMPLES), ("assumptions", MAX_ASSUMPTIONS)):
            texts = _several(name, getattr(self, name), most, str)
            _set(self, name, tuple(_text(name, text, MAX_TEXT) for text in texts))
        if self.size is not None and not isinstance(self.size, Size):
            raise FindingError(f"size must be a Size, not {type(self.size).__name__}")

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        data = {field.name: getattr(self, field.name) for field in fields(self)}
        data["features"] = [feature.to_dict() for feature in self.features]
        data["size"] = None if self.size is None else self.size.to_dict()
        data["examples"] = list(self.examples)
        data["assumptions"] = list(self.assumptions)
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Signal:
        """What :meth:`to_dict` gave. Raises FindingError when something is missing or wrong."""
        known = _known(cls, data)
        try:
            known["features"] = tuple(map(Contribution.from_dict, known.get("features") or ()))
            size = known.get("size")
            known["size"] = None if size is None else Size.from_dict(size)
            known["examples"] = tuple(known.get("examples") or ())
            known["assumptions"] = tuple(known.get("assumptions") or ())
            return cls(**known)
        except (TypeError, AttributeError) as error:
            raise FindingError(f"no signal: {error}") from error


@dataclass(frozen=True, slots=True)
class Note:
    """Something that a person did to a finding: ``what`` is acknowledge or close; ``at`` is unix
    time."""

    what: str
    who: str
    why: str
    at: float

    def to_dict(self) -> dict[str, Any]:
        """JSON-able."""
        return {"what": self.what, "who": self.who, "why": self.why, "at": self.at}

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Note:
        """Raises FindingError when something is missing or wrong."""
        return cls(**_known(cls, data))


@dataclass(frozen=True, slots=True)
class Finding:
    """The story of one key. Times are unix seconds.

    ``signal`` is what its room said last; ``told`` is what the last opening or update was about, so
    that small movements add up until they matter. ``revision`` grows with every change, of which
    ``event`` is the kind of the last one and ``change`` what it was in words; ``changed`` is when.
    ``updates`` counts meaningful changes while it was open, ``reopened`` how often it came back.
    ``closed`` is None while it is open; ``reason`` says why it was closed. ``absent`` is since when
    its room has not reported it. ``dismissed``: a person closed it and its room goes on reporting.
    """

    id: str
    room: str
    signal: Signal
    told: Signal
    opened: float
    seen: float
    changed: float
    closed: float | None = None
    reason: str = ""
    revision: int = 1
    event: str = "opened"
    change: str = ""
    updates: int = 0
    reopened: int = 0
    acknowledged: bool = False
    dismissed: bool = False
    absent: float | None = None
    silenced_until: float | None = None
    notes: tuple[Note, ...] = ()

    @property
    def key(self) -> str:
        """Identity of what it is about."""
        return self.signal.key

    @property
    def open(self) -> bool:
        """Whether it lasts."""
        return self.closed is None

    @property
    def severity(self) -> int:
        """Rank of the severity: 0, 1, 2 from the least to the worst."""
        return rank(self.signal.severity)

    def silent(self, now: float) -> bool:
        """Whether somebody has silenced it for the time being."""
        return self.silenced_until is not None and now < self.silenced_until

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; the fields of the signal stand beside those of the finding."""
        data: dict[str, Any] = {"id": self.id, "state": "open" if self.open else "closed"}
        data |= self.signal.to_dict()
        data |= {name: getattr(self, name) for name in _PLAIN}
        data["notes"] = [note.to_dict() for note in self.notes]
        return data

    def dump(self) -> dict[str, Any]:
        """JSON-able, with everything that :meth:`from_dict` needs to go on where this one is."""
        data = self.to_dict()
        if self.told != self.signal:
            data["told"] = self.told.to_dict()
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Finding:
        """What :meth:`dump` or :meth:`to_dict` gave. Raises FindingError."""
        signal = Signal.from_dict(data)
        told = data.get("told")
        known = _known(cls, data)
        try:
            known["signal"] = signal
            known["told"] = signal if told is None else Signal.from_dict(told)
            known["notes"] = tuple(map(Note.from_dict, data.get("notes") or ()))
            if known.get("event", "opened") not in EVENTS:
                raise FindingError(f"event {known['event']!r} is none of {', '.join(EVENTS)}")
            for name in _TIMES:
                known[name] = _perhaps(name, known.get(name))
            if None in (known["opened"], known["seen"], known["changed"]):
                raise FindingError(f"finding {known['id']!r} has no times")
            return cls(**known)
        except (TypeError, AttributeError) as error:
            raise FindingError(f"no finding: {error}") from error

    def with_note(self, note: Note, keep: int = 20) -> Finding:
        """With one more note; the oldest go first."""
        return replace(self, notes=(*self.notes, note)[-keep:])


_PLAIN = tuple(
    field.name for field in fields(Finding) if field.name not in ("signal", "told", "notes")
)
_TIMES = ("opened", "seen", "changed", "closed", "absent", "silenced_until")


def _known(cls: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The part of ``data`` that fits ``cls``; what a later version added is left out."""
    if not isinstance(data, Mapping):
        raise FindingError(f"no {cls.__name__}: {type(data).__name__} instead of a mapping")
    known = {field.name: data[field.name] for field in fields(cls) if field.name in data}
    missing = [
        field.name
        for field in fields(cls)
        if field.name not in known
        and field.default is MISSING
        and field.name not in ("signal", "told")
    ]
    if missing:
        raise FindingError(f"no {cls.__name__}: {', '.join(missing)} missing")
    return known


def _set(item: object, name: str, value: object) -> None:
    """Put a cleaned value into a frozen dataclass that is being made."""
    object.__setattr__(item, name, value)


def _text(name: str, value: object, most: int | None = None) -> str:
    if not isinstance(value, str):
        raise FindingError(f"{name} must be text, not {type(value).__name__}")
    # Lone surrogates cannot be written anywhere: neither to a file nor to a socket.
    text = value.encode("utf-8", "replace").decode("utf-8")
    return text if most is None or len(text) <= most else text[: most - 1] + "…"


def _key(value: str) -> str:
    """Short enough, and still different from all others."""
    if not value:
        raise FindingError("a signal needs a key")
    if len(value) <= MAX_KEY:
        return value
    return f"{value[: MAX_KEY - 33]}~{sha256(value.encode()).hexdigest()[:32]}"


def _number(name: str, value: object) -> float:
    """A float of Python's own: numpy's are no JSON."""
    number = _perhaps(name, value)
    if number is None:
        raise FindingError(f"{name} must be a finite number, not {value!r}")
    return number


def _perhaps(name: str, value: object) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # what cannot be one is caught
    except (TypeError, ValueError, OverflowError) as error:
        raise FindingError(f"{name} must be a number, not {value!r}") from error
    return number if math.isfinite(number) else None


def _several(name: str, value: object, most: int, kind: type[T]) -> tuple[T, ...]:
    if not isinstance(value, tuple) or not all(isinstance(item, kind) for item in value):
        raise FindingError(f"{name} must be a tuple of {kind.__name__}")
    return value[:most]
