"""State by declaration: every attribute is declared, and what is declared goes there and back."""

from __future__ import annotations

import ast
import enum
import importlib
import inspect
import json
import pkgutil
import textwrap
from collections import Counter, OrderedDict, deque
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Annotated, Any

import numpy as np
import pytest
from numpy.typing import NDArray

import understudy.monitor
import understudy.shadow
from understudy.shadow.state import (
    IF_BOTH,
    Config,
    Converter,
    Count,
    Derived,
    FieldError,
    Key,
    Role,
    Saved,
    Setting,
    Stateful,
    Through,
    Transient,
    Two,
    declared,
    dump,
    layout_of,
    load,
)


def _modules() -> Iterator[str]:
    for package in (understudy.shadow, understudy.monitor):
        for module in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if "__main__" not in module.name:
                yield module.name


def _subclasses(cls: type) -> Iterator[type]:
    for one in cls.__subclasses__():
        yield one
        yield from _subclasses(one)


def stateful() -> list[type[Stateful]]:
    for name in _modules():
        importlib.import_module(name)
    found = {one for one in _subclasses(Stateful) if one.__module__.startswith("understudy.")}
    return sorted(found, key=lambda one: f"{one.__module__}.{one.__qualname__}")


_FILE = "part of the baseline file, whose format users keep: keys depend on the kind of column"
_DOCUMENT = "a document of the API or of a topic, read tolerantly"
_ISOLATED = "one part that does not fit costs this part only, and the log says so"
BY_HAND = {
    **dict.fromkeys(
        (
            "monitor.baseline.calibration.codes.FeatureCode",
            "monitor.baseline.calibration.codes.FeatureCodes",
            "monitor.baseline.calibration.regions.RegionalCalibration",
            "monitor.baseline.calibration.trees.Trees",
            "monitor.baseline.model.Baseline",
            "monitor.baseline.model.Column",
            "monitor.baseline.profiles.CategoryProfile",
            "monitor.baseline.profiles.NumericProfile",
            "monitor.baseline.together.JointProfile",
            "monitor.detectors.dependence.Memory",
            "monitor.detectors.seasons.Profile",
        ),
        _FILE,
    ),
    **dict.fromkeys(
        (
            "monitor.findings.finding.Contribution",
            "monitor.findings.finding.Finding",
            "monitor.findings.finding.Note",
            "monitor.findings.finding.Signal",
            "monitor.findings.finding.Size",
            "monitor.routing.routes.Assignment",
            "shadow.assignment.Allocation",
            "shadow.rollout.state.Event",
            "shadow.rollout.state.Rollout",
        ),
        _DOCUMENT,
    ),
    **dict.fromkeys(
        (
            "monitor.experiments.runner.ExperimentRunner",
            "monitor.findings.channels.base.Channel",
            "monitor.findings.notify.Notifier",
            "monitor.findings.service.FindingsService",
            "monitor.health.watches.Watches",
        ),
        _ISOLATED,
    ),
    "monitor.ingest.cloudevents.Pairs": "holds raw bytes of events, in the order of arrival",
    "monitor.records.slots.Slots": "only the slots of one run are read back",
}
"""Classes that write state or files by hand, and why."""


def by_hand() -> set[str]:
    """Classes that define a way there and a way back without the mechanism."""
    found = set()
    for name in _modules():
        for one in vars(importlib.import_module(name)).values():
            if not inspect.isclass(one) or not one.__module__.startswith("understudy."):
                continue
            if issubclass(one, Stateful) or getattr(one, "_is_protocol", False):
                continue
            back = {"load_state", "from_state", "from_dict"} & vars(one).keys()
            if back and {"dump_state", "to_dict"} & vars(one).keys():
                found.add(f"{one.__module__}.{one.__qualname__}".removeprefix("understudy."))
    return found


def test_what_is_written_by_hand_has_a_reason() -> None:
    assert by_hand() == BY_HAND.keys()


def attributes(cls: type) -> set[str]:
    """What instances have: what methods assign to self, fields of dataclasses, slots."""
    found: set[str] = set()
    for base in cls.__mro__:
        if base is object or base is Stateful or not hasattr(base, "__module__"):
            continue
        if base.__module__ in ("abc", "typing", "builtins"):
            continue
        found |= set(base.__dict__.get("__slots__", ()))
        if is_dataclass(base):
            found |= {field.name for field in fields(base)}
        tree = ast.parse(textwrap.dedent(inspect.getsource(base)))
        for node in ast.walk(tree):
            targets: list[ast.expr] = []
            if isinstance(node, ast.Assign):
                targets = list(node.targets)
            elif isinstance(node, (ast.AnnAssign, ast.AugAssign)):
                targets = [node.target]
            for target in targets:
                for part in ast.walk(target):
                    if (
                        isinstance(part, ast.Attribute)
                        and isinstance(part.value, ast.Name)
                        and part.value.id == "self"
                        and isinstance(part.ctx, ast.Store)
                    ):
                        found.add(part.attr)
        properties = {n for n, value in vars(base).items() if isinstance(value, property)}
        found -= properties
    return found


def undeclared(cls: type) -> set[str]:
    return attributes(cls) - declared(cls).keys()


def test_every_attribute_of_what_is_saved_is_declared() -> None:
    classes = stateful()
    assert len(classes) > 40
    forgotten = {f"{one.__module__}.{one.__qualname__}": undeclared(one) for one in classes}
    assert {name: missing for name, missing in forgotten.items() if missing} == {}


def test_every_declared_attribute_exists() -> None:
    left = {one.__qualname__: declared(one).keys() - attributes(one) for one in stateful()}
    # What a base declares, and a class of it alone has, is named here.
    assert {name: extra for name, extra in left.items() if extra} == {}


def test_every_saved_attribute_has_a_form() -> None:
    for one in stateful():
        assert layout_of(one) is layout_of(one)


class Forgetful(Stateful):
    rows: Saved[Count]

    def __init__(self) -> None:
        self.rows = 0
        self.missed, self.late = 0, 0

    def add(self) -> None:
        self.rows += 1
        self.newest: float = 1.0


class Inherits(Forgetful):
    newest: Transient[float]


def test_an_undeclared_attribute_is_detected() -> None:
    assert undeclared(Forgetful) == {"missed", "late", "newest"}
    assert undeclared(Inherits) == {"missed", "late"}


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


@dataclass(frozen=True)
class Point:
    at: float
    labels: tuple[str, ...] = ()


class Part(Stateful):
    state_as_list = True

    low: Setting[float]
    high: Setting[float]
    seen: Saved[Count]

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = low, high
        self.seen = 0


class Inner(Stateful):
    """Filled in place."""

    size: Config[int]
    values: Saved[NDArray[np.int64]]

    def __init__(self, size: int) -> None:
        self.size = size
        self.values = np.zeros(size, np.int64)


class Everything(Stateful):
    state_version = 3

    name: Setting[str]
    part: Saved[Annotated[Part, Through("low", "high")]]
    count: Saved[Count]
    share: Saved[float]
    perhaps: Saved[float | None]
    on: Saved[bool]
    colour: Saved[Colour]
    pair: Saved[Two[Count]]
    names: Saved[set[str]]
    newest: Saved[deque[float]]
    totals: Saved[Counter[tuple[str, int]]]
    by_name: Saved[dict[str, list[int]]]
    order: Saved[OrderedDict[str, float]]
    points: Saved[list[Point]]
    _mask: Saved[Annotated[NDArray[np.bool_], Key("which")]]
    _hex: Saved[Annotated[int, Converter(hex, lambda name, text, now: int(text, 16))]]
    total: Derived[float]
    _cache: Transient[dict[str, int]]

    def __init__(self, name: str, low: float, high: float) -> None:
        self.name = name
        self.part = Part(low, high)
        self.count, self.share, self.perhaps, self.on = 0, 0.0, None, False
        self.colour = Colour.RED
        self.pair = [0, 0]
        self.names = set()
        self.newest = deque(maxlen=3)
        self.totals = Counter()
        self.by_name = {}
        self.order = OrderedDict()
        self.points = []
        self._mask = np.zeros(2, np.bool_)
        self._hex = 0
        self._restored()
        self._cache = {}

    def _restored(self) -> None:
        self.total = self.count * self.share
        if self.share > 1.0:
            raise FieldError("share", "must be at most 1")


class Holder(Stateful):
    limit: Config[int]
    one: Saved[Inner]
    perhaps: Saved[Inner | None]
    several: Saved[list[Inner]]
    by_name: Saved[dict[str, Inner]]
    optional: Saved[Annotated[Inner | None, IF_BOTH]]

    def __init__(self, limit: int, *names: str) -> None:
        self.limit = limit
        self.one = Inner(limit)
        self.perhaps = Inner(limit) if names else None
        self.several = [Inner(1), Inner(2)]
        self.by_name = {name: Inner(1) for name in names}
        self.optional = Inner(1) if "b" in names else None


def filled() -> Everything:
    made = Everything("x", -1.0, 2.0)
    made.part.seen = 4
    made.count, made.share, made.perhaps, made.on = 3, 0.5, None, True
    made.colour, made.pair, made.names = Colour.BLUE, [1, 2], {"b", "a"}
    made.newest.extend((1.0, 2.0, 3.0, 4.0))
    made.totals = Counter({("a", 1): 2})
    made.by_name = {"k": [1, 2]}
    made.order = OrderedDict(z=1.0, a=2.0)
    made.points = [Point(1.0, ("l",)), Point(2.0)]
    made._mask = np.array([True, False])
    made._hex = 255
    return made


def test_every_type_survives_a_round_trip() -> None:
    made = filled()
    state = json.loads(json.dumps(made.dump_state(), allow_nan=False))
    assert state["part"] == [-1.0, 2.0, 4]
    assert (state["which"], state["hex"], state["version"]) == ([True, False], "0xff", 3)
    assert "total" not in state
    assert "cache" not in state
    again = Everything.from_state(state)
    assert again.dump_state() == made.dump_state()
    assert (again.part.high, again.part.seen, again.total) == (2.0, 4, 1.5)
    assert (again.newest.maxlen, list(again.newest)) == (3, [2.0, 3.0, 4.0])
    assert list(again.order) == ["z", "a"]
    assert again.totals["b", 2] == 0
    assert again.points == made.points
    assert again._mask.dtype == np.bool_
    empty = made.empty()
    assert (empty.name, empty.part.low, empty.part.seen, empty.count) == ("x", -1.0, 0, 0)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("count", -1), ("count", True), ("count", 1.5), ("share", "1"), ("share", float("nan")),
        ("share", 2.0), ("perhaps", "x"), ("on", 1), ("colour", "green"), ("pair", [1]),
        ("names", "ab"), ("by_name", []), ("points", [{"at": 1.0}]), ("which", [True]),
        ("part", [0.0, 1.0]), ("part", {}), ("totals", [["a", 1]]), ("version", 2),
        ("version", None), ("surplus", 1),
    ],
)  # fmt: skip
def test_an_invalid_state_is_rejected(key: str, value: Any) -> None:
    state = filled().dump_state()
    with pytest.raises(ValueError):  # noqa: PT011
        Everything.from_state(state | {key: value})


@pytest.mark.parametrize("key", filled().dump_state())
def test_a_missing_field_is_named(key: str) -> None:
    state = filled().dump_state()
    del state[key]
    with pytest.raises(FieldError, match=f"^{key} is missing from the state of Everything"):
        Everything.from_state(state)


def test_configured_parts_are_loaded_in_place() -> None:
    before, after = Holder(3, "a", "b"), Holder(3, "b", "c")
    before.one.values[:] = 1, 2, 3
    before.several[1].values[:] = 4, 5
    before.by_name["a"].values[0] = 6
    before.by_name["b"].values[0] = 7
    assert before.optional is not None
    before.optional.values[0] = 8
    kept = after.one, after.several[1], after.by_name["b"]
    after.load_state(json.loads(json.dumps(before.dump_state())))
    assert kept == (after.one, after.several[1], after.by_name["b"])
    assert after.one.values.tolist() == [1, 2, 3]
    assert after.several[1].values.tolist() == [4, 5]
    # What is no longer configured is left out, what is new begins empty.
    assert {n: one.values[0] for n, one in after.by_name.items()} == {"b": 7, "c": 0}
    assert after.optional is not None
    assert after.optional.values.tolist() == [8]
    for other in (Holder(3, "c"), Holder(3, "b")):
        other.load_state({**Holder(3, "a").dump_state(), "by_name": {}})
        other.load_state(before.dump_state())
    with pytest.raises(FieldError, match="perhaps is in one of state and configuration"):
        Holder(3).load_state(before.dump_state())
    with pytest.raises(FieldError, match=r"values must have the shape \(2,\)"):
        Holder(2, "a").load_state(before.dump_state())
    with pytest.raises(TypeError, match="built from its configuration"):
        Holder.from_state(before.dump_state())


def test_a_frozen_dataclass_survives_a_round_trip() -> None:
    point = Point(1.0, ("a", "b"))
    assert dump(point) == {"at": 1.0, "labels": ["a", "b"]}
    assert load(Point, dump(point)) == point
    with pytest.raises(FieldError):
        load(Point, {"at": 1.0})


def test_a_type_without_a_form_is_rejected_at_declaration() -> None:
    class Odd(Stateful):
        one: Saved[complex]

    with pytest.raises(TypeError, match="has no form in a state"):
        layout_of(Odd)


def test_roles_are_distinguished() -> None:
    roles = {name: role for name, (_, role, _, _) in declared(Everything).items()}
    assert roles["name"] is Role.SETTING
    assert roles["total"] is Role.DERIVED
    assert roles["_cache"] is Role.TRANSIENT
    assert roles["_mask"] is Role.SAVED
