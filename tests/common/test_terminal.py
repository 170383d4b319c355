"""Texts of users on a terminal, on pages and in drawings: shown, never obeyed."""

from __future__ import annotations

import io
import logging
import string
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from understudy.common import screen, svg, terminal
from understudy.common.templates import environment
from understudy.common.text import visible
from understudy.monitor import logs

HOSTILE = (
    "\x1b]0;OWNED\x07\x1b[2J\x1b[31mALL IS WELL\r\x9b2J\u202egnp\u2028\n[red]x[/red] [/eur] :smile:"
)
OBEYED = "\x1b\x07\r\x9b\u202e\u2028\u2066\x00\x7f"


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain", "plain"),
        ("größe 価格 😀 \u00a0", "größe 価格 😀 \u00a0"),
        ("\x1b[2J", r"\x1b[2J"),
        ("a\rb\nc\td", r"a\rb\nc\td"),
        ("\u202eabc\u2066", r"\u202eabc\u2066"),
        ("\x00\x7f\x9b", r"\x00\x7f\x9b"),
        ("\ud800", r"\ud800"),
        ("\u2028\ufeff", r"\u2028\ufeff"),
        ("👩\u200d🔬", "👩\u200d🔬"),
        ("[red]", "[red]"),
    ],
)
def test_what_would_be_obeyed_is_written_as_an_escape(text: str, shown: str) -> None:
    assert visible(text) == shown


@given(st.text())
def test_nothing_that_is_obeyed_is_left(text: str) -> None:
    assert not set(visible(text)) & set(OBEYED + "\n\t")
    assert not set(visible(text, lines=True)) & set(OBEYED)
    kept = string.printable[:95]
    assert [c for c in visible(text) if c not in kept] == [
        c for c in text if visible(c) == c and c not in kept
    ]


def test_lines_keep_their_breaks_and_one_line_stays_one(capsys: pytest.CaptureFixture[str]) -> None:
    terminal.echo(f"name {HOSTILE}")
    terminal.echo_lines(f"first\n\tsecond {HOSTILE}")
    said = capsys.readouterr().out
    assert not set(said) & set(OBEYED)
    assert said.count("\n") == 4, "one line, two lines, and one break in the user's text"
    assert "[red]x[/red] [/eur] :smile:" in said


def drawn(thing: object, width: int = 200) -> str:
    out = io.StringIO()
    screen.Console(file=out, width=width, force_terminal=True, color_system=None).print(thing)
    return out.getvalue()


def test_tables_and_texts_are_not_markup() -> None:
    table = screen.plain_table("series [/eur]", HOSTILE)
    table.add_row("price [/eur]", HOSTILE)
    table.add_row(screen.Text(HOSTILE), "[bold]y[/bold]", style="bold")
    texts = screen.Group(
        table,
        screen.Text(HOSTILE, "red").append(HOSTILE, "bold"),
        screen.Text.assemble((HOSTILE, "bold"), HOSTILE),
        HOSTILE,
    )
    said = drawn(texts, 900)
    assert not set(said) & set(OBEYED)
    assert said.count("[red]x[/red] [/eur] :smile:") == 8
    assert "price [/eur]" in said
    assert "[bold]y[/bold]" in said


def test_what_was_made_by_other_means_is_escaped_as_well() -> None:
    from rich.text import Text

    said = drawn(Text("a\x1b[2Jb\u202e"))
    assert said == "a\\x1b[2Jb\\u202e\n"


def test_log_lines(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(logs.LEVEL_VARIABLE, "info")
    monkeypatch.setenv(logs.FORMAT_VARIABLE, "text")
    root = logging.getLogger()
    kept, level = root.handlers[:], root.level
    try:
        logs.set_up("info", "text")
        root.handlers[0].setStream(sys.stderr)  # type: ignore[attr-defined]  # a stream handler
        try:
            raise ValueError(HOSTILE)
        except ValueError:
            logging.getLogger("understudy.test").exception("peer said %s", HOSTILE)
    finally:
        root.handlers[:] = kept
        root.setLevel(level)
    said = capsys.readouterr().err
    assert not set(said) & set(OBEYED)
    assert "peer said \\x1b]0;OWNED" in said.splitlines()[0]
    assert said.splitlines()[1].startswith("Traceback")


def test_pages_and_drawings(tmp_path: Path) -> None:
    (tmp_path / "page.html").write_text("<p>{{ name }}</p>\n{{ number }}")
    name = HOSTILE + "<script>alert(1)</script>"
    page = environment(tmp_path).get_template("page.html").render(name=name, number=3)
    drawing = svg.element("text", name, title=name, fill=name)
    for said in (page, drawing):
        assert not set(said) & set(OBEYED)
        assert "<script" not in said
        assert r"\x1b]0;OWNED" in said
    assert page.endswith("3")
