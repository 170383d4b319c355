"""The silent failure: the model answers, quickly and with 200, and is wrong.

An upstream job begins to send the temperature in Celsius, and the delay at the gate, which matters
most, is missing from a share of the flights.
"""

from __future__ import annotations

import asyncio
import math
import random
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from examples.flights.acts import get
from examples.flights.replay import Flight

if TYPE_CHECKING:
    from examples.flights.telling import Teller

QUIET_SECONDS = 13.5
FAULT_SECONDS = 19.0
LANDS_LATE = 9.5
"""Seconds after which the labels of this act come: long enough to see what is known without."""
LOST = 0.4
"""Share of the flights whose delay at the gate is missing."""
MONITORING = {"run_length": 1_000_000, "hold": "30s"}
PERFORMANCE = {"prediction": "p_late", "threshold": 0.5}


def spoil(flights: list[Flight], features: list[str]) -> list[Flight]:
    """What the upstream job makes of flights."""
    temperature, delay = features.index("temp_f"), features.index("dep_delay_min")
    chance = random.Random(1)
    spoiled = []
    for flight in flights:
        values = list(flight.values)
        fahrenheit = values[temperature]
        if fahrenheit is not None:
            values[temperature] = round((fahrenheit - 32.0) / 1.8, 2)
        if chance.random() < LOST:
            values[delay] = None
        spoiled.append(replace(flight, values=values))
    return spoiled


def build_baseline(models: Path, name: str) -> tuple[Path, str]:
    """``understudy baseline build`` on what the champion saw and said before; its summary."""
    path = models / "baseline.json"
    command = [
        sys.executable,
        "-m",
        "understudy",
        "baseline",
        "build",
        str(models / "reference.csv"),
    ]
    command += ["--target", "late", "--prediction", "p_late", "--prediction", "p_on_time"]
    command += ["--model", name, "--model-version", "1", "-o", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    return path, done.stdout


class SilentFailure:
    """Watches the findings while flights are sent, and tells what it sees."""

    def __init__(self, control: str, teller: Teller) -> None:
        self.found: dict[str, dict[str, Any]] = {}
        """Findings by id, as they were seen last."""
        self.before: list[str] = []
        """Titles of findings of the quiet stretch: there should be none."""
        self.began = 0.0
        """Unix time of the fault."""
        self._control = control
        self.gate_began = math.inf
        """Unix time of the gate, whose few payloads are duplicates and no flights."""
        self._teller = teller
        self._told: dict[str, str] = {}

    async def watch(self) -> None:
        """Look at the findings once a second."""
        while True:
            await asyncio.sleep(1.0)
            await asyncio.to_thread(self.look)

    def look(self) -> None:
        """Look once, and say what is new."""
        for one in get(self._control + "/v1/findings?state=all&limit=100")["findings"]:
            if one["kind"] != "performance" and one["opened"] >= self.gate_began:
                continue
            self.found[one["id"]] = one
            if not self.began and one["title"] not in self.before:
                self.before.append(one["title"])
            # Figures move with every row; what is worth telling is what it is about.
            about = ", ".join(sorted(feature["name"] for feature in one["features"]))
            if self._told.get(one["id"]) == about:
                continue
            self._told[one["id"]] = about
            after = (
                f"{time.time() - self.began:.0f} s after the fault" if self.began else "before it"
            )
            self._teller.says(f"finding ({one['kind']}, {after}): {one['title']}")
            for feature in one["features"][:3]:
                self._teller.detail(f"{feature['name']}: {feature['detail']}")

    def summary(self, details: bool) -> list[str]:
        """What was found, and when; with ``details`` also when it says that it began."""
        lines = [
            "  in the quiet stretch: "
            + (
                f"{len(self.before)} findings: {'; '.join(self.before)}"
                if self.before
                else "nothing"
            )
        ]
        for one in sorted(self.found.values(), key=lambda item: float(item["opened"])):
            if not self.began:
                break
            since = one.get("since")
            began = (
                f", says it began {float(since) - self.began:+.1f} s from when it did"
                if since and details
                else ""
            )
            lines.append(f"  {one['opened'] - self.began:5.1f} s  {one['title']}{began}")
        return lines
