"""The drawing that all charts share."""

from __future__ import annotations

from xml.etree import ElementTree

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from understudy.common.svg import Axes, Scale, element, joined, log_ticks, ticks, wrapped

NASTY = "<script>alert('1')</script> & \"x\""


def axes(**options: bool) -> Axes:
    return Axes((200, 100), (20, 10, 5, 15), (0.0, 10.0), (1.0, 100.0), NASTY, **options)


def test_every_text_is_escaped() -> None:
    drawing = axes()
    drawing.text(1, 2, NASTY).rule(5.0, "limit", NASTY).stretch(1.0, 2.0, "fault", NASTY)
    drawing.curve([(0.0, 1.0), (1.0, 2.0)], "line", NASTY).x_name(NASTY)
    drawing.add("circle", fill=NASTY, cx=1, cy=2, r=3).grid([2.0], lambda value: NASTY)
    text = drawing.svg()
    assert "<script" not in text
    root = ElementTree.fromstring(text)
    assert root.attrib["aria-label"] == NASTY
    assert [one.text for one in root.iter("title")] == [NASTY, NASTY]
    assert [one.text for one in root.iter("text")] == [NASTY] * 4
    assert next(root.iter("circle")).attrib["fill"] == NASTY


def test_elements() -> None:
    assert element("line", cls="grid", x1=1.0, x2=2.25, stroke_width=0.0, opacity=None) == (
        '<line class="grid" x1="1" x2="2.2" stroke-width="0"/>'
    )
    assert element("text", "a", x=-0.01) == '<text x="0">a</text>'
    assert joined([(1.0, 2.5), (3.25, 4.0)]) == "1,2.5 3.2,4"
    assert wrapped("", 2, 3, "l", fixed=True, cls="c") == (
        '<svg viewBox="0 0 2 3" width="2" height="3" role="img" aria-label="l" class="c"></svg>'
    )


def test_scales() -> None:
    across = Scale(0.0, 10.0, 20.0, 120.0)
    assert [across(v) for v in (0.0, 5.0, 10.0, 20.0)] == [20.0, 70.0, 120.0, 220.0]
    up = Scale(1.0, 100.0, 90.0, 10.0, log=True, clamp=True)
    assert [up(v) for v in (0.0, 1.0, 10.0, 100.0, 1e9)] == pytest.approx([90, 90, 50, 10, 10])
    assert (1.0 in up, 100.0 in up, 0.9 in up, 101.0 in up) == (True, True, False, False)


def test_what_lies_outside_is_not_drawn() -> None:
    assert "<line" not in axes().rule(0.5, "limit").svg()
    assert "<rect" not in axes().stretch(11.0, 12.0, "fault").svg()
    assert '<rect class="ok" x="105" y="5" width="1" height="80"/>' in (
        axes().stretch(5.0, 5.0, "ok", least=1.0).svg()
    )
    assert '<rect class="fault" x="105" y="5" width="85" height="80"/>' in (
        axes().stretch(5.0, 99.0, "fault").svg()
    )


@given(
    st.floats(-1e9, 1e9, allow_nan=False), st.floats(1e-6, 1e9, allow_nan=False), st.integers(2, 8)
)
@example(1.0, 400400401.0, 2)
def test_ticks_are_round_and_within(low: float, length: float, about: int) -> None:
    high = low + length
    if high - low < 1e-9 * max(abs(low), abs(high)):
        return
    found = ticks(low, high, about)
    assert 1 <= len(found) <= about + 2
    room = 1e-6 * length + 1e-9 * abs(low)
    assert all(low - room <= value <= high + room for value in found)
    assert found == sorted(found)


def test_logarithmic_ticks() -> None:
    assert log_ticks(0.9, 12.0) == [1.0, 2.0, 5.0, 10.0]
    assert log_ticks(0.001, 50_000.0) == pytest.approx([10.0**p for p in range(-3, 5)])
