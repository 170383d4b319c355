"""Signals, which a check reports, and the findings that they become.

A :class:`Signal` is pure data: a source (quality, drift, performance, …) reports the same one as
long as the problem lasts. A :class:`Finding` is the history of one key: it opens once, is updated
while the problem lasts, and closes.

All values are bounded here, since names and values come from users' data: long texts are cut, lists
keep their first items, and optional numbers that are not finite become None.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, fields, replace
from hashlib import sha256
from typing import Any, TypeVar

from understudy.monitor.errors import FindingError

T = TypeVar("T")
KINDS = ("blind", "quality", "drift", "performance", "objective", "validation", "other")
"""What a finding may be about; ``blind`` is for payloads that cannot be read, ``other`` for
summaries of several findings."""
SEVERITIES = ("info", "warning", "critical")
"""From the mildest to the most severe."""
EVENTS = ("opened", "updated", "reopened", "acknowledged", "closed")
"""Kinds of change to a finding."""
MAX_KEY = 512
MAX_NAME = 256
MAX_TEXT = 2000
MAX_FEATURES = 20
MAX_EXAMPLES = 20
MAX_ASSUMPTIONS = 20


def rank(severity: str) -> int:
    """0, 1, 2 from the mildest to the most severe. Raises FindingError for an unknown severity."""
    if severity not in SEVERITIES:
        raise FindingError(f"severity {severity!r} is not one of {', '.join(SEVERITIES)}")
    return SEVERITIES.index(severity)


@dataclass(frozen=True, slots=True)
class Contribution:
    """What a feature contributes: ``share`` of the whole, from 0 to 1, and ``detail`` as text."""

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
    """How large a change is: ``value`` now, ``baseline`` before, and an interval [``low``,
    ``high``] of the value where one is known, in ``unit`` ("" for a bare number)."""

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
            _set(self, name, _optional_number(name, getattr(self, name)))
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
    """A problem that a source reports at present.

    ``key`` is the identity: signals with the same key belong to the same finding. ``version`` and
    ``segment`` are "" for all. ``since`` is the change-point estimate in unix seconds. ``features``
    are ranked: the first one contributes most. ``examples`` are request ids. Raises FindingError
    for a missing key or title, an unknown kind or severity, or a share that is not finite.
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
            raise FindingError(f"kind {self.kind!r} is not one of {', '.join(KINDS)}")
        rank(self.severity)
        for name in ("model", "version", "segment"):
            _set(self, name, _text(name, getattr(self, name), MAX_NAME))
        for name in ("title", "rule", "guarantee", "advice"):
            _set(self, name, _text(name, getattr(self, name), MAX_TEXT))
        if not self.title:
            raise FindingError(f"signal {self.key!r} needs a title")
        _set(self, "since", _optional_number("since", self.since))
        _set(self, "features", _first_items("features", self.features, MAX_FEATURES, Contribution))
        for name, limit in (("examples", MAX_EXAMPLES), ("assumptions", MAX_ASSUMPTIONS)):
            texts = _first_items(name, getattr(self, name), limit, str)
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
            raise FindingError(f"not a valid signal: {error}") from error


@dataclass(frozen=True, slots=True)
class Note:
    """A person's action on a finding: ``what`` is acknowledge or close; ``at`` is in unix
    seconds."""

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
    """The history of one key. Times are unix seconds.

    ``source`` is the check that reports it. ``signal`` is its latest report; ``notified`` is the
    signal of the last opening or update, so that small movements add up until they matter.
    ``revision`` grows with every change; of the last change, ``event`` is the kind, ``change`` the
    description and ``changed`` the time. ``updates`` counts meaningful changes while it was open,
    ``reopened`` how often it came back. ``closed`` is None while it is open; ``reason`` is why it
    was closed. ``absent`` is the time since which its source has not reported it. ``dismissed``: a
    person closed it while its source still reports it. ``incident`` is the id of the incident that
    it belongs to (:mod:`understudy.monitor.findings.incident`), by default one that it starts.
    """

    id: str
    source: str
    signal: Signal
    notified: Signal
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
    incident: str = ""

    def __post_init__(self) -> None:
        if not self.incident:
            _set(self, "incident", f"i{self.id}")

    @property
    def key(self) -> str:
        """Identity of the problem, that of its signals."""
        return self.signal.key

    @property
    def identity(self) -> tuple[str, ...]:
        """What it is about. A signal with another identity is another finding, whatever its key."""
        signal = self.signal
        return signal.kind, signal.model, signal.version, signal.segment

    @property
    def open(self) -> bool:
        """Whether it has not been closed."""
        return self.closed is None

    @property
    def severity(self) -> int:
        """Rank of the severity: 0, 1, 2 from the mildest to the most severe."""
        return rank(self.signal.severity)

    def silent(self, now: float) -> bool:
        """Whether a silence covers it at ``now``, unix seconds."""
        return self.silenced_until is not None and now < self.silenced_until

    def to_dict(self) -> dict[str, Any]:
        """JSON-able; the fields of the signal stand beside those of the finding."""
        data: dict[str, Any] = {"id": self.id, "state": "open" if self.open else "closed"}
        data |= self.signal.to_dict()
        data |= {name: getattr(self, name) for name in _PLAIN}
        data["notes"] = [note.to_dict() for note in self.notes]
        return data

    def dump(self) -> dict[str, Any]:
        """JSON-able, with everything that :meth:`from_dict` needs to restore it."""
        data = self.to_dict()
        if self.notified != self.signal:
            data["told"] = self.notified.to_dict()
        return data

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> Finding:
        """What :meth:`dump` or :meth:`to_dict` gave. Raises FindingError."""
        signal = Signal.from_dict(data)
        notified = data.get("told")
        known = _known(cls, data)
        try:
            known["signal"] = signal
            known["notified"] = signal if notified is None else Signal.from_dict(notified)
            known["notes"] = tuple(map(Note.from_dict, data.get("notes") or ()))
            if known.get("event", "opened") not in EVENTS:
                raise FindingError(f"event {known['event']!r} is not one of {', '.join(EVENTS)}")
            for name in _TIMES:
                known[name] = _optional_number(name, known.get(name))
            if None in (known["opened"], known["seen"], known["changed"]):
                raise FindingError(f"finding {known['id']!r} has no times")
            return cls(**known)
        except (TypeError, AttributeError) as error:
            raise FindingError(f"not a valid finding: {error}") from error

    def with_note(self, note: Note, keep: int = 20) -> Finding:
        """A copy with one more note; of more than ``keep``, the oldest are dropped."""
        return replace(self, notes=(*self.notes, note)[-keep:])


_PLAIN = tuple(
    field.name for field in fields(Finding) if field.name not in ("signal", "notified", "notes")
)
_EARLIER_NAMES = {"source": "room"}
"""Names that fields had on disk in earlier versions."""
_TIMES = ("opened", "seen", "changed", "closed", "absent", "silenced_until")


def _known(cls: type[Any], data: Mapping[str, Any]) -> dict[str, Any]:
    """The items of ``data`` that are fields of ``cls``; those that a later version added are
    ignored."""
    if not isinstance(data, Mapping):
        raise FindingError(f"{cls.__name__} must be a mapping, not {type(data).__name__}")
    earlier = {name: data[old] for name, old in _EARLIER_NAMES.items() if old in data}
    present = {**earlier, **data}
    known = {field.name: present[field.name] for field in fields(cls) if field.name in present}
    missing = [
        field.name
        for field in fields(cls)
        if field.name not in known
        and field.default is MISSING
        and field.name not in ("signal", "notified")
    ]
    if missing:
        raise FindingError(f"{cls.__name__} lacks {', '.join(missing)}")
    return known


def _set(item: object, name: str, value: object) -> None:
    """Set a field of a frozen dataclass during its construction."""
    object.__setattr__(item, name, value)


def _text(name: str, value: object, limit: int | None = None) -> str:
    if not isinstance(value, str):
        raise FindingError(f"{name} must be text, not {type(value).__name__}")
    # Lone surrogates cannot be written anywhere: neither to a file nor to a socket.
    text = value.encode("utf-8", "replace").decode("utf-8")
    return text if limit is None or len(text) <= limit else text[: limit - 1] + "…"


def _key(value: str) -> str:
    """A key of limited length that still differs from all others."""
    if not value:
        raise FindingError("a signal needs a key")
    if len(value) <= MAX_KEY:
        return value
    return f"{value[: MAX_KEY - 33]}~{sha256(value.encode()).hexdigest()[:32]}"


def _number(name: str, value: object) -> float:
    """A Python float: JSON encoders reject numpy's."""
    number = _optional_number(name, value)
    if number is None:
        raise FindingError(f"{name} must be a finite number, not {value!r}")
    return number


def _optional_number(name: str, value: object) -> float | None:
    if value is None:
        return None
    try:
        number = float(value)  # type: ignore[arg-type]  # what cannot be one is caught
    except (TypeError, ValueError, OverflowError) as error:
        raise FindingError(f"{name} must be a number, not {value!r}") from error
    return number if math.isfinite(number) else None


def _first_items(name: str, value: object, limit: int, kind: type[T]) -> tuple[T, ...]:
    if not isinstance(value, tuple) or not all(isinstance(item, kind) for item in value):
        raise FindingError(f"{name} must be a tuple of {kind.__name__}")
    return value[:limit]
