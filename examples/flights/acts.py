"""Two experiments on the flights: a better challenger goes on stage, a faulty one is taken off."""

from __future__ import annotations

import asyncio
import json
import os
import time
import urllib.request
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from examples.flights.replay import Flight

if TYPE_CHECKING:
    from examples.flights.telling import Teller

LANDS_AFTER = 4.0
"""Seconds of the replay after which it is known whether a flight was late."""
ACCURACY = {"metric": "accuracy", "role": "success", "effect": "0.5 pp", "base_rate": 0.9}
ERRORS = {"metric": "error_rate", "margin": "2 pp"}
SPEED = {"metric": "latency_p95", "margin": "100 %", "planned": 1000}
GOOD = {
    "name": "better-delays",
    "challengers": ["challenger"],
    "mode": "canary",
    "minimum_duration": 0,  # the flights of a month pass in a minute
    # No latency: on a machine of two cores it comes in bursts, and a minute is too short to be sure.
    "metrics": [ACCURACY, ERRORS],
    "label": {"prediction": "p_late", "threshold": 0.5},
    "stages": [
        {"weight": 0.0, "requests": 500, "requires": "decision"},
        {"weight": 0.25, "requests": 200},
        {"weight": 0.5, "requests": 400, "requires": "decision"},
        {"weight": 1.0},
    ],
}
FAULTY = {
    "name": "faulty-delays",
    "challengers": ["faulty"],
    "mode": "canary",
    "minimum_duration": 0,
    "metrics": [ERRORS, SPEED],
    "stages": [
        {"weight": 0.25, "requests": 3000, "requires": "decision"},
        {"weight": 1.0},
    ],
}


class Labels:
    """The truth about flights, posted when they have landed."""

    def __init__(self, post: Callable[[str, Any], Any]) -> None:
        self._post = post
        self.lands_after = LANDS_AFTER
        self._flying: deque[tuple[float, Flight]] = deque()
        self.posted = 0

    def departed(self, flight: Flight) -> None:
        """Its label will be known some seconds from now."""
        self._flying.append((time.monotonic() + self.lands_after, flight))

    async def run(self) -> None:
        """Post labels once a second."""
        while True:
            await asyncio.sleep(1.0)
            landed = []
            while self._flying and self._flying[0][0] <= time.monotonic():
                flight = self._flying.popleft()[1]
                landed.append({"request_id": flight.id, "label": flight.late})
            if landed:
                await asyncio.to_thread(self._post, "/v1/feedback", landed)
                self.posted += len(landed)


class Act:
    """One experiment, from its declaration to its end, told as it goes."""

    def __init__(self, declared: dict[str, Any], control: str, teller: Teller) -> None:
        self.declared = declared
        self.name = str(declared["name"])
        self.begun = False
        self.found: dict[str, Any] = {}
        self.seconds = 0.0
        self._control = control
        self._teller = teller
        self._version = 0

    async def run(self, until: float) -> str:
        """Begin it and stay until it has ended, or until that monotonic time; the last phase."""
        started = time.monotonic()
        await asyncio.to_thread(post, self._control + "/v1/experiments?who=demo", self.declared)
        self.begun = True
        phase = "running"
        # A slow machine may be late; a little time it has in any case.
        until = max(until, started + 3.0)
        while time.monotonic() < until:
            await asyncio.sleep(0.5)
            one = await asyncio.to_thread(self._look)
            phase = str(one["phase"])
            if one["version"] != self._version:
                self._version = one["version"]
                self._tell(one, time.monotonic() - started)
            if phase in ("promoted", "rolled_back", "aborted"):
                break
        self.seconds = time.monotonic() - started
        return phase

    def _look(self) -> dict[str, Any]:
        self.found = get(f"{self._control}/v1/experiments/{self.name}")["challengers"][0]
        return self.found

    def _tell(self, one: dict[str, Any], seconds: float) -> None:
        requests = one["requests"]
        mine = requests["served"] or requests["pairs"]
        share = f"{one['weight'] * 100:g} % of the flights"
        self._teller.says(
            f"{self.name}: {one['phase'].replace('_', ' ')} at {share}, after {seconds:.0f} s "
            f"and {mine:,} requests of its own"
        )
        for reason in one["reasons"] if one["phase"] != "running" or self._version > 1 else ():
            self._teller.detail(reason)

    @property
    def lasts(self) -> bool:
        """Whether it has begun and is not decided."""
        ended = ("promoted", "rolled_back", "aborted")
        return self.begun and self.found.get("phase") not in ended

    def end(self) -> None:
        """Take it away again; the champion has all flights."""
        request = urllib.request.Request(
            f"{self._control}/v1/experiments/{self.name}", method="DELETE"
        )
        with urllib.request.urlopen(request, timeout=30):
            pass

    def summary(self, details: bool) -> list[str]:
        """What came of it; with ``details``, beside what a test with a fixed horizon would have taken."""
        one = self.found
        if not one:
            return [f"  {self.name}: there was no time for it"]
        requests = one["requests"]
        lines = [
            f"  {self.name}: {one['phase'].replace('_', ' ')} after {self.seconds:.0f} s; "
            f"{requests['pairs']:,} copies and {requests['served']:,} flights of its own",
        ]
        if details:
            lines += [f"    {reason}" for reason in one["reasons"][:4]]
            fixed = self._fixed()
            if fixed is not None:
                lines.append(fixed)
        return lines

    def _fixed(self) -> str | None:
        """The size of a test that may look only once, for what was observed."""
        # Not at the top: where flights are only sent there is no Understudy.
        from understudy.shadow.experiment import Hypothesis
        from understudy.shadow.experiment.planning import Traffic as Assumed
        from understudy.shadow.experiment.planning import fixed_horizon

        for item in self.found["metrics"]:
            if item["metric"] == "accuracy" and item["champion"] and item["challenger"]:
                gain = item["challenger"] - item["champion"]
                if gain <= 0.0:
                    return None
                spec = {**ACCURACY, "effect": f"{gain * 100:.4f} pp"}
                spec["base_rate"] = item["champion"]
                hypothesis = Hypothesis.parse(spec, "metric", item["alpha"])
                pairs = fixed_horizon(hypothesis, Assumed(), 0.8)
                alone = fixed_horizon(hypothesis, Assumed(share=0.5), 0.8)
                return (
                    "    a test with a fixed horizon, planned for exactly this gain and looked at "
                    f"once, takes\n    {pairs:,.0f} pairs (McNemar), or {alone:,.0f} flights of "
                    "its own without pairing"
                )
        return None


def get(url: str) -> Any:
    """JSON at an address of the control API."""
    return _ask(urllib.request.Request(url))


def post(url: str, data: Any) -> Any:
    """Post JSON; the answer."""
    headers = {"Content-Type": "application/json"}
    return _ask(urllib.request.Request(url, json.dumps(data).encode(), headers))


def _ask(request: urllib.request.Request) -> Any:
    """The JSON that the control API answers. The variable UNDERSTUDY_TOKEN holds the token, if one
    is needed."""
    if token := os.environ.get("UNDERSTUDY_TOKEN"):
        request.add_header("Authorization", f"Bearer {token}")
    with urllib.request.urlopen(request, timeout=30) as answer:
        return json.loads(answer.read())
