"""State by declaration: the attributes of a class declare what is saved, and how.

A class that is part of a saved state derives from :class:`Stateful` and declares every attribute in
its body, with its type and with what it is:

* ``Saved[T]``: evidence; it goes into the state and comes back.
* ``Setting[T]``: an argument of the constructor by the same name that goes into the state, so that
  ``from_state`` can build the object from the state alone.
* ``Config[T]``: given by the caller, or worked out from what the caller gave. Not in the state: the
  object is built from its configuration first, and ``load_state`` fills it in place.
* ``Derived[T]``: worked out from the others; ``_restored`` works it out again after a restore.
* ``Transient[T]``: lost at a restart on purpose.

::

    class Latches(Stateful):
        alarmed: Saved[NDArray[np.bool_]]
        series: Config[int]
        _cache: Transient[dict[str, float]]

From this the class has ``dump_state``, ``load_state`` and ``from_state``; there is nothing else to
write, and nothing to forget: ``tests/shadow/test_state.py`` fails for an attribute that is not
declared.
A field that is missing, unknown or of another type raises :class:`FieldError`. ``state_version``
is raised when the meaning of a field changes; a state of another version is refused.

The form follows from the type: numbers, texts, None, lists, tuples, dicts (pairs where the keys are
not texts), sets, deques, counters, enums, frozen dataclasses, arrays (lists, in the shape and dtype
of the array that the constructor made), other stateful objects (built from the state where it holds
all that their constructor needs, filled in place where not). A :class:`Converter` in an
``Annotated`` type overrides it, as for packed arrays.

msgspec and cattrs were measured against this and not used. Both make new objects from data, and
neither fills an object that was built from a configuration, which is what most of these are (a
watch of 20 features takes 7 ms to build and 0.15 ms to fill). Each of our classes would need a
mirror class, whose fields are again a list that can be forgotten, with hooks for packed arrays. CPU
in microseconds, the least of 60 rounds, dump / load; "+" is what making the mirror objects takes:

======================================  ============  ==========  =========  =========
what                                    by hand       this        msgspec    cattrs
======================================  ============  ==========  =========  =========
``ModelWatch`` of 20 features           506 / 159     497 / 208   cannot     cannot
``LiveExperiment`` of the defaults      465 / 1,346   531 / 1,519 cannot     cannot
evidence of that, dump alone                          519         374 + 138  457 + 149
eight plain numbers                                   0.7 / 3.5   0.2 / 0.2  0.4 / 1.4
======================================  ============  ==========  =========  =========

Plain numbers are what msgspec is made for, and they are a small part: most of the time goes into
packing arrays and into the constructors. The states are 11.8 kB and 15.8 kB,
by hand 11.5 kB and 15.6 kB.

The converters of a class are made once (:class:`Layout`). What a load takes longer than by hand is
the check of every key and value, and a call for each nested object: since each object is filled in
one pass, a new watch of 20 features loads in 146 instead of 154 microseconds.
"""

from __future__ import annotations

import dataclasses
import inspect
import math
import types
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Iterator, Mapping
from enum import Enum
from typing import (
    Annotated,
    Any,
    ClassVar,
    NamedTuple,
    Self,
    TypeVar,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

import numpy as np

T = TypeVar("T")


class Role(Enum):
    """What an attribute is to the state of its object."""

    SAVED = "saved"
    SETTING = "setting"
    CONFIG = "config"
    DERIVED = "derived"
    TRANSIENT = "transient"


Saved = Annotated[T, Role.SAVED]
Setting = Annotated[T, Role.SETTING]
Config = Annotated[T, Role.CONFIG]
Derived = Annotated[T, Role.DERIVED]
Transient = Annotated[T, Role.TRANSIENT]


class FieldError(ValueError):
    """A state does not fit: ``argument`` is the field, the message says what is allowed."""

    def __init__(self, argument: str, problem: str) -> None:
        self.argument = argument
        self.problem = problem
        super().__init__(f"{argument} {problem}")


class Converter(NamedTuple):
    """How a value goes to JSON and back. ``load`` gets the field's name for its messages, the JSON
    value, and the value that the attribute has now (None where there is none); it raises ValueError
    for what does not fit. ``dump`` is None where the value is JSON already."""

    dump: Callable[[Any], Any] | None
    load: Callable[[str, Any, Any], Any]


@dataclasses.dataclass(frozen=True, slots=True)
class Key:
    """The name of a field in the state, where it is not that of the attribute."""

    name: str


@dataclasses.dataclass(frozen=True, slots=True)
class Length:
    """A list has so many items, no more and no fewer."""

    items: int


class Through:
    """The attribute is an object that holds arguments of the constructor, by these names."""

    def __init__(self, *names: str) -> None:
        self.names = names


Two = Annotated[list[T], Length(2)]
"""Of champion and challenger, or of two sides."""


def _whole(name: str, value: Any, _: Any) -> int:
    if type(value) is not int:
        raise FieldError(name, f"must be a whole number, not {value!r}")
    return value


def _count(name: str, value: Any, _: Any) -> int:
    if type(value) is not int or not 0 <= value <= 2**53:
        raise FieldError(name, f"must be a whole number of at least 0, not {value!r}")
    return value


def _real(name: str, value: Any, _: Any) -> float:
    if type(value) is not float and type(value) is not int:
        raise FieldError(name, f"must be a number, not {value!r}")
    if not math.isfinite(value):
        raise FieldError(name, f"must be finite, not {value!r}")
    return float(value)


def _exactly(kind: type, what: str) -> Converter:
    def load(name: str, value: Any, _: Any) -> Any:
        if type(value) is not kind:
            raise FieldError(name, f"must be {what}, not {value!r}")
        return value

    return Converter(None, load)


def _same(name: str, value: Any, now: Any) -> Any:
    if value != now:
        raise FieldError(name, f"is {value!r} in the state and {now!r} here")
    return now


Count = Annotated[int, Converter(None, _count)]
"""A whole number of at least 0."""
SAME = Converter(None, _same)
"""Of what is configured and in the state only so that another one's state is refused."""

_SIMPLE: dict[Any, Converter] = {
    int: Converter(None, _whole),
    float: Converter(None, _real),
    str: _exactly(str, "text"),
    bool: _exactly(bool, "true or false"),
    type(None): _exactly(type(None), "null"),
    object: Converter(None, lambda name, value, now: value),
    Any: Converter(None, lambda name, value, now: value),
}
_MISSING = object()


class Stateful:
    """The mechanism; see the module's text."""

    __slots__ = ()

    state_version: ClassVar[int] = 1
    state_as_list: ClassVar[bool] = False
    """The fields stand in a list, in the order of their declaration: for what comes in numbers."""

    def dump_state(self) -> Any:
        """The state as JSON values: what is declared as saved, and the settings."""
        self._before_dump()
        return layout_of(type(self)).dump(self)

    def load_state(self, state: Any) -> None:
        """Fill this object, built from its configuration, with a saved state; its settings stay.

        Raises FieldError (a ValueError), or another ValueError, KeyError or TypeError, when the
        state does not fit. The object may then be half filled: begin again with a new one.
        """
        layout = _layouts.get(type(self)) or layout_of(type(self))
        layout.fill(self, layout.checked(state))
        self._restored()

    @classmethod
    def from_state(cls, state: Any) -> Self:
        """A new object from a state that holds all that its constructor needs. Raises FieldError
        when the state does not fit."""
        found: Self = layout_of(cls).build(state)
        found._restored()
        return found

    def empty(self) -> Self:
        """A new object with the same settings."""
        return layout_of(type(self)).empty(self)  # type: ignore[no-any-return]

    def _before_dump(self) -> None:
        """Take in what waits, where a class lets something wait."""

    def _restored(self) -> None:
        """Work out what is derived, and raise FieldError for fields that contradict each other."""


class Field(NamedTuple):
    """One field of the state of a class."""

    attribute: str
    key: str
    role: Role
    convert: Converter
    through: tuple[str, ...] | None


class Layout:
    """The fields of a class, read off its annotations once."""

    def __init__(self, cls: type[Stateful]) -> None:
        self.cls = cls
        self.fields = tuple(
            Field(name, key, role, converter_for(hint), through)
            for name, (hint, role, key, through) in declared(cls).items()
            if role in (Role.SAVED, Role.SETTING)
        )
        self.as_list = cls.state_as_list
        self._keys = {field.key for field in self.fields}
        self._dumps = tuple((f.attribute, f.key, f.convert.dump) for f in self.fields)
        if cls.state_version != 1:
            self._keys.add("version")
        self.settings = tuple(f for f in self.fields if f.role is Role.SETTING or f.through)
        self._filled = tuple(
            (f.attribute, f.key, f.convert.load) for f in self.fields if f not in self.settings
        )
        given = {name for f in self.settings for name in (f.through or (f.key,))}
        self.in_place = needs_more(cls, given)
        """Whether the constructor needs more than the state holds."""

    def dump(self, item: Any) -> Any:
        """The state of an object of the class as JSON values."""
        if self.as_list:
            return [
                getattr(item, name) if dump is None else dump(getattr(item, name))
                for name, _, dump in self._dumps
            ]
        found = {
            key: getattr(item, name) if dump is None else dump(getattr(item, name))
            for name, key, dump in self._dumps
        }
        if self.cls.state_version != 1:
            found["version"] = self.cls.state_version
        return found

    def checked(self, state: Any) -> Mapping[str, Any]:
        """The fields by key. Raises FieldError unless these are all of them and no others."""
        if self.as_list:
            if not isinstance(state, list) or len(state) != len(self.fields):
                raise FieldError(self.cls.__name__, f"must be {len(self.fields)} values in a list")
            return dict(zip((f.key for f in self.fields), state, strict=True))
        # A dict is a Mapping, but asking for the latter takes ten times as long.
        if type(state) is not dict and not isinstance(state, Mapping):
            raise FieldError(self.cls.__name__, f"must be an object, not {state!r}")
        # First of all: a state of another version has other keys.
        version = self.cls.state_version
        if version != 1 and "version" in state and state["version"] != version:
            raise FieldError(
                "version",
                f"of {self.cls.__name__} must be {version}, not {state['version']!r}",
            )
        if state.keys() != self._keys:
            for key in self._keys - state.keys():
                raise FieldError(key, f"is missing from the state of {self.cls.__name__}")
            for key in state.keys() - self._keys:
                raise FieldError(str(key), f"is not a field of {self.cls.__name__}")
        return state

    def fill(self, item: Any, state: Mapping[str, Any]) -> None:
        """Put the fields of a state into an object. Raises FieldError."""
        for attribute, key, load in self._filled:
            setattr(item, attribute, load(key, state[key], getattr(item, attribute, None)))

    def build(self, state: Any) -> Any:
        """A new object from a state. Raises FieldError; TypeError where it does not hold enough."""
        if self.in_place:
            raise TypeError(f"{self.cls.__name__} is built from its configuration, then restored")
        state = self.checked(state)
        arguments: dict[str, Any] = {}
        carried: list[tuple[str, Any]] = []
        for attribute, key, _, convert, through in self.settings:
            value = convert.load(key, state[key], None)
            if through is None:
                arguments[key] = value
            else:
                arguments |= {name: getattr(value, name) for name in through}
                carried.append((attribute, value))
        item = self.cls(**arguments)
        for attribute, value in carried:
            setattr(item, attribute, value)
        self.fill(item, state)
        return item

    def empty(self, item: Any) -> Any:
        """A new object with the settings of ``item``."""
        arguments: dict[str, Any] = {}
        for attribute, key, _, _, through in self.settings:
            value = getattr(item, attribute)
            if through is None:
                arguments[key] = value
            else:
                arguments |= {name: getattr(value, name) for name in through}
        return self.cls(**arguments)


_layouts: dict[type, Layout] = {}


def layout_of(cls: type[Stateful]) -> Layout:
    """The fields of a class."""
    found = _layouts.get(cls)
    if found is None:
        found = _layouts[cls] = Layout(cls)
    return found


def settings_of(item: Stateful, other: Stateful) -> Iterator[tuple[str, Any, Any]]:
    """The settings of two objects of a class, by name."""
    for field in layout_of(type(item)).settings:
        if field.through is None:
            yield field.attribute, getattr(item, field.attribute), getattr(other, field.attribute)


def needs_more(cls: type, given: set[str]) -> bool:
    """Whether the constructor needs more than ``given``, or the class has a configuration."""
    if any(role is Role.CONFIG for _, role, _, _ in declared(cls).values()):
        return True
    needed = [
        name
        for name, one in inspect.signature(cls).parameters.items()
        if one.default is one.empty and one.kind not in (one.VAR_POSITIONAL, one.VAR_KEYWORD)
    ]
    return not given >= set(needed)


def declared(cls: type) -> dict[str, tuple[Any, Role, str, tuple[str, ...] | None]]:
    """Every declared attribute: its type, what it is, its key, what it gives to the constructor."""
    found = {}
    # By the module's names alone: a method may have the name of a type, such as `set`.
    for name, hint in get_type_hints(cls, localns={}, include_extras=True).items():
        if get_origin(hint) is not Annotated:
            continue
        marks = hint.__metadata__
        role = next((mark for mark in marks if isinstance(mark, Role)), None)
        if role is None:
            continue
        key = next((mark.name for mark in marks if isinstance(mark, Key)), name.lstrip("_"))
        through = next((mark.names for mark in marks if isinstance(mark, Through)), None)
        found[name] = (hint, role, key, through)
    return found


def converter_for(hint: Any) -> Converter:
    """How values of a type go to JSON and back. Raises TypeError for a type that has no way."""
    if hint in _SIMPLE:
        return _SIMPLE[hint]
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        return _annotated(hint)
    if origin in (Union, types.UnionType):
        return _union(arguments)
    if origin in _CONTAINERS:
        return _CONTAINERS[origin](*arguments)
    if origin is np.ndarray:
        return _ARRAY
    if isinstance(hint, type):
        if issubclass(hint, Stateful):
            return _stateful(hint)
        if issubclass(hint, Enum):
            return _enum(hint)
        if dataclasses.is_dataclass(hint):
            return _dataclass(hint)
        if hasattr(hint, "load_state") and hasattr(hint, "dump_state"):
            return _IN_PLACE
    raise TypeError(f"{hint!r} has no form in a state: give it a Converter")


def dump(item: Any) -> Any:
    """A frozen dataclass as JSON values, by the types of its fields."""
    convert = converter_for(type(item))
    return convert.dump(item) if convert.dump is not None else item


def load(cls: type[T], value: Any) -> T:
    """Undo :func:`dump`. Raises FieldError, or what the class raises for values that are wrong."""
    return converter_for(cls).load(cls.__name__, value, None)  # type: ignore[no-any-return]


def _annotated(hint: Any) -> Converter:
    for mark in hint.__metadata__:
        if isinstance(mark, Converter):
            return mark
    found = converter_for(hint.__origin__)
    for mark in hint.__metadata__:
        if isinstance(mark, Length):
            return _of_length(found, mark.items)
    return found


def _of_length(convert: Converter, items: int) -> Converter:
    def load(name: str, value: Any, now: Any) -> Any:
        if not isinstance(value, list) or len(value) != items:
            raise FieldError(name, f"must be {items} values in a list, not {value!r}")
        return convert.load(name, value, now)

    return Converter(convert.dump, load)


def _union(kinds: tuple[Any, ...]) -> Converter:
    left = [kind for kind in kinds if kind is not type(None)]
    if len(left) == 1:
        convert = converter_for(left[0])
    elif all(isinstance(kind, type) and issubclass(kind, Stateful) for kind in left):
        convert = _IN_PLACE
    else:
        raise TypeError(f"one of {left!r} has no form in a state: give it a Converter")
    if len(left) == len(kinds):
        return convert
    dump, load = convert

    def dump_some(value: Any) -> Any:
        return None if value is None else dump(value) if dump is not None else value

    def load_some(name: str, value: Any, now: Any) -> Any:
        return None if value is None else load(name, value, now)

    if not _filled_in_place(convert):
        return Converter(None if dump is None else dump_some, load_some)

    def fill_some(name: str, value: Any, now: Any) -> Any:
        if (value is None) != (now is None):
            raise FieldError(name, "is in one of state and configuration, and not in the other")
        return None if value is None else load(name, value, now)

    return _in_place(Converter(dump_some, fill_some))


def _in_place(convert: Converter) -> Converter:
    """Mark what fills the objects that are there already, also within lists and dicts."""
    convert.load.in_place = True  # type: ignore[attr-defined]
    return convert


def _filled_in_place(convert: Converter) -> bool:
    return getattr(convert.load, "in_place", False)


def _fill(name: str, value: Any, now: Any) -> Any:
    if now is None:
        raise FieldError(name, "is not part of the configuration")
    now.load_state(value)
    return now


_IN_PLACE = _in_place(Converter(lambda item: item.dump_state(), _fill))


def _dump_some(item: Any) -> Any:
    return None if item is None else item.dump_state()


def _fill_both(name: str, value: Any, now: Any) -> Any:
    if value is not None and now is not None:
        now.load_state(value)
    return now


IF_BOTH = _in_place(Converter(_dump_some, _fill_both))
"""Of a part that is optional: it begins empty where the state has none of it, and is left out where
the configuration has none. Without it either is refused."""


def _stateful(cls: type[Stateful]) -> Converter:
    given = {
        part
        for _, role, key, through in declared(cls).values()
        if role is Role.SETTING or through
        for part in (through or (key,))
    }
    if inspect.isabstract(cls) or needs_more(cls, given):
        return _IN_PLACE

    def build(name: str, value: Any, now: Any) -> Any:
        return cls.from_state(value)

    if cls.dump_state is Stateful.dump_state and cls._before_dump is Stateful._before_dump:
        return Converter(lambda item: layout_of(cls).dump(item), build)
    return Converter(lambda item: item.dump_state(), build)


def _enum(cls: type[Enum]) -> Converter:
    def load(name: str, value: Any, now: Any) -> Any:
        try:
            return cls(value)
        except ValueError:
            allowed = ", ".join(repr(one.value) for one in cls)
            raise FieldError(name, f"must be one of {allowed}, not {value!r}") from None

    return Converter(lambda item: item.value, load)


def _dataclass(cls: Any) -> Converter:
    hints = get_type_hints(cls, include_extras=True)
    parts = {f.name: converter_for(hints[f.name]) for f in dataclasses.fields(cls) if f.init}
    as_list = getattr(cls, "state_as_list", False)

    def dump(item: Any) -> Any:
        found = {
            name: getattr(item, name) if part.dump is None else part.dump(getattr(item, name))
            for name, part in parts.items()
        }
        return list(found.values()) if as_list else found

    def load(name: str, value: Any, now: Any) -> Any:
        if as_list and isinstance(value, list) and len(value) == len(parts):
            value = dict(zip(parts, value, strict=True))
        if not isinstance(value, Mapping) or value.keys() != parts.keys():
            raise FieldError(name, f"must be a {cls.__name__} of {', '.join(parts)}")
        return cls(**{key: part.load(key, value[key], None) for key, part in parts.items()})

    return Converter(dump, load)


def _listed(name: str, value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise FieldError(name, f"must be a list, not {value!r}")
    return value


def _list(kind: Any) -> Converter:
    dump, load = converter = converter_for(kind)

    def load_all(name: str, value: Any, now: Any) -> Any:
        return [load(name, one, None) for one in _listed(name, value)]

    def fill_all(name: str, value: Any, now: Any) -> Any:
        if len(_listed(name, value)) != len(now):
            raise FieldError(name, f"must be {len(now)} in number, not {len(value)}")
        return [load(name, one, mine) for one, mine in zip(value, now, strict=True)]

    dump_all = list if dump is None else lambda items: [dump(one) for one in items]
    if _filled_in_place(converter):
        return _in_place(Converter(dump_all, fill_all))
    return Converter(dump_all, load_all)


def _tuple(*kinds: Any) -> Converter:
    if kinds[-1] is Ellipsis:
        inner = _list(kinds[0])
        return Converter(inner.dump, lambda name, value, now: tuple(inner.load(name, value, now)))
    parts = [converter_for(kind) for kind in kinds]

    def dump(items: Any) -> Any:
        return [
            one if part.dump is None else part.dump(one)
            for one, part in zip(items, parts, strict=True)
        ]

    def load(name: str, value: Any, now: Any) -> Any:
        if not isinstance(value, (list, tuple)) or len(value) != len(parts):
            raise FieldError(name, f"must be {len(parts)} values in a list, not {value!r}")
        mine = now if now is not None else (None,) * len(parts)
        return tuple(
            part.load(name, one, old) for part, one, old in zip(parts, value, mine, strict=True)
        )

    convert = Converter(list if all(part.dump is None for part in parts) else dump, load)
    return _in_place(convert) if any(map(_filled_in_place, parts)) else convert


def _set(kind: Any) -> Converter:
    inner = _list(kind)
    return Converter(sorted, lambda name, value, now: set(inner.load(name, value, now)))


def _deque(kind: Any) -> Converter:
    inner = _list(kind)

    def load(name: str, value: Any, now: Any) -> Any:
        return deque(inner.load(name, value, None), getattr(now, "maxlen", None))

    return Converter(inner.dump, load)


def _dict(key: Any, kind: Any = int, make: type[Any] = dict) -> Converter:
    part = converter_for(kind)
    dump, load = part
    if key is str:

        def to_object(items: Any) -> Any:
            return dict(items) if dump is None else {k: dump(v) for k, v in items.items()}

        def from_object(name: str, value: Any, now: Any) -> Any:
            if not isinstance(value, Mapping):
                raise FieldError(name, f"must be an object, not {value!r}")
            return make({str(k): load(name, v, None) for k, v in value.items()})

        def fill_object(name: str, value: Any, now: Any) -> Any:
            if not isinstance(value, Mapping):
                raise FieldError(name, f"must be an object, not {value!r}")
            # What the configuration no longer has is left out; what is new begins empty.
            for k in value.keys() & now.keys():
                load(name, value[k], now[k])
            return now

        if _filled_in_place(part):
            return _in_place(Converter(to_object, fill_object))
        return Converter(to_object, from_object)
    pairs = _list(tuple[key, kind])
    assert pairs.dump is not None
    to_list = pairs.dump
    return Converter(
        lambda items: to_list(items.items()),
        lambda name, value, now: make(dict(pairs.load(name, value, None))),
    )


_CONTAINERS: dict[Any, Callable[..., Converter]] = {
    list: _list,
    tuple: _tuple,
    set: _set,
    deque: _deque,
    dict: _dict,
    Counter: lambda key: _dict(key, int, Counter),
    OrderedDict: lambda key, kind: _dict(key, kind, OrderedDict),
}


def _load_array(name: str, value: Any, now: Any) -> Any:
    if not now.size and value == now.tolist():
        return now
    found = np.array(_listed(name, value), now.dtype)
    if found.shape != now.shape:
        raise FieldError(name, f"must have the shape {now.shape}, not {found.shape}")
    if found.dtype.kind == "f" and not np.isfinite(found).all():
        raise FieldError(name, "must hold only finite numbers")
    return found


_ARRAY = Converter(lambda array: array.tolist(), _load_array)
