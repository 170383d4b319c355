"""Charts as self-contained SVG text, without scripts and fonts; the page sets the colours.

Coordinates are the drawing's own, in pixels, from the top left. All texts are escaped.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from html import escape as _html
from typing import Self

from understudy.common.text import visible

Value = str | float | None
Point = tuple[float, float]
Show = Callable[[float], str]


def escape(text: str) -> str:
    """Text for content and attributes; control characters, which XML forbids, are shown."""
    return _html(visible(text, lines=True))


def element(name: str, text: str | None = None, title: str = "", **attributes: Value) -> str:
    """One element. ``cls`` stands for the attribute class, ``_`` for a dash; None leaves it out.

    ``text`` is its content and ``title`` what a browser shows beside the pointer.
    """
    written = "".join(
        f' {"class" if key == "cls" else key.replace("_", "-")}="{_value(value)}"'
        for key, value in attributes.items()
        if value is not None and value != ""
    )
    inner = (f"<title>{escape(title)}</title>" if title else "") + escape(text or "")
    return f"<{name}{written}>{inner}</{name}>" if inner else f"<{name}{written}/>"


def _value(value: str | float | None) -> str:
    return escape(value) if isinstance(value, str) else coordinate(float(value or 0.0))


def coordinate(value: float) -> str:
    """A length to a tenth of a pixel."""
    text = f"{value:.1f}".removesuffix(".0")
    return "0" if text == "-0" else text


def joined(points: Iterable[Point]) -> str:
    """The attribute ``points`` of a polyline or polygon."""
    return " ".join(f"{coordinate(x)},{coordinate(y)}" for x, y in points)


def wrapped(
    body: str,
    width: float,
    height: float,
    label: str = "",
    *,
    fixed: bool = False,
    stretch: bool = False,
    cls: str = "",
) -> str:
    """A whole drawing. ``label`` is for screen readers; ``fixed`` sets its size in pixels,
    otherwise it fills its box, with ``stretch`` in both directions."""
    head = f'viewBox="0 0 {coordinate(width)} {coordinate(height)}"'
    if fixed:
        head += f' width="{coordinate(width)}" height="{coordinate(height)}"'
    if label:
        head += f' role="img" aria-label="{escape(label)}"'
    if stretch:
        head += ' preserveAspectRatio="none"'
    if cls:
        head += f' class="{escape(cls)}"'
    return f"<svg {head}>{body}</svg>"


@dataclass(frozen=True, slots=True)
class Scale:
    """From a value between ``low`` and ``high`` to a coordinate between ``start`` and ``end``.

    ``clamp`` keeps values outside at the edge; ``log`` is for values above 0.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False
    clamp: bool = False

    def __call__(self, value: float) -> float:
        """The coordinate of a value."""
        if self.log:
            part = math.log(max(value, self.low) / self.low) / math.log(self.high / self.low)
        else:
            part = (value - self.low) / (self.high - self.low)
        if self.clamp:
            part = min(max(part, 0.0), 1.0)
        return self.start + (self.end - self.start) * part

    def __contains__(self, value: float) -> bool:
        return self.low <= value <= self.high


def step_of(low: float, high: float, about: int = 4, factors: Sequence[float] = (1, 2, 5)) -> float:
    """A round step that divides a range into about ``about`` parts, or fewer."""
    raw = (high - low) / about
    power = 10.0 ** math.floor(math.log10(raw))
    return next((f * power for f in factors if f * power >= raw * 0.999), 10.0 * power)


def ticks(low: float, high: float, about: int = 4) -> list[float]:
    """About ``about`` round numbers within a range, at least one."""
    step = step_of(low, high, about)
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    if first > last:  # the step was rounded up beyond both ends
        return ticks(low, high, about + 1)
    return [number * step for number in range(first, last + 1)]


def log_ticks(low: float, high: float) -> list[float]:
    """Powers of ten within a range, with their multiples by 2 and 5 if there are few."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    steps = (1.0,) if last - first > 3 else (1.0, 2.0, 5.0)
    found = [step * 10.0**power for power in range(first, last + 1) for step in steps]
    return [value for value in found if low <= value <= high]


class Axes:
    """A drawing with two scales. What is drawn later lies above.

    ``margins`` are left, right, top and bottom; ``x`` and ``y`` the ends of the scales.
    """

    def __init__(
        self,
        size: tuple[float, float],
        margins: tuple[float, float, float, float],
        x: tuple[float, float],
        y: tuple[float, float],
        label: str,
        *,
        log_y: bool = False,
    ) -> None:
        self.width, self.height = size
        self.label = label
        self.left, self.right = margins[0], self.width - margins[1]
        self.top, self.bottom = margins[2], self.height - margins[3]
        self.x = Scale(*x, self.left, self.right)
        self.y = Scale(*y, self.bottom, self.top, log=log_y, clamp=True)
        self.parts: list[str] = []

    def add(self, name: str, text: str | None = None, title: str = "", **attributes: Value) -> Self:
        """Any element, in coordinates."""
        self.parts.append(element(name, text, title, **attributes))
        return self

    def text(self, x: float, y: float, text: str, anchor: str = "", cls: str = "") -> Self:
        """A text at a coordinate; ``anchor`` is ``middle``, ``end`` or by default its start."""
        return self.add("text", text, x=x, y=y, text_anchor=anchor, cls=cls)

    def grid(self, values: Iterable[float], show: Show) -> Self:
        """Lines across at values of the y axis, each with its label."""
        for value in values:
            at = self.y(value)
            self.add("line", cls="grid", x1=self.left, x2=self.right, y1=at, y2=at)
            self.text(self.left - 6, at + 4, show(value), "end")
        return self

    def x_labels(self, values: Iterable[float], show: Show, below: float = 16) -> Self:
        """Labels of the x axis, so many pixels below it."""
        for value in values:
            self.text(self.x(value), self.bottom + below, show(value), "middle")
        return self

    def x_name(self, text: str) -> Self:
        """What the x axis shows."""
        return self.text((self.left + self.right) / 2, self.height - 6, text, "middle")

    def rule(self, value: float, cls: str, text: str = "") -> Self:
        """A line across at a value, where it is within the scale, with a text at its end."""
        if value in self.y:
            at = self.y(value)
            self.add("line", cls=cls, x1=self.left, x2=self.right, y1=at, y2=at)
            if text:
                self.text(self.right - 4, at - 4, text, "end", cls)
        return self

    def stretch(
        self, low: float, high: float, cls: str, title: str = "", least: float = 0.0
    ) -> Self:
        """The part of the drawing from ``low`` to ``high`` of the x axis, as far as that is seen,
        and at least ``least`` pixels wide."""
        start, end = self.x(max(low, self.x.low)), self.x(min(high, self.x.high))
        width = max(end - start, least)
        if end >= start and width > 0.0:
            tall = self.bottom - self.top
            self.add("rect", title=title, cls=cls, x=start, y=self.top, width=width, height=tall)
        return self

    def curve(self, points: Iterable[Point], cls: str, title: str = "") -> Self:
        """A line through points."""
        return self.add("polyline", title=title, cls=cls, points=joined(self.at(points)))

    def dots(self, points: Iterable[Point], cls: str) -> Self:
        """A dot at each point."""
        for x, y in self.at(points):
            self.add("circle", cls=cls, cx=x, cy=y, r=3.5)
        return self

    def at(self, points: Iterable[Point]) -> list[Point]:
        """Coordinates of points."""
        return [(self.x(x), self.y(y)) for x, y in points]

    def svg(self) -> str:
        """The drawing."""
        return wrapped("".join(self.parts), self.width, self.height, self.label)
