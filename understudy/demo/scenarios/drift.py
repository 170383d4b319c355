"""The model answers with 200, and is wrong: an input breaks, then the flights themselves change."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path
from typing import Any

from understudy.demo.airline import Airline
from understudy.demo.flights import FEATURES, LABEL, PREDICTION, LateModel, Row
from understudy.demo.world import DemoFailed, World

RATE = 150.0
_QUIET = 1_200
"""Answers of the quiet stretch, in which there should be no finding."""
_MORE = 700
"""Answers after a finding, in which its figures settle and others may follow."""
_LATE_HOUR = 17.0

CONFIG = """\
# Written by `understudy demo`. Findings close after 10 seconds without the fault; the default is
# 5 minutes. The rest is what a real service has: on average one false alarm in a million rows.
version: 1
listen: 127.0.0.1:{listen}              # clients connect here instead of to the model server
control: {{listen: "127.0.0.1:{control}"}}  # metrics, page, control API
workers: 1
state_dir: state
models:
  - name: delays
    version: "1"
    baseline: baseline.json           # by `understudy baseline build`: how flights usually look
    performance: {{prediction: p_late, threshold: 0.5}}
champion: {{url: "http://127.0.0.1:{champion}"}}
monitoring: {{run_length: 1000000, hold: 10s}}
"""


def run(world: World) -> None:
    """Tell the story."""
    story = world.story
    airline = Airline()
    model = LateModel.learn(airline.flights.learned, hours=False)
    airline.serve(world, "champion", model)
    said = _baseline(world, airline.flights.usual, model)
    world.serve(CONFIG.format(listen=world.listen, control=world.control, **world.ports))
    story.demo(
        "Clients ask whether flights will be late. Understudy compares inputs and predictions with "
        "a baseline of 1,800 other flights."
    )
    story.note(said)
    airline.send(world, RATE)
    world.answered(_QUIET)
    quiet = [one["title"] for one in world.findings()]
    for title in quiet:
        story.says(title)
    if not quiet:
        story.says(f"nothing to report after {_QUIET:,} flights.")
    world.expect("no finding while nothing is wrong", not quiet)

    sent = airline.flights.sent
    cause = story.demo(
        "The weather service now sends Celsius instead of Fahrenheit. The model still answers 200."
    )
    world.send_other(airline.messages(world, sent, _celsius))
    found = _finding(world, cause, "temp_f", "a finding that names temp_f")
    world.expect("a finding names temp_f", found)
    cause = story.demo("The weather service is repaired.")
    world.send_other(airline.messages(world, sent))
    closed = world.wait(lambda: not _open(world), "findings close after the repair")
    if closed:
        story.says("all findings are closed: the inputs are as usual.", cause)
        world.expect("it closes after the repair", True)

    cause = story.demo(
        "Now the flights change: only evening departures. Each value is one that was seen before."
    )
    evening = [row for row in sent if isinstance(row["hour"], float) and row["hour"] >= _LATE_HOUR]
    world.send_other(airline.messages(world, evening))
    found = _finding(world, cause, "hour", "a finding that names hour")
    world.expect("a finding names hour", found)


def _celsius(row: Row) -> Row:
    value = row["temp_f"]
    return {**row, "temp_f": round((float(value) - 32.0) / 1.8, 1) if value is not None else None}


def _open(world: World) -> list[dict[str, Any]]:
    return [one for one in world.findings() if one["state"] == "open"]


def _finding(world: World, cause: float, feature: str, what: str) -> bool:
    """Wait for an open finding that names a feature, and tell it; whether it came."""
    began = world.unix_time(cause)

    def look() -> dict[str, Any] | None:
        for one in _open(world):
            if any(part["name"] == feature for part in one["features"]) and one["changed"] >= began:
                return one
        return None

    one = world.wait(look, what)
    if one is None:
        return False
    world.story.says(f"{one['severity']}: {one['title']}", cause, "bad")
    since = one.get("since")
    if since:
        off = float(since) - began
        when = f"{abs(off):.1f} s {'before' if off < 0 else 'after'} it did"
        world.story.note(f"It says that this began at {one['since_at'][11:19]} UTC, {when}.")
    world.answered(_MORE)
    others = [other for other in _open(world) if other["title"] != one["title"]]
    for other in sorted(others, key=lambda other: other["id"] != one["id"])[:2]:
        world.story.says(f"{other['severity']}: {other['title']}", cause)
    return True


def _baseline(world: World, rows: list[Row], model: LateModel) -> str:
    """``understudy baseline build`` on usual flights with what the model says about them; the last
    line of its output."""
    usual = world.folder / "usual.csv"
    with usual.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*FEATURES, PREDICTION, LABEL])
        for row in rows:
            cells = ["" if row[name] is None else row[name] for name in FEATURES]
            writer.writerow([*cells, model.predict(row), int(float(str(row[LABEL])))])
    return _run(
        world.folder,
        *("baseline", "build", "usual.csv", "--target", LABEL, "--prediction", PREDICTION),
        *("--model", "delays", "--model-version", "1", "-o", "baseline.json"),
    )


def _run(folder: Path, *words: str) -> str:
    command = [sys.executable, "-P", "-m", "understudy", *words]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    if done.returncode != 0:
        raise DemoFailed(f"understudy {' '.join(words)}: {done.stderr.strip()}")
    return done.stdout.strip().splitlines()[-1]
