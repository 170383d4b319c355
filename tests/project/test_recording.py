"""The recording of the demo, and the script that makes it."""

from __future__ import annotations

import itertools
import json
import sys

import pyte
import pytest

from tools.recording import CAST, COLUMNS, LONGEST_PAUSE, ROWS, Camera, Screen, record


def replayed(lines: list[str]) -> list[str]:
    """What a player shows at the end."""
    screen = pyte.Screen(COLUMNS, ROWS)
    stream = pyte.Stream(screen)
    for line in lines[1:]:
        stream.feed(json.loads(line)[2])
    return [row.rstrip() for row in screen.display]


def test_the_recording_in_the_documentation_can_be_played() -> None:
    lines = CAST.read_text("utf-8").splitlines()
    head = json.loads(lines[0])
    assert (head["version"], head["width"], head["height"]) == (2, COLUMNS, ROWS)
    times = [json.loads(line)[0] for line in lines[1:]]
    assert times == sorted(times)
    pauses = [after - before for before, after in itertools.pairwise(times)]
    assert max(pauses) <= LONGEST_PAUSE + 0.01
    shown = replayed(lines)
    assert "  ✓ no client saw an error" in shown
    assert any(row.startswith("Next: understudy demo") for row in shown)


def test_a_recording_shows_what_the_terminal_showed() -> None:
    program = (
        "import sys, time\n"
        "print('\\x1b[1mbold\\x1b[0m and \\x1b[32mgreen\\x1b[0m', flush=True)\n"
        "for n in range(30):\n    print('line', n)\n"
        "print('\\x1b[2Alast', end='', flush=True)\n"
    )
    shown = replayed(record([sys.executable, "-c", program], Camera()))
    assert shown[-3:] == ["last 28", "line 29", ""]
    assert not any("bold" in row for row in shown), "it has scrolled away"


def test_a_line_keeps_its_colours() -> None:
    screen = Screen()
    screen.stream.feed(b"\x1b[1mbold\x1b[0m and \x1b[32mgreen\x1b[0m   ")
    assert screen.changes() == "\x1b[1;1H\x1b[0;1mbold \x1b[0mand \x1b[0;32mgreen\x1b[0m\x1b[K"
    assert screen.changes() == ""
    screen.stream.feed(b"\r\nnext")
    assert screen.changes() == "\x1b[2;1Hnext\x1b[0m\x1b[K"


def test_a_failed_command_is_not_recorded() -> None:
    with pytest.raises(RuntimeError, match=r"ended with 3:\n.*sorry"):
        record([sys.executable, "-c", "print('sorry'); raise SystemExit(3)"], Camera())


def test_the_camera_notices_the_moment() -> None:
    camera = Camera()
    camera.look("'minutes' serves 50 % of the clients")
    assert not camera.moment.is_set(), "the address of the page is not known"
    camera.look(" page             http://127.0.0.1:34125/\n")
    assert not camera.moment.is_set()
    camera.look("'minutes' serves 50 % of the clients")
    assert camera.moment.is_set()
    assert camera.address == "http://127.0.0.1:34125/"
